"""A run that has not ended can be looked at by its last checkpoint, with the weights that its end would test."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matcaps import cli
from matcaps.inference.saved import evaluate_saved, open_saved
from matcaps.inspect import InspectSettings, inspect_saved
from matcaps.training import OptimizerSettings, train
from matcaps.training.checkpoint_files import read_checkpoint
from tests.support.runs import STEPS, TINY_CNN, Stop, StoppedError, tiny_settings

AVERAGED = tiny_settings(epochs=2, optimizer=OptimizerSettings(ema_decay=0.9), views_every=0)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(StoppedError):
        train(AVERAGED, folder, callbacks=[Stop("on_train_epoch_start", STEPS)])
    return folder


def test_every_command_says_how_to_look_at_a_run_that_has_not_ended(stopped, capsys):
    for command in ("eval", "inspect", "report", "predict"):
        assert cli.main([command, str(stopped), *(["image.png"] if command == "predict" else [])]) == 1
        complaint = capsys.readouterr().err
        assert "has no final weights yet: finish it with matcaps train --resume" in complaint
        assert len(complaint.splitlines()) == 1


@pytest.mark.filterwarnings("default")
def test_the_last_checkpoint_is_tested_as_the_runs_end_would_be(stopped, tmp_path, capsys):
    with pytest.warns(UserWarning, match=r"not the end of the run .* after-epoch\.ckpt: 5 steps, in epoch 1 of 2"):
        saved = open_saved(str(stopped), "last")
    averaged = read_checkpoint(stopped / "checkpoints" / "after-epoch.ckpt")["state_dict"]
    for name, value in saved.network.state_dict().items():
        assert torch.equal(value, averaged[f"network.{name}"])
    whole = train(replace(AVERAGED, epochs=1), tmp_path / "whole").folder  # no schedule: the same first epoch
    expected = evaluate_saved(str(whole))
    with pytest.warns(UserWarning, match="not the end of the run"):
        found = evaluate_saved(str(stopped), checkpoint=str(stopped / "checkpoints" / "after-epoch.ckpt"))
    assert found.confusion == expected.confusion
    assert cli.main(["eval", str(stopped), "--checkpoint", "last"]) == 0
    assert "warning: not the end of the run" in capsys.readouterr().err


def test_a_checkpoint_can_be_inspected(stopped, tmp_path):
    settings = InspectSettings(str(stopped), num_images=0, output=str(tmp_path / "found"), checkpoint="last")
    with pytest.warns(UserWarning, match="not the end of the run"):
        assert inspect_saved(settings).record["network"] == str(stopped)


def test_a_cnns_checkpoint_too(tmp_path):
    settings = tiny_settings(epochs=2, model=TINY_CNN, views_every=0)
    with pytest.raises(StoppedError):
        train(settings, tmp_path, callbacks=[Stop("on_train_epoch_start", STEPS)])
    with pytest.warns(UserWarning, match="not the end of the run"):
        assert evaluate_saved(str(tmp_path), checkpoint="last").num_images == 1000


def test_what_is_no_checkpoint_of_this_version_is_refused(stopped, tmp_path):
    with pytest.raises(FileNotFoundError, match="no settings"):
        open_saved("nowhere", "last")
    with pytest.raises(FileNotFoundError, match="no checkpoint nothing: let it train on"):
        open_saved(str(stopped), "nothing")
    checkpoint = read_checkpoint(stopped / "checkpoints" / "after-epoch.ckpt")
    for harm, text in (
        (lambda c: c["state_dict"].pop("network.stem.bias"), "do not fit the model"),
        (lambda c: c["state_dict"]["network.stem.weight"].fill_(float("inf")), "must be finite"),
        (lambda c: c["matcaps"].pop("config"), "does not say which network it is of"),
    ):
        harm(checkpoint)
        torch.save(checkpoint, tmp_path / "bad.ckpt")
        with pytest.raises(ValueError, match=rf"bad\.ckpt.* {text}"):
            open_saved(str(stopped), str(tmp_path / "bad.ckpt"))
        checkpoint = read_checkpoint(stopped / "checkpoints" / "after-epoch.ckpt")
