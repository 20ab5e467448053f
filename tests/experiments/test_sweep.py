"""Settings searched with objects left out: one process, two, one that was killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from matcaps.cli.sweep import work_alone
from tests.support.folders import make_folder, write_table

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("elsewhere")

SPACE = "optimizer.learning_rate: {low: 0.001, high: 0.1, log: true}\nloss.name: [spread, cross-entropy]\n"
TINY = [
    "--set=model.stem_channels=2",
    "--set=model.stem_stride=4",
    "--set=model.primary_capsules=1",
    "--set=model.conv_capsules1=1",
    "--set=model.conv_capsules2=1",
    "--set=data.image_size=28",
    "--set=data.batch_size=8",
    "--set=calibration_images=4",
    "--set=accelerator=cpu",
    "--epochs=1",
]


@pytest.fixture
def command(elsewhere, tmp_path) -> list[str]:
    """A sweep of a tiny network over a folder of images in three groups."""
    names = make_folder(tmp_path / "images", {"bee": 9, "cow": 9})
    write_table(tmp_path / "groups.csv", [(name, f"g{number % 3}") for number, name in enumerate(names)])
    Path("space.yaml").write_text(SPACE, encoding="utf-8")
    images = ["--set=data.name=folder", f"--set=data.folder={tmp_path / 'images'}"]
    groups = [f"--groups={tmp_path / 'groups.csv'}", "--folds=2"]
    return ["experiment", "sweep", "--recipe=quickstart", "--space=space.yaml", "--name=small", *images, *groups, *TINY]


def study():
    backend = optuna.storages.journal.JournalFileBackend("runs/sweeps/small/journal.log")
    return optuna.load_study(study_name="small", storage=optuna.storages.JournalStorage(backend))


def in_a_process(command: list[str], **changes: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **changes}
    line = [sys.executable, "-m", "matcaps.cli", *command]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_a_sweep_finds_the_least_log_loss_of_what_was_left_out(call, command):
    status, printed, complaint = call(*command, "--trials=3")
    assert status == 0, complaint
    trials = study().trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    for trial in trials:
        losses = []
        for results in Path("runs/sweeps/small", trial.user_attrs["folder"]).glob("*/results.json"):
            values = json.loads(results.read_text())
            assert values["looked_at_test_part"] is False
            losses.append(values["test"]["log_loss"])
        assert len(losses) == 2
        assert trial.value == pytest.approx(sum(losses) / 2)
    best = min(trials, key=lambda trial: trial.value)
    record = json.loads(Path("runs/sweeps/small/sweep.json").read_text())
    assert record["log_loss"] == best.value
    assert record["best"] == best.user_attrs["values"]
    assert f"the best of 3 trials that ended: {best.number + 1}, log-loss {best.value:.4f}" in printed
    line = re.search(r"to train it: (.*)", printed)
    assert line is not None
    assert f"--optimizer.learning_rate={best.user_attrs['values']['optimizer.learning_rate']}" in line[1]

    # the same command again has nothing to do, one more trial is one more, another space is refused
    assert call(*command, "--trials=3")[0] == 0
    assert len(study().trials) == 3
    assert call("table", "folds", "runs/sweeps/small")[0] == 0
    Path("space.yaml").write_text(SPACE.replace("0.1", "0.2"), encoding="utf-8")
    status, _, complaint = call(*command, "--trials=4")
    assert status == 1
    assert "begun with other space: give another --name" in complaint


def test_a_trial_that_falls_behind_is_given_up(call, command, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    status, printed, _ = call(*command, "--trials=2")
    assert status == 0
    assert [trial.state.name for trial in study().trials] == ["COMPLETE", "PRUNED"]
    assert "trial 2: given up after 1 of 2 trainings" in printed


def test_two_processes_share_a_journal(command):
    """As a launcher starts them: each is a worker of its own, and together they do as many trials as were asked for."""
    both = [
        in_a_process([*command, "--trials=3"], RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)
    ]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    trials = study().trials
    assert len(trials) == 3
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert len({tuple(trial.params.values()) for trial in trials}) == 3
    began = [set(re.findall(r"^trial (\d) of 3", text, re.M)) for text in printed]
    assert began[0] | began[1] == set("123")
    assert not began[0] & began[1]


def test_what_a_killed_process_left_is_gone_on_with(call, command):
    process = in_a_process([*command, "--trials=1"])
    deadline = time.monotonic() + 240
    while not list(Path("runs").glob("sweeps/small/*/*/settings.yaml")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (left,) = study().trials
    if left.state.name == "COMPLETE":
        pytest.skip("it was quicker than the signal")
    assert left.state.name == "RUNNING"
    assert call(*command, "--trials=1")[0] == 0
    (trial,) = study().trials
    assert trial.state.name == "COMPLETE"
    assert trial.params == left.params


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ("loss.name: [spread]", "loss.name must have two values or more"),
        ("loss.nam: [a, b]", "space must name a setting of matcaps train; got 'loss.nam': did you mean loss.name"),
        ("epochs: [1, 2]", "space must not change epochs, which the folds set"),
        ("optimizer.learning_rate: 3", "must be a list of values, or low and high"),
        ("optimizer.learning_rate: {low: 1e-3, high: 0.1}", "got '1e-3': YAML wants a dot in it"),
        ("optimizer.learning_rate: {low: 0.1, high: 0.01}", "must have low below high; got 0.1 and 0.01"),
        ("optimizer.learning_rate: {low: 0, high: 1, log: true}", "low below high and above 0"),
        ("optimizer.ema_decay: {low: 0.5, high: 3.0}", "ema_decay must lie between 0 and 1"),
        ("loss.name: [spread, x]", "loss.name must be one of 'spread', 'margin', 'cross-entropy'; got 'x'"),
        ("[1, 2]", "must have a line for each setting"),
        ("a: [", "is not YAML"),
        ("data.batch_size: [4, 8]", "space and set must name different settings"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_anything_is_trained(space, text, refuse, command):
    Path("space.yaml").write_text(space, encoding="utf-8")
    refuse(text, *command)


def test_other_mistakes(refuse, command):
    refuse("no file none.yaml", *command, "--space=none.yaml")
    refuse("trials must be at least 1; got 0", *command, "--trials=0")
    refuse("name must be a folder's name", *command, "--name=../x")
    refuse("one device each", *command, "--set=devices=2")


def test_without_optuna_one_line_says_what_to_install(refuse, command, monkeypatch):
    monkeypatch.delitem(sys.modules, "matcaps.experiments.sweep", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    refuse('a sweep needs Optuna: pip install "matcaps[sweep]"', *command)
    monkeypatch.delitem(sys.modules, "matcaps.experiments.sweep", raising=False)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"LOCAL_RANK": "1", "RANK": "5", "WORLD_SIZE": "8"}, {"CUDA_VISIBLE_DEVICES": "1"}),
        ({"SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "4,6"}, {"CUDA_VISIBLE_DEVICES": "6"}),
        ({"SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "4"}),
        ({"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": ""}),
        ({"HOME": "x"}, {"HOME": "x"}),
    ],
)
def test_a_process_of_a_launcher_is_a_worker_of_its_own(given, left):
    work_alone(given)
    assert given == left
