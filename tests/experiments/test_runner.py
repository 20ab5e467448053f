"""Trials that run, stop, go on and are not run twice; and the tables and figures that come of them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from matcaps.experiments import Experiment, Row, gather, make_table, make_trials, run_trials
from matcaps.experiments import runner as runner_module
from matcaps.experiments.figures import draw_experiment
from matcaps.experiments.measures import Measure
from matcaps.inspect.style import save_figure
from matcaps.training import TrainingDivergedError
from matcaps.training.record import read_settings
from tests.support.runs import TINY_CNN, Stop, StoppedError, repeatable_metrics, tiny_settings, weights


def capsules_and_cnn(**changes) -> tuple[Row, Row]:
    settings = tiny_settings(epochs=2, **changes)
    cnn = replace(settings, model=TINY_CNN, loss=replace(settings.loss, name="cross-entropy"))
    return Row("capsules", "tiny capsules", settings, (("test", 1.8),)), Row("cnn", "a tiny CNN", cnn)


PLAIN = Experiment("mnist", "A tiny table", capsules_and_cnn(), caveat="Of no importance.", measure="distortions")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("experiments")
    outcomes = run_trials(PLAIN, make_trials(PLAIN), base)
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    return base


def test_a_trial_leaves_a_run_and_a_record_with_what_makes_it_repeatable(done):
    folder = done / "mnist" / "capsules-2epochs-seed0"
    assert (folder / "model.safetensors").is_file()
    record = json.loads((folder / "distortions.json").read_text())
    assert {"command", "commit", "machine", "seed", "data_origin", "seconds", "finished"} <= record.keys()
    assert record["distortions"]["rotation"][0]["num_images"] == 20
    results = json.loads((folder / "results.json").read_text())
    assert results["num_parameters"] > 1000


def test_what_is_done_is_not_run_again(done, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("trained twice")

    monkeypatch.setattr(runner_module, "train", refuse)
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file() and path.suffix != ".lock"}
    lines: list[str] = []
    outcomes = run_trials(PLAIN, make_trials(PLAIN), done, report=lines.append)
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert lines[0] == "trial 1 of 2: mnist/capsules-2epochs-seed0: tiny capsules"
    after = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert before == after


def test_an_interrupted_trial_goes_on_and_ends_as_if_it_had_not_been(done, tmp_path):
    trials = make_trials(PLAIN, rows=["capsules"])
    with pytest.raises(StoppedError):
        run_trials(PLAIN, trials, tmp_path, callbacks=[Stop("on_train_epoch_start", 5)])
    unfinished = gather(PLAIN, tmp_path)
    assert [record.state for record in unfinished] == ["unfinished"]
    assert "seed 0 after 1 epochs" in make_table(PLAIN, unfinished)
    run_trials(PLAIN, trials, tmp_path)
    name = "mnist/capsules-2epochs-seed0"
    assert weights(tmp_path / name) == weights(done / name)
    assert repeatable_metrics(tmp_path / name) == repeatable_metrics(done / name)


def test_another_run_in_the_folder_is_not_touched(done):
    other = replace(PLAIN, rows=capsules_and_cnn(seed=0, calibration_images=4))
    with pytest.raises(ValueError, match="holds a run with other settings \\(calibration_images: 8, 4\\)"):
        run_trials(other, make_trials(other), done)


def test_a_trial_goes_on_where_its_data_have_moved(tmp_path, monkeypatch):
    trials = make_trials(PLAIN, rows=["cnn"])
    with pytest.raises(StoppedError):
        run_trials(PLAIN, trials, tmp_path, callbacks=[Stop("on_train_epoch_start", 5)])
    trained = []
    monkeypatch.setattr(runner_module, "train", lambda settings, *rest, **more: trained.append(settings))
    monkeypatch.setattr(runner_module, "MEASURES", {"distortions": Measure(lambda *of: {"none": True})})
    monkeypatch.setattr(runner_module, "weights_digests", lambda *of: {})
    run_trials(PLAIN, make_trials(PLAIN, rows=["cnn"], root="elsewhere"), tmp_path)
    assert [settings.data.root for settings in trained] == ["elsewhere"]


def test_what_was_measured_on_other_weights_is_measured_again(done, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(done, base)
    trials = make_trials(PLAIN, rows=["capsules"])
    folder = trials[0].folder(base)
    shutil.copy(done / "mnist" / "cnn-2epochs-seed0" / "model.safetensors", folder)  # trained anew, so to speak
    assert [bool(record.measured) for record in gather(PLAIN, base)] == [False, True]
    shutil.copy(done / "mnist" / "capsules-2epochs-seed0" / "model.safetensors", folder)
    assert [bool(record.measured) for record in gather(PLAIN, base)] == [True, True]
    record = json.loads((folder / "distortions.json").read_text())
    record["weights"]["mnist/capsules-2epochs-seed0"] = "0" * 64
    (folder / "distortions.json").write_text(json.dumps(record))
    assert [bool(record.measured) for record in gather(PLAIN, base)] == [False, True]
    run_trials(PLAIN, trials, base)
    again = json.loads((folder / "distortions.json").read_text())
    assert again["distortions"] == record["distortions"]
    assert [bool(record.measured) for record in gather(PLAIN, base)] == [True, True]
    # of a training that is begun again the measurement does not count
    (folder / "results.json").unlink()
    assert [record.state for record in gather(PLAIN, base) if record.measured] == ["done"]
    make_table(PLAIN, gather(PLAIN, base))
    shutil.rmtree(base / "mnist" / "cnn-2epochs-seed0" / "checkpoints")
    (base / "mnist" / "cnn-2epochs-seed0" / "model.safetensors").unlink()  # a record that is kept without weights
    assert [record.state for record in gather(PLAIN, base) if record.measured] == ["done"]


@pytest.mark.parametrize("lock", [".cnn-2epochs-seed0.lock", "cnn-2epochs-seed0/.run.lock"])
def test_a_folder_that_another_process_is_at_is_left_to_it(lock, tmp_path):
    """Whether that is at the experiment or trains the run alone."""
    trials = make_trials(PLAIN, rows=["cnn"])
    folder = trials[0].training_folder(tmp_path)
    held = folder.parent / lock
    held.parent.mkdir(parents=True)
    with FileLock(held):
        outcomes = run_trials(PLAIN, trials, tmp_path)
    assert [outcome.state for outcome in outcomes] == ["busy"]
    assert not (folder / "settings.yaml").exists()


def test_a_training_that_diverges_is_said_to_and_the_next_one_runs(tmp_path, monkeypatch):
    train = runner_module.train
    calls = []

    def diverge(settings, folder, **options):
        calls.append(folder)
        if settings.model == TINY_CNN:
            return train(settings, folder, **options)
        folder.mkdir(parents=True)
        raise TrainingDivergedError("the loss is nan at step 3")

    monkeypatch.setattr(runner_module, "train", diverge)
    for _ in range(2):  # and is not tried again by itself
        outcomes = run_trials(PLAIN, make_trials(PLAIN), tmp_path)
        assert [outcome.state for outcome in outcomes] == ["diverged", "done"]
    assert len(calls) == 2
    assert "remove" in outcomes[0].detail
    table = make_table(PLAIN, gather(PLAIN, tmp_path))
    assert "| tiny capsules | 1.80 | diverged |" in table


def test_a_row_may_be_trained_in_another_experiment(done):
    capsules, cnn = PLAIN.rows
    borrowed = Experiment(
        "attacks", "Borrowed", (replace(cnn, trained_in="mnist", trained_as="cnn"),), measure="distortions"
    )
    assert capsules.trained_in is None
    trials = make_trials(borrowed)
    run_trials(borrowed, trials, done)
    folder = done / "attacks" / "cnn-2epochs-seed0"
    assert [path.name for path in folder.iterdir()] == ["distortions.json"]  # the training is where it was
    assert gather(borrowed, done)[0].measured["row"] == "cnn"
    assert read_settings(done / "mnist" / "cnn-2epochs-seed0" / "settings.yaml")["seed"] == 0


def test_tables_hold_the_figures_and_say_what_is_missing(done):
    records = gather(PLAIN, done)
    table = make_table(PLAIN, records)
    error = records[0].error_percent
    parameters = f"{records[0].results['num_parameters']:,}"
    assert f"| tiny capsules | 1.80 | {error:.2f} | 0 | 2 | {parameters} |" in table
    assert "| a tiny CNN | – |" in table
    assert "error, %, by rotation in degrees" in table
    assert table.startswith("## A tiny table\n")
    assert "Of no importance." in table
    nothing = make_table(PLAIN, [])
    assert nothing.count("not run yet") == 2
    assert draw_experiment(PLAIN, []) is None


def test_tables_say_where_a_training_departs_from_the_row_of_today(done):
    assert "Trained with other settings" not in make_table(PLAIN, gather(PLAIN, done))
    faster = capsules_and_cnn(optimizer=replace(PLAIN.rows[0].settings.optimizer, learning_rate=0.01))
    moved = replace(PLAIN, rows=(faster[0], PLAIN.rows[1]))
    table = make_table(moved, gather(moved, done))
    assert "\n- tiny capsules, 2 epochs: optimizer.learning_rate: 0.003, 0.01\n" in table
    assert "- a tiny CNN" not in table


def test_several_seeds_are_a_mean_and_a_deviation(done):
    record = gather(PLAIN, done)[0]
    others = [
        replace(record, seed=seed, results={**record.results, "test": {"error_percent": error}})
        for seed, error in enumerate((1.0, 2.0, 3.0))
    ]
    assert "| 2.00 ± 1.00 | 0, 1, 2 | 2 |" in make_table(PLAIN, others)


def test_figures_are_pictures(done, tmp_path):
    figure = draw_experiment(PLAIN, gather(PLAIN, done))
    assert figure is not None
    png, svg = save_figure(figure, tmp_path / "mnist")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()
    anew = draw_experiment(PLAIN, gather(PLAIN, done))
    assert anew is not None
    again = save_figure(anew, tmp_path / "again")
    assert again[0].read_bytes() == png.read_bytes()


def test_a_record_that_is_no_json_is_named(done, tmp_path):
    folder = tmp_path / "mnist" / "cnn-2epochs-seed0"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json is not JSON"):
        gather(PLAIN, tmp_path)
