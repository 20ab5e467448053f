"""What a training leaves in its folder, and how it stops."""

import errno
import json
import os
import signal
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from safetensors.torch import load_file

import matcaps
from matcaps.data import SplitSettings, TransformSettings, load_data
from matcaps.data.loader import PreparedImages
from matcaps.models import BaselineCNN, EMCapsNet
from matcaps.training import (
    LossSettings,
    OptimizerSettings,
    RunBusyError,
    TrainingDivergedError,
    TrainSettings,
    data_record,
    evaluate,
    load_run,
    train,
)
from matcaps.training import folder as folder_module
from matcaps.training.checkpoint_files import newest_checkpoint, read_checkpoint
from matcaps.training.loop import Callback
from matcaps.training.record import read_metrics, read_settings
from tests.support.runs import AT_EVERY_STEP, STEPS, TINY_CNN, Stop, StoppedError, tiny_settings, weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, its settings, and the indices of all images that were trained and validated on."""
    seen: dict[str, set[tuple[str, int]]] = {"train": set(), "validation": set()}
    parts: dict[int, str] = {}
    settings = tiny_settings(optimizer=OptimizerSettings(ema_decay=0.9))

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
            assert module.training
            seen["train"].update((parts["train"], index) for index in batch.indices.tolist())

        def on_validation_batch_end(self, trainer, module, batch, batch_index):
            assert not module.training
            seen["validation"].update((parts["validation"], index) for index in batch.indices.tolist())

        def on_train_start(self, trainer, module):
            parts["train"] = trainer.loader.dataset.dataset.split
            parts["validation"] = trainer.validation.dataset.dataset.split

    result = train(settings, tmp_path_factory.mktemp("runs") / "one", callbacks=[Watch()])
    return result, settings, seen


def test_files(run):
    folder = run[0].folder
    assert sorted(path.name for path in folder.iterdir()) == [
        ".run.lock",
        "checkpoints",
        "config.json",
        "data.json",
        "metrics.csv",
        "model.safetensors",
        "results.json",
        "settings.yaml",
        "tensorboard",
    ]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["after-epoch.ckpt"]
    assert any(path.name.startswith("events.out.tfevents") for path in (folder / "tensorboard").iterdir())


def test_results_are_broken_down_by_object_where_it_is_known(tmp_path, monkeypatch):
    def with_instances(*arguments):
        bundle = load_data(*arguments)
        return replace(bundle, test=replace(bundle.test, attributes={"instance": torch.arange(20) % 2}))

    monkeypatch.setattr(data_record, "load_data", with_instances)
    train(tiny_settings(epochs=1), tmp_path)
    test = json.loads((tmp_path / "results.json").read_text())["test"]
    assert list(test["class_accuracy_by"]["instance"]) == ["0", "1"]
    rows = zip(test["class_accuracy"], *test["class_accuracy_by"]["instance"].values(), strict=True)
    for whole, first, second in rows:
        parts = [part for part in (first, second) if part is not None]
        assert (whole is None) == (not parts)
        assert whole is None or min(parts) - 1e-9 <= whole <= max(parts) + 1e-9


def test_settings_file_is_the_whole_configuration(run):
    result, settings, _ = run
    assert TrainSettings.from_dict(read_settings(result.folder / "settings.yaml")) == settings


def test_metrics(run):
    rows = read_metrics(run[0].folder / "metrics.csv")
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "5"), ("2", "10"), ("3", "15")]
    for row in rows:
        assert float(row["train/loss"]) > 0
        assert 0 <= float(row["train/accuracy"]) <= 1
        assert 0 <= float(row["validation/accuracy"]) <= 1
        assert float(row["train/images_per_second"]) > 0
        for layer in ("primary_capsules", "conv_capsules1", "conv_capsules2", "class_capsules"):
            assert 0 <= float(row[f"dead/{layer}"]) <= 1
            assert 0 <= float(row[f"activation/{layer}"]) <= 1
    assert [float(row["train/margin"]) for row in rows] == pytest.approx([0.2, 0.3, 0.4])


def test_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run[0].folder / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    assert {"train/loss", "train/accuracy", "train/margin", "train/images_per_second", "dead/conv_capsules1"} <= set(
        events.Tags()["scalars"]
    )
    histograms = {f"activations/{name}" for name in ("primary_capsules", "conv_capsules1", "class_capsules")}
    assert histograms <= set(events.Tags()["histograms"])
    assert len(events.Histograms("activations/class_capsules")) == 3


def test_steps_are_logged_every_some_steps_of_the_whole_run(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny_settings(log_every_steps=4, agreement_every=0, views_every=0), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [one.step for one in events.Scalars("train/step_loss")] == [3, 7, 11]
    assert [one.step for one in events.Scalars("train/loss")] == [4, 9, 14]


def test_a_callback_of_another_library_is_refused_by_name(tmp_path):
    from lightning.pytorch.callbacks import Timer

    with pytest.raises(TypeError, match=r"callbacks must be of matcaps\.training\.Callback; got lightning\..*Timer"):
        train(tiny_settings(), tmp_path / "run", callbacks=[Timer()])  # type: ignore[list-item]
    assert not (tmp_path / "run").exists()


def test_a_callback_may_end_the_training_within_an_epoch(tmp_path):
    class Enough(Callback):
        def on_train_batch_end(self, loop, training, outputs, batch, batch_idx):
            loop.should_stop = loop.global_step == 7

    assert train(tiny_settings(), tmp_path, callbacks=[Enough()]).test is not None
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == ["5", "7"]


def test_results(run):
    result, settings, _ = run
    results = json.loads((result.folder / "results.json").read_text())
    assert results["test"]["accuracy"] == result.test.accuracy
    assert results["test"]["num_images"] == 20
    assert sum(map(sum, results["test"]["confusion"])) == 20
    assert results["seed"] == settings.seed
    assert results["command"]
    assert "commit" in results
    assert {"platform", "processor", "cpu_count", "torch", "python", "torch_threads"} <= set(results["machine"])
    assert results["train_seconds"] >= 0
    assert results["num_train_images"] == STEPS * 8
    assert str(Path.home()) not in results["command"]


def test_weights_are_what_was_tested(run):
    result, settings, _ = run
    network, loaded_settings = load_run(result.folder)
    assert loaded_settings == settings
    assert isinstance(network, EMCapsNet)
    bundle = load_data(settings.data, settings.seed)
    again = evaluate(network, bundle.loader("test"), bundle.classes)
    assert (again.accuracy, again.confusion) == (result.test.accuracy, result.test.confusion)
    assert torch.equal(matcaps.from_pretrained(result.folder).stem.weight, network.stem.weight)


def test_averaged_weights_are_saved(run):
    """Not the last ones, and those that the checkpoint holds as the average."""
    folder = run[0].folder
    checkpoint = read_checkpoint(folder / "checkpoints" / "after-epoch.ckpt")
    for name, value in load_file(folder / "model.safetensors").items():
        assert torch.equal(checkpoint["state_dict"][f"network.{name}"], value), name
    last = checkpoint["current_model_state"]["network.stem.weight"]
    assert not torch.equal(last, checkpoint["state_dict"]["network.stem.weight"])


def test_checkpoint_tells_nothing_of_this_machine(run):
    assert str(run[0].folder).encode() not in (run[0].folder / "checkpoints" / "after-epoch.ckpt").read_bytes()


def test_no_test_image_is_trained_or_validated_on(run):
    _, settings, seen = run
    bundle = load_data(settings.data, settings.seed)
    tested = {(bundle.test.split, index) for index in bundle.test.indices.tolist()}
    assert len(tested) == 20
    assert len(seen["train"]) == STEPS * 8
    assert len(seen["validation"]) == 20
    assert not seen["train"] & tested
    assert not seen["validation"] & tested
    assert not seen["train"] & seen["validation"]


def test_test_images_are_not_touched_before_training_is_over(tmp_path, monkeypatch):
    """Not for calibration, not for validation, not for watching the capsules."""
    over, touched = [], []

    class Over(Callback):
        def on_train_end(self, trainer, module):
            over.append(True)

    original = PreparedImages.__getitems__

    def get(self, key):
        if self.dataset.split == "test":
            touched.append(bool(over))
        return original(self, key)

    monkeypatch.setattr(PreparedImages, "__getitems__", get)
    train(tiny_settings(epochs=1), tmp_path, callbacks=[Over()])
    assert touched
    assert all(touched)


def test_same_seed_same_weights_another_seed_others(tmp_path):
    runs = [
        train(tiny_settings(epochs=1, seed=seed), tmp_path / name).folder
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    ]
    assert weights(runs[0]) == weights(runs[1]) != weights(runs[2])


def test_never_overwritten(run):
    result, settings, _ = run
    before = {path: path.stat().st_mtime_ns for path in result.folder.rglob("*")}
    with pytest.raises(FileExistsError, match="is there already and not empty: choose another folder, or go on with"):
        train(settings, result.folder)
    assert {path: path.stat().st_mtime_ns for path in result.folder.rglob("*")} == before


def test_default_folders_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = train(tiny_settings(epochs=1), tmp_path / "given").folder
    second = train(tiny_settings(epochs=1)).folder
    assert first != second
    assert second.parent == Path("runs")
    assert second.name.startswith("quickstart-")
    assert "MATCAPS_RUN_FOLDER" not in os.environ


def test_two_runs_of_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    class Now(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 1, 12, 0, 0, tzinfo=tz)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder_module, "datetime", Now)
    names = [train(tiny_settings(epochs=1)).folder.name for _ in range(2)]
    assert names == ["quickstart-20260101-120000", "quickstart-20260101-120000-2"]


def test_a_folder_with_nothing_but_a_file_that_was_cut_off_is_used(tmp_path):
    (tmp_path / "settings.yaml.partial").write_text("recipe: qui")
    assert train(tiny_settings(epochs=1), tmp_path).folder == tmp_path


def test_one_of_several_processes_does_not_train_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with pytest.raises(ValueError, match=r"this is process 1 of several.*give --devices and --num_nodes"):
        train(tiny_settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_images_of_several_crops(tmp_path):
    """Their centre is looked at; the test averages them all."""
    data = replace(tiny_settings().data, transform=TransformSettings(crop=26, num_test_crops=5))
    result = train(tiny_settings(epochs=1, data=data), tmp_path)
    assert result.test is not None
    assert 0 <= float(read_metrics(tmp_path / "metrics.csv")[0]["validation/accuracy"]) <= 1


def test_a_second_training_keeps_out_of_a_run_that_is_at_work(tmp_path):
    settings, refused = tiny_settings(epochs=1), []

    class Second(Callback):
        def on_train_epoch_end(self, trainer, module):
            before = (tmp_path / "settings.yaml").read_bytes()
            with pytest.raises(
                RunBusyError, match=f"another process is at {tmp_path}: let it end, or stop it"
            ) as error:
                train(settings, tmp_path, resume=True)
            refused.append(error.value)
            assert (tmp_path / "settings.yaml").read_bytes() == before

    train(settings, tmp_path, callbacks=[Second()])
    assert refused
    train(settings, tmp_path, resume=True)  # it is free again


def test_a_file_system_without_locks_is_trained_on(tmp_path, monkeypatch):
    def refuse(lock, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_module.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match="has no locks .*No locks available.*: nothing keeps a second process out"):
        assert train(tiny_settings(epochs=1), tmp_path).test is not None


def test_an_empty_folder_is_used(tmp_path):
    assert train(tiny_settings(epochs=1), tmp_path).folder == tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": replace(TINY_CNN, annealing=0.5)}, "has no setting 'annealing'"),
        ({"model": TINY_CNN, "loss": LossSettings(reconstruction_weight=1.0)}, "reconstruction_weight must be 0"),
        ({"model": replace(tiny_settings().model, stem_stride=8)}, "images must have at least"),
        ({"devices": 64, "data": replace(tiny_settings().data, max_train_images=20)}, "images are needed"),
        ({"accelerator": "gpu", "devices": 1000}, "1000 GPU must be there"),
        ({"watched_parts": ("familiar_test",)}, "familiar_test"),
    ],
)
def test_what_cannot_work_leaves_nothing(changes, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        train(tiny_settings(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        train(tiny_settings(), tmp_path / "file" / "run")


def test_bf16_mixed(tmp_path):
    result = train(tiny_settings(precision="bf16-mixed", epochs=1), tmp_path)
    loaded = load_file(tmp_path / "model.safetensors")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in loaded.values())
    assert result.test.num_images == 20


def test_reconstruction(tmp_path):
    train(tiny_settings(loss=LossSettings(reconstruction_weight=5e-4), epochs=2), tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    errors = [float(row["train/reconstruction_loss"]) for row in rows]
    assert errors[1] < errors[0]
    load_run(tmp_path)


@pytest.mark.parametrize("loss", ["cross-entropy", "spread"])
def test_cnn(loss, tmp_path):
    result = train(tiny_settings(model=TINY_CNN, loss=LossSettings(loss), epochs=1), tmp_path)
    network, _ = load_run(result.folder)
    assert isinstance(network, BaselineCNN)
    assert network.config.image_size == (28, 28)
    assert network.config.in_channels == 1
    assert not any(name.startswith("dead/") for name in read_metrics(tmp_path / "metrics.csv")[0])


@pytest.mark.parametrize("loss", ["margin", "cross-entropy"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_other_losses_and_optimisers(loss, optimizer, tmp_path):
    settings = tiny_settings(
        loss=LossSettings(loss, reduction="sum"), optimizer=OptimizerSettings(optimizer, weight_decay=0.1), epochs=1
    )
    assert train(settings, tmp_path).test is not None


def test_without_validation(tmp_path):
    settings = tiny_settings(epochs=1)
    train(replace(settings, data=replace(settings.data, split=SplitSettings())), tmp_path)
    row = read_metrics(tmp_path / "metrics.csv")[0]
    assert not any(name.startswith("validation/") for name in row)
    assert "dead/conv_capsules1" in row


class Poison(Callback):
    """Spoil something after a number of steps."""

    def __init__(self, step: int, what: str):
        self.step, self.what = step, what

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.global_step == self.step:
            if self.what == "images":
                batch.images[0, 0, 3, 3] = float("nan")
            else:
                with torch.no_grad():
                    module.get_parameter(self.what).view(-1)[0] = float("nan")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("network.stem.weight", "at step 7, first in parameter network.stem.weight: lower the learning rate"),
        ("network.conv_capsules2.weight", "at step 7, first in parameter network.conv_capsules2.weight"),
        ("network.class_capsules.routing.beta_use", "parameter network.class_capsules.routing.beta_use"),
        ("images", "at step 7, first in the input images"),
    ],
)
def test_nan_stops_and_names_its_place(what, message, tmp_path):
    settings = tiny_settings(checkpoint_minutes=AT_EVERY_STEP)
    with pytest.raises(TrainingDivergedError, match=message):
        train(settings, tmp_path, callbacks=[Poison(7, what)])
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    checkpoint = read_checkpoint(newest)
    assert checkpoint["global_step"] == 7
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "results.json").exists()
    train(settings, tmp_path, resume=True)  # from the good one; nothing poisons it now
    assert (tmp_path / "results.json").exists()


def test_infinite_gradient_stops_before_it_reaches_the_weights(tmp_path):
    name = "network.conv_capsules1.weight"

    class Spoil(Callback):
        def on_after_backward(self, trainer, module):
            if trainer.global_step == 7:
                module.get_parameter(name).grad.view(-1)[0] = float("inf")

    with pytest.raises(TrainingDivergedError, match=f"the gradient of {name} is not finite at step 7"):
        train(tiny_settings(), tmp_path, callbacks=[Spoil()])
    assert newest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "after-epoch.ckpt"


def test_interruption_by_the_keyboard(tmp_path):
    """It stays what it is, and the process still hears the next one."""

    class Interrupt(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            if trainer.global_step == 2:
                raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_settings(), tmp_path, callbacks=[Interrupt()])
    assert signal.getsignal(signal.SIGINT) is before


def test_unfinished_run(tmp_path):
    with pytest.raises(StoppedError):
        train(tiny_settings(), tmp_path, callbacks=[Stop("on_train_batch_start", 1)])
    with pytest.raises(FileNotFoundError, match="has no final weights yet: finish it with matcaps train --resume"):
        load_run(tmp_path)


def test_network_is_left_ready(tmp_path):
    """A run leaves torch's default dtype, gradients and determinism as they were."""
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())
    train(tiny_settings(epochs=1), tmp_path)
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()) == before


def test_watched_parts_are_looked_at_when_asked_and_with_the_averaged_weights(tmp_path):
    settings = tiny_settings(optimizer=OptimizerSettings(ema_decay=0.9), watched_parts=("test",), watch_every=2)
    result = train(settings, tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [bool(row["test/accuracy"]) for row in rows] == [False, True, True]  # every second epoch, and the last
    assert float(rows[-1]["test/accuracy"]) == pytest.approx(result.test.accuracy)


def test_watching_changes_no_weight(tmp_path, run):
    settings = replace(run[1], watched_parts=("test",))
    train(settings, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(run[0].folder)
