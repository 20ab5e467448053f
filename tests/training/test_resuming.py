"""More epochs for a run, and checkpoints that do not fit: what goes on is said, what cannot is refused by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matcaps import cli
from matcaps.training import LossSettings, OptimizerSettings, TrainSettings, train
from matcaps.training.checkpoint_files import read_checkpoint
from matcaps.training.loop import Callback
from matcaps.training.record import read_json, read_metrics, read_run_settings, write_settings
from tests.support.runs import STEPS, Stop, StoppedError, repeatable_metrics, tiny_settings, weights

CONSTANT = tiny_settings(epochs=2, optimizer=OptimizerSettings(ema_decay=0.9), views_every=0, agreement_every=1)
STRETCHED = tiny_settings(
    epochs=2,
    views_every=0,
    optimizer=OptimizerSettings(schedule="linear"),
    loss=LossSettings(margin_schedule="authors"),
)


class Rates(Callback):
    """Note the learning rate and the margin of every step."""

    def __init__(self):
        self.seen: dict[int, tuple[float, float]] = {}

    def on_train_batch_start(self, loop, training, batch, batch_idx):
        rate = loop.optimizer.param_groups[0]["lr"]
        self.seen[loop.global_step] = (rate, training.margin(loop.global_step))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A function that gives a copy of a finished run of two epochs."""
    runs: dict[str, Path] = {}

    def copy(settings: TrainSettings, place: Path) -> Path:
        name = settings.optimizer.schedule
        if name not in runs:
            runs[name] = train(settings, tmp_path_factory.mktemp(name)).folder
        return Path(shutil.copytree(runs[name], place / "run"))

    return copy


def test_more_epochs_without_a_schedule_end_as_if_they_had_been_there_from_the_start(finished, tmp_path):
    run = finished(CONSTANT, tmp_path)
    with pytest.warns(UserWarning, match="continues to 4 epochs instead of 2: no schedule depends on their number"):
        train(replace(CONSTANT, epochs=4), run, resume=True)
    whole = train(replace(CONSTANT, epochs=4), tmp_path / "whole").folder
    assert weights(run) == weights(whole)
    assert repeatable_metrics(run) == repeatable_metrics(whole)
    assert read_run_settings(run) == read_run_settings(whole)
    results = read_json(run / "results.json")
    assert results["epochs"] == 4
    assert results["extensions"] == [{"before": 2, "after": 4, "step": 2 * STEPS}]
    assert results["test"]["accuracy"] == read_json(whole / "results.json")["test"]["accuracy"]
    assert results["train_seconds"] > 0


def test_more_epochs_stretch_the_schedules_from_where_the_run_goes_on(finished, tmp_path):
    run, rates = finished(STRETCHED, tmp_path), Rates()
    longer = replace(STRETCHED, epochs=4)
    with pytest.warns(UserWarning, match=r"learning rate \(linear\) is 50% of its peak, not 0%.* the margin"):
        train(longer, run, resume=True, callbacks=[rates])
    whole = Rates()
    train(longer, tmp_path / "whole", callbacks=[whole])
    assert rates.seen == {step: whole.seen[step] for step in range(2 * STEPS, 4 * STEPS)}


@pytest.mark.filterwarnings("default")
def test_a_longer_run_that_is_stopped_goes_on_as_one_that_was_not(finished, tmp_path, capsys):
    run, other = finished(STRETCHED, tmp_path), finished(STRETCHED, tmp_path / "other")
    longer = replace(STRETCHED, epochs=4)
    with pytest.warns(UserWarning, match="continues to 4 epochs"), pytest.raises(StoppedError):
        train(longer, run, resume=True, callbacks=[Stop("on_train_epoch_start", 3 * STEPS)])
    assert cli.main(["eval", str(run)]) == 0
    assert "the weights are those after 2 of 4 epochs" in capsys.readouterr().err
    train(longer, run, resume=True)
    with pytest.warns(UserWarning, match="continues to 4 epochs"):
        train(longer, other, resume=True)
    assert weights(run) == weights(other)
    assert read_json(run / "results.json")["extensions"] == [{"before": 2, "after": 4, "step": 2 * STEPS}]
    assert [row["epoch"] for row in read_metrics(run / "metrics.csv")] == ["1", "2", "3", "4"]


def test_fewer_epochs_than_done_are_refused(finished, tmp_path):
    run = finished(CONSTANT, tmp_path)
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=r"epochs must be at least the 2 that the run in .* has done; got 1"):
        train(replace(CONSTANT, epochs=1), run, resume=True)
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_fewer_epochs_than_planned_shorten_a_run_that_has_not_come_so_far(tmp_path):
    with pytest.raises(StoppedError):
        train(replace(CONSTANT, epochs=9), tmp_path, callbacks=[Stop("on_train_epoch_start", STEPS)])
    with pytest.warns(UserWarning, match="continues to 2 epochs instead of 9"):
        train(CONSTANT, tmp_path, resume=True)
    assert read_json(tmp_path / "results.json")["epochs"] == 2


