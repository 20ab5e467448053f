"""An interrupted run ends exactly as an uninterrupted one."""

import random
import shutil
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matcaps.training import LossSettings, OptimizerSettings, TrainSettings, train
from matcaps.training.checkpoint_files import newest_checkpoint, read_checkpoint
from tests.support.runs import (
    AT_EVERY_STEP,
    STEPS,
    TINY,
    TINY_CNN,
    Stop,
    StoppedError,
    repeatable_metrics,
    tiny_settings,
    weights,
    write_config,
)
from tests.support.warm import WarmCommand

KINDS = {
    "plain": {"optimizer": OptimizerSettings(ema_decay=None, schedule="exponential", decay_steps=3)},
    "averaged": {"optimizer": OptimizerSettings(ema_decay=0.9, gradient_clip=2.0, schedule="cosine", warmup_steps=3)},
    "matrices": {"optimizer": OptimizerSettings(matrix_learning_rate=0.01, schedule="linear")},
    "dropout": {"model": TINY_CNN, "loss": LossSettings("cross-entropy")},
    "normalised": {
        "model": replace(TINY, normalisation="batch", activation_rule="relative"),
        "optimizer": OptimizerSettings(ema_decay=0.9, gradient_clip=2.0),
    },
    "decoder": {"loss": LossSettings("margin", reconstruction_weight=5e-4), "epochs": 2},
}

# networks of two capsules often are stuck, and that is not what these tests are about
pytestmark = pytest.mark.filterwarnings("ignore:the training seems stuck")


def settings_of(kind: str, minutes: float = AT_EVERY_STEP) -> TrainSettings:
    return tiny_settings(**KINDS[kind], checkpoint_minutes=minutes)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """A function that gives the uninterrupted run of a kind."""
    done: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in done:
            done[kind] = train(settings_of(kind), tmp_path_factory.mktemp(kind)).folder
        return done[kind]

    return run


def assert_same_end(folder: Path, whole: Path) -> None:
    assert weights(folder) == weights(whole)
    assert (folder / "config.json").read_bytes() == (whole / "config.json").read_bytes()
    assert repeatable_metrics(folder) == repeatable_metrics(whole)
    assert (folder / "results.json").is_file()


def interrupt(settings: TrainSettings, folder: Path, hook: str, step: int, *, resume: bool = False) -> None:
    with pytest.raises(StoppedError):
        train(settings, folder, resume=resume, callbacks=[Stop(hook, step)])
    assert not (folder / "results.json").exists()


MOMENTS = [
    ("on_train_batch_start", 2),
    ("on_train_batch_end", STEPS),
    ("on_validation_start", STEPS),
    ("on_validation_end", STEPS),
    ("on_train_epoch_end", STEPS),
    ("on_train_epoch_start", STEPS),
    ("on_train_batch_start", STEPS + 3),
    ("on_train_epoch_start", 2 * STEPS),
    ("on_train_epoch_end", 3 * STEPS),
    ("on_train_end", 3 * STEPS),
]


@pytest.mark.parametrize(
    ("kind", "hook", "step"),
    [*(("averaged", *moment) for moment in MOMENTS), *(("plain", *moment) for moment in MOMENTS[::2])],
)
def test_any_moment(kind, hook, step, whole_runs, tmp_path):
    interrupt(settings_of(kind), tmp_path, hook, step)
    train(settings_of(kind), tmp_path, resume=True)
    assert_same_end(tmp_path, whole_runs(kind))


@pytest.mark.parametrize("kind", ["dropout", "decoder", "normalised"])
@pytest.mark.parametrize(("hook", "step"), [("on_train_batch_start", 3), ("on_train_epoch_start", STEPS)])
def test_other_networks(kind, hook, step, whole_runs, tmp_path):
    interrupt(settings_of(kind), tmp_path, hook, step)
    train(settings_of(kind), tmp_path, resume=True)
    assert_same_end(tmp_path, whole_runs(kind))


def test_averaged_weights_find_the_same_statistics_after_the_last_step(whole_runs, tmp_path):
    interrupt(settings_of("normalised"), tmp_path, "on_train_end", 3 * STEPS)
    train(settings_of("normalised"), tmp_path, resume=True)
    assert_same_end(tmp_path, whole_runs("normalised"))


def test_within_an_epoch_nothing_is_done_twice(tmp_path):
    interrupt(settings_of("plain"), tmp_path, "on_train_batch_start", STEPS + 3)
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == "within-epoch.ckpt"
    assert read_checkpoint(newest)["global_step"] == STEPS + 3
    seen = []

    class Watch(Stop):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            seen.append((trainer.current_epoch, batch_index))

    train(settings_of("plain"), tmp_path, resume=True, callbacks=[Watch("on_train_end", -1)])
    assert seen == [(1, 3), (1, 4), *((2, batch) for batch in range(STEPS))]


