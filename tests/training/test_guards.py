"""What a run refuses, or keeps, when something has gone wrong around it."""

import json
from dataclasses import replace

import pytest

from matcaps.training import OptimizerSettings, TrainingDivergedError, train
from matcaps.training.record import RESULTS_NAME
from matcaps.training.run import CHECKPOINTS_NAME
from tests.support.runs import Stop, StoppedError, tiny_settings, weights


def test_divergence_in_an_epochs_last_step_is_seen_before_its_checkpoint(tmp_path):
    settings = tiny_settings(epochs=1, optimizer=OptimizerSettings(learning_rate=1e30))
    one_step = replace(settings, data=replace(settings.data, max_train_images=8, batch_size=8))
    with pytest.raises(TrainingDivergedError, match=r"at step 1, first in (parameter|the output of layer) "):
        train(one_step, tmp_path / "run")
    assert not (tmp_path / "run" / CHECKPOINTS_NAME / "after-epoch.ckpt").exists()
    assert not (tmp_path / "run" / RESULTS_NAME).exists()


def test_resume_wants_the_runs_own_settings(tmp_path):
    settings = tiny_settings(epochs=1)
    train(settings, tmp_path / "run")
    with pytest.raises(ValueError, match=r"settings must be those of the resumed run, in .*settings\.yaml"):
        train(replace(settings, seed=settings.seed + 1), tmp_path / "run", resume=True)


def test_a_run_goes_on_where_its_data_have_moved(tmp_path):
    settings = tiny_settings(epochs=1)
    moved = replace(settings, data=replace(settings.data, root=str(tmp_path), num_workers=1), views_every=0)
    with pytest.raises(StoppedError):
        train(settings, tmp_path / "run", callbacks=[Stop("on_train_batch_start", 3)])
    train(moved, tmp_path / "run", resume=True)
    train(settings, tmp_path / "whole")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_the_record_of_a_finished_run_stays(tmp_path):
    settings = tiny_settings(epochs=1)
    train(settings, tmp_path / "run")
    record = tmp_path / "run" / RESULTS_NAME
    record.write_text(json.dumps({"kept": True}))
    result = train(settings, tmp_path / "run", resume=True)
    assert result.test is not None
    assert json.loads(record.read_text()) == {"kept": True}
