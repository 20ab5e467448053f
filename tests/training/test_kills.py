"""A training that is killed at any moment and resumed ends as one that was not, to the bit.

``make test`` tries a few moments, ``make test-kills`` twenty of each kind of signal: a process for each, and another
that resumes it, take minutes. ``MATCAPS_TEST_KILLS_SEED`` chooses others; each test's name says its moment.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from matcaps.training import OptimizerSettings, run, train
from matcaps.training.checkpoint_files import read_checkpoint
from matcaps.training.record import read_json
from tests.support.kills import PLACES, Moment, moments
from tests.support.runs import (
    AT_EVERY_STEP,
    STEPS,
    Stop,
    StoppedError,
    repeatable_metrics,
    tiny_settings,
    write_config,
)
from tests.support.warm import WarmCommand

ALL = bool(os.environ.get("MATCAPS_TEST_KILLS"))
"""Twenty moments, rather than a few: make test-kills."""
SEED = int(os.environ.get("MATCAPS_TEST_KILLS_SEED", "22"))

# networks of two capsules often are stuck, and that is not what these tests are about
pytestmark = pytest.mark.filterwarnings("ignore:the training seems stuck")
SETTINGS = tiny_settings(
    optimizer=OptimizerSettings(ema_decay=0.9, gradient_clip=2.0, schedule="cosine", warmup_steps=3),
    checkpoint_minutes=AT_EVERY_STEP,
    agreement_every=1,
    views_every=0,
)
OF_THE_CLOCK = {"train_seconds", "images_per_second", "finished"}
"""What of a record depends on when and how fast it was made; and the command, which says ``--resume``."""
OF_GIT = {"commit", "commits"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that was not disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    command = WarmCommand("train", write_config(SETTINGS, folder), "--output=run", "--report=false", folder=folder)
    assert command.wait(240) == 0, command.errors
    return folder / "run"


def record(folder: Path) -> dict[str, object]:
    results = read_json(folder / "results.json")
    assert all(results[name] is not None for name in OF_THE_CLOCK)
    assert results["test"].pop("seconds") > 0
    return {name: value for name, value in results.items() if name not in OF_THE_CLOCK | {"command", *OF_GIT}}


def commits(folder: Path) -> set[str]:
    """Those that are known: on a busy machine git may not answer in time, and the record says so."""
    results = read_json(folder / "results.json")
    return {one for one in results.get("commits", [results["commit"]]) if one is not None}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, without what depends on the clock."""
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    names = [name for name in found.Tags()["scalars"] if name != "train/images_per_second"]
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in names}