def test_no_checkpoint_after_an_epochs_last_step(tmp_path):
    """The one after the epoch follows, and with it validation and metrics, which otherwise would be left out."""
    interrupt(settings_of("plain"), tmp_path, "on_validation_start", STEPS)
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert read_checkpoint(newest)["global_step"] == STEPS - 1


def test_before_the_first_checkpoint(whole_runs, tmp_path):
    interrupt(settings_of("averaged", minutes=10), tmp_path, "on_train_batch_start", 2)
    assert newest_checkpoint(tmp_path / "checkpoints") is None
    train(settings_of("averaged", minutes=10), tmp_path, resume=True)
    assert_same_end(tmp_path, whole_runs("averaged"))


def test_again_and_again(whole_runs, tmp_path):
    settings = settings_of("averaged")
    interrupt(settings, tmp_path, "on_train_batch_start", 1)
    for hook, step in (("on_train_batch_start", 3), ("on_validation_end", STEPS), ("on_train_batch_start", 12)):
        interrupt(settings, tmp_path, hook, step, resume=True)
    train(settings, tmp_path, resume=True)
    assert_same_end(tmp_path, whole_runs("averaged"))


def test_a_finished_run_resumed_is_the_same(whole_runs, tmp_path):
    shutil.copytree(whole_runs("averaged"), tmp_path / "copy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(settings_of("averaged"), tmp_path / "copy", resume=True)
    assert_same_end(tmp_path / "copy", whole_runs("averaged"))


def test_a_run_that_moved(whole_runs, tmp_path):
    interrupt(settings_of("averaged"), tmp_path / "here", "on_train_batch_start", 7)
    (tmp_path / "here").rename(tmp_path / "there")
    train(settings_of("averaged"), tmp_path / "there", resume=True)
    assert not (tmp_path / "here").exists()
    assert_same_end(tmp_path / "there", whole_runs("averaged"))


def test_half_written_files_do_no_harm(whole_runs, tmp_path):
    interrupt(settings_of("averaged"), tmp_path, "on_train_batch_start", 7)
    for name in ("checkpoints/within-epoch.ckpt", "checkpoints/after-epoch.ckpt", "metrics.csv", "model.safetensors"):
        (tmp_path / f"{name}.partial").write_bytes(b"half")
    train(settings_of("averaged"), tmp_path, resume=True)
    assert_same_end(tmp_path, whole_runs("averaged"))


def test_metrics_rows_of_an_epoch_that_is_done_again_are_replaced(whole_runs, tmp_path):
    """A run killed between the epoch's row and its checkpoint."""
    interrupt(settings_of("plain"), tmp_path, "on_train_batch_start", STEPS + 2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    (tmp_path / "metrics.csv").write_text("\n".join([*lines, lines[1].replace("1,5,", "2,10,", 1)]) + "\n")
    train(settings_of("plain"), tmp_path, resume=True)
    assert_same_end(tmp_path, whole_runs("plain"))


def test_damaged_checkpoint_is_refused(tmp_path):
    interrupt(settings_of("plain"), tmp_path, "on_train_batch_start", 7)
    path = tmp_path / "checkpoints" / "within-epoch.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=r"is not a complete checkpoint of tensors and plain values: .*remove it to continue"
    ):
        train(settings_of("plain"), tmp_path, resume=True)
    path.unlink()
    assert newest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "after-epoch.ckpt"


def test_a_checkpoint_executes_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"global_step": 1, "bomb": Bomb()}, tmp_path / "after-epoch.ckpt")
    with pytest.raises(ValueError, match="is not a complete checkpoint of tensors and plain values"):
        newest_checkpoint(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run to resume in .*: it has no settings.yaml"):
        train(tiny_settings(), tmp_path, resume=True)
    with pytest.raises(ValueError, match="folder must be given to resume a run"):
        train(tiny_settings(), resume=True)


def test_killed_process(tmp_path):
    """``kill -9`` at moments that nobody chose, twice; then to the end."""
    settings = tiny_settings(
        optimizer=OptimizerSettings(ema_decay=0.9, schedule="cosine"), epochs=12, checkpoint_minutes=AT_EVERY_STEP
    )
    checkpoints = tmp_path / "run" / "checkpoints"

    def written() -> int:
        return checkpoints.stat().st_mtime_ns if checkpoints.exists() else 0

    run = WarmCommand("train", write_config(settings, tmp_path), "--output=run", folder=tmp_path)
    for _ in range(2):
        before, deadline = written(), time.monotonic() + 240  # beside other work a start has taken more than a minute
        while run.poll() is None and written() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        late = run.poll() is None and written() == before
        time.sleep(random.Random().uniform(0, 0.5))
        if run.poll() is None:
            run.kill(signal.SIGKILL)
        run.wait(60)
        assert not late, f"no checkpoint within four minutes: {run.errors}"
        run = WarmCommand("train", "--resume=run", "--report=false", folder=tmp_path)
    whole = train(settings, tmp_path / "whole").folder
    assert run.wait(240) == 0, run.errors
    assert_same_end(tmp_path / "run", whole)