def test_a_settings_file_changed_by_hand_is_noticed(finished, tmp_path):
    run = finished(CONSTANT, tmp_path)
    values = read_run_settings(run).to_dict()
    write_settings(run / "settings.yaml", values | {"optimizer": values["optimizer"] | {"learning_rate": 0.5}})
    with pytest.raises(
        ValueError, match=r"settings\.yaml has other settings.*optimizer\.learning_rate: 0\.003, now 0\.5"
    ):
        train(read_run_settings(run), run, resume=True)
    write_settings(run / "settings.yaml", values | {"epochs": 3, "views_every": 7})
    with pytest.warns(UserWarning, match="continues to 3 epochs instead of 2"):
        train(read_run_settings(run), run, resume=True)
    assert read_json(run / "results.json")["epochs"] == 3


@pytest.mark.filterwarnings("default")
def test_the_command_takes_epochs_and_refuses_by_name_what_cannot_be_changed(finished, tmp_path, capsys):
    run = finished(CONSTANT, tmp_path)
    refused = {
        "--optimizer.learning_rate=0.5": "optimizer.learning_rate: 0.003, now 0.5",
        "--seed=3": "seed: 0, now 3",
        "--model.preset=baseline-cnn": "model.preset: quickstart, now baseline-cnn",
        "--output=elsewhere": "give no --output with it",
        f"--config={run}/settings.yaml": "give no --config with it",
    }
    for option, text in refused.items():
        assert cli.main(["train", "--resume", str(run), option]) == 1
        complaint = capsys.readouterr().err
        assert text in complaint
        assert len(complaint.splitlines()) == 1
    assert cli.main(["train", "--resume", str(run), "--epochs=1"]) == 1
    assert "epochs must be at least the 2" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(run), "--epochs=3", "--checkpoint_minutes=1", "--report=false"]) == 0
    printed = capsys.readouterr()
    assert "epoch 3/3" in printed.out
    assert printed.err.count("warning: the run continues to 3 epochs instead of 2") == 1


HARMS = {
    "no part of ours": (lambda c: c.pop("matcaps"), "lacks matcaps"),
    "no random state": (lambda c: c["matcaps"].pop("random_state"), "lacks matcaps.random_state"),
    "no callbacks": (lambda c: c.pop("callbacks"), "lacks callbacks"),
    "other callbacks": (lambda c: c["callbacks"]["StuckWatch"].clear(), "cannot be resumed from"),
    "no optimiser": (lambda c: c["optimizer_states"].clear(), "optimiser's state that does not fit"),
    "no averaged weights": (lambda c: c.pop("averaging_state"), "lacks current_model_state or averaging_state"),
    "a buffer less": (
        lambda c: c["state_dict"].pop("network.conv_capsules1.routing.data_scale"),
        "network.conv_capsules1.routing.data_scale is missing",
    ),
    "a tensor more": (
        lambda c: c["state_dict"].update(other=torch.zeros(1)),
        "it has other, which the network does not have",
    ),
    "another shape": (
        lambda c: c["current_model_state"].update({"network.stem.bias": torch.zeros(9)}),
        "network.stem.bias has the shape [9], but the network has [4]",
    ),
    "not finite": (
        lambda c: c["state_dict"]["network.stem.bias"].fill_(float("nan")),
        "numbers that are not finite, first in network.stem.bias",
    ),
    "no steps": (lambda c: c.pop("global_step"), "it has no number of steps"),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_checkpoint_that_does_not_fit_is_one_line_with_the_way_out(name, finished, tmp_path, capsys):
    run = finished(CONSTANT, tmp_path)
    (run / "model.safetensors").unlink()
    path = run / "checkpoints" / "after-epoch.ckpt"
    checkpoint = read_checkpoint(path)
    harm, text = HARMS[name]
    harm(checkpoint)
    torch.save(checkpoint, path)
    assert cli.main(["train", "--resume", str(run)]) == 1
    complaint = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("matcaps 0.")]
    assert len(complaint) == 1
    assert text in complaint[0]
    assert "remove it to continue" in complaint[0]
    assert not (run / "model.safetensors").exists()
    path.unlink()
    assert train(CONSTANT, run, resume=True).test is not None


def test_what_is_no_checkpoint_is_refused(finished, tmp_path):
    run = finished(CONSTANT, tmp_path)
    path = run / "checkpoints" / "after-epoch.ckpt"
    for content in (b"", b"text", json.dumps({"global_step": 1}).encode()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a complete checkpoint"):
            train(CONSTANT, run, resume=True)
    torch.save([1], path)
    with pytest.raises(ValueError, match="it has no number of steps"):
        train(CONSTANT, run, resume=True)