def assert_same_end(folder: Path, whole: Path, *, in_tensorboard: bool = True) -> None:
    for name in ("model.safetensors", "config.json", "settings.yaml"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert repeatable_metrics(folder) == repeatable_metrics(whole)
    assert record(folder) == record(whole)
    assert len(commits(folder) | commits(whole)) <= 1
    if in_tensorboard:
        assert scalars(folder) == scalars(whole)
    last = [read_checkpoint(one / "checkpoints" / "after-epoch.ckpt") for one in (folder, whole)]
    assert last[0]["global_step"] == last[1]["global_step"] == 3 * STEPS
    assert not list(folder.rglob("*.partial"))


def resume(folder: Path) -> None:
    command = WarmCommand("train", "--resume=run", "--report=false", folder=folder)
    assert command.wait(240) == 0, command.errors


def tried(number: int, few: int) -> list[object]:
    found = moments(SEED + number, 20 if ALL else few, number)
    return [pytest.param(one, id=f"{one.place} {one.occurrence}, call {one.call}") for one in found]


def stop_at(moment: Moment, folder: Path) -> WarmCommand:
    config = write_config(SETTINGS, folder)
    return WarmCommand("train", config, "--output=run", "--report=false", folder=folder, prepare=moment)


@pytest.mark.parametrize("moment", tried(signal.SIGKILL, 4))
def test_a_killed_training_is_resumed_and_ends_as_if_it_had_not_been(moment, whole, tmp_path):
    assert stop_at(moment, tmp_path).wait(240) == -signal.SIGKILL
    resume(tmp_path)
    assert_same_end(tmp_path / "run", whole)


@pytest.mark.parametrize("moment", tried(signal.SIGTERM, 2))
def test_a_training_that_is_asked_to_end_saves_and_says_how_it_goes_on(moment, whole, tmp_path):
    stopped = stop_at(moment, tmp_path)
    assert stopped.wait(240) == 128 + signal.SIGTERM, stopped.errors
    assert stopped.errors.strip().splitlines()[-1].startswith("matcaps train: stopped by SIGTERM"), stopped.errors
    assert "Traceback" not in stopped.errors
    assert list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    resume(tmp_path)
    assert_same_end(tmp_path / "run", whole)


def test_every_place_has_its_turn():
    assert {one.place for one in moments(SEED, 20, signal.SIGKILL)} == set(PLACES)


def test_a_second_training_in_a_folder_is_refused_in_one_line_and_disturbs_nothing(whole, tmp_path):
    """The first stands still within a step until the others have been refused."""
    config = write_config(SETTINGS, tmp_path)
    standing = Moment("a step", 7, 100, signal.SIGSTOP)
    first = WarmCommand("train", config, "--output=run", "--report=false", folder=tmp_path, prepare=standing)
    deadline = time.monotonic() + 120
    while "State:\tT" not in Path(f"/proc/{first.pid}/status").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    for number, arguments in enumerate((["--resume=run"], [config, "--output=run"])):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "run").symlink_to(tmp_path / "run")
        second = WarmCommand("train", *arguments, folder=place)
        assert second.wait(240) == 1
        lines = [line for line in second.errors.splitlines() if not line.startswith("matcaps 0.")]
        assert len(lines) == 1, lines
        assert "another process is using" in lines[0] or "already exists and is not empty" in lines[0]
    first.kill(signal.SIGCONT)
    assert first.wait(240) == 0, first.errors
    assert_same_end(tmp_path / "run", whole)


def test_the_record_names_every_commit_that_the_run_was_at(tmp_path, monkeypatch):
    for commit, step in (("one", 2), ("two", STEPS + 1), ("two", STEPS + 3)):
        monkeypatch.setattr(run, "source_commit", lambda commit=commit: commit)
        with pytest.raises(StoppedError):
            train(SETTINGS, tmp_path, resume=step > 2, callbacks=[Stop("on_train_batch_start", step)])
    monkeypatch.setattr(run, "source_commit", lambda: "three")
    train(SETTINGS, tmp_path, resume=True)
    results = read_json(tmp_path / "results.json")
    assert results["commits"] == ["one", "two", "three"]
    assert results["commit"] == "three"


FAKETIME = os.environ.get("MATCAPS_TEST_FAKETIME") or next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime, a package of Debian's, or MATCAPS_TEST_FAKETIME")
def test_a_clock_that_is_set_back_changes_nothing(whole, tmp_path):
    """By ten days while it trains, and by ten more before it goes on after a kill.

    Not held is what TensorBoard shows, which reads its files in the order of the times in their names.
    """
    offset = tmp_path / "offset"
    offset.write_text("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # what counts the seconds since the start is not set
        "OMP_NUM_THREADS": "1",
    }
    checkpoint = tmp_path / "run" / "checkpoints" / "within-epoch.ckpt"

    def command(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "matcaps.cli", "train", *arguments, "--report=false"]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    first, deadline = command(write_config(SETTINGS, tmp_path), "--output=run"), time.monotonic() + 240
    while first.poll() is None and not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    offset.write_text("-10d")
    time.sleep(0.1)
    first.kill()
    first.communicate()
    assert checkpoint.exists()
    offset.write_text("-20d")
    _, errors = (last := command("--resume=run")).communicate(timeout=240)
    assert last.returncode == 0, errors
    assert_same_end(tmp_path / "run", whole, in_tensorboard=False)
    assert read_json(tmp_path / "run" / "results.json")["finished"] < read_json(whole / "results.json")["finished"]
