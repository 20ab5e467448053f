"""Several processes: what one process with the whole batch would do, also after the loss of one of them.

They are started as torchrun starts them. ``make test-kills`` has torchrun itself, with two and with four.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from matcaps.training import LossSettings, OptimizerSettings, TrainSettings, train
from matcaps.training.checkpoint_files import read_checkpoint
from tests.support.double import compute_in_double
from tests.support.kills import Moment
from tests.support.launched import launch
from tests.support.runs import (
    AT_EVERY_STEP,
    TINY,
    TINY_CNN,
    repeatable_metrics,
    tiny_settings,
    weights,
    write_config,
)

ALL = bool(os.environ.get("MATCAPS_TEST_KILLS"))
# networks of two capsules often are stuck, and that is not what these tests are about
pytestmark = pytest.mark.filterwarnings("ignore:the training seems stuck")
KINDS = {
    "plain": {},
    "sum": {"loss": replace(tiny_settings().loss, reduction="sum", reconstruction_weight=0.001)},
    "normalised": {"model": replace(TINY, normalisation="batch", activation_rule="relative")},
    "dropout": {"model": TINY_CNN, "loss": LossSettings("cross-entropy")},
}


def settings_of(kind: str, count: int, **changes) -> TrainSettings:
    """Two epochs of five steps, the last of them of six images, in one process or several."""
    base = tiny_settings(**({"epochs": 2, "views_every": 0, "agreement_every": 1} | KINDS[kind] | changes))
    return replace(base, devices=count, data=replace(base.data, batch_size=8 // count, max_train_images=38))


def run_all(count: int, settings: TrainSettings, folder: Path, name: str, **options) -> list[int]:
    started = launch(
        count, "train", write_config(settings, folder), f"--output={folder / name}", "--report=false", folder=folder,
        **options,
    )  # fmt: skip
    return [one.wait(240) for one in started]


@pytest.mark.parametrize(
    ("kind", "count"), [(kind, 2) for kind in KINDS] + [(kind, 4) for kind in KINDS if ALL or kind == "normalised"]
)
def test_several_processes_are_one_with_the_whole_batch(kind, count, tmp_path):
    # the plain gradient's size decides a step, so that rounding is not blown up to a step of Adam's
    one = settings_of(kind, 1, optimizer=OptimizerSettings(learning_rate=1e-4, gradient_clip=2.0, ema_decay=0.9))
    several = settings_of(kind, count, optimizer=one.optimizer)
    assert run_all(count, several, tmp_path, "several") == [0] * count
    train(one, tmp_path / "one")
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "several"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5, msg=lambda text, at=name: f"{at}: {text}")
    rows = zip(*(repeatable_metrics(tmp_path / name) for name in ("one", "several")), strict=True)
    for single, double in rows:
        assert single.keys() == double.keys()
        # measured: 2e-6 and less, 4e-6 where batches are normalised
        names = ["train/loss", "train/step_loss", "train/accuracy", "validation/accuracy"]
        names += [] if kind == "sum" else ["validation/loss"]  # a sum over a batch depends on the batch's size
        for name in names:
            assert float(double[name]) == pytest.approx(float(single[name]), rel=1e-5), name
        if "train/reconstruction_loss" in single:
            drawn = (float(row["train/reconstruction_loss"]) for row in (double, single))
            assert next(drawn) == pytest.approx(next(drawn), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS if ALL else ["normalised"])
def test_what_several_processes_compute_otherwise_than_one_is_rounding(kind, tmp_path):
    """In float64 weights agree to 2e-15 and gradient norms to 4e-13, where float32 leaves 2e-6 and 1.7e-5."""
    one = settings_of(kind, 1, optimizer=OptimizerSettings(learning_rate=1e-4, gradient_clip=2.0, ema_decay=0.9))
    several = settings_of(kind, 2, optimizer=one.optimizer)
    assert run_all(2, several, tmp_path, "several", each=compute_in_double) == [0, 0]
    assert run_all(1, one, tmp_path, "one", each=compute_in_double) == [0]
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "several"))
    assert {value.dtype for value in expected.values()} == {torch.float64}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-13, rtol=0, msg=lambda text, at=name: f"{at}: {text}")
    for single, double in zip(*(repeatable_metrics(tmp_path / name) for name in ("one", "several")), strict=True):
        for name, value in single.items():
            if value and not (kind == "sum" and name == "validation/loss"):
                exact = name in ("train/gradient_norm", "train/step_loss")  # the others are written in float32
                assert float(double[name]) == pytest.approx(float(value), rel=1e-11 if exact else 2e-7), name


@pytest.mark.parametrize("kind", ["normalised", "dropout"])
def test_after_the_loss_of_a_process_the_same_command_goes_on_exactly(kind, tmp_path):
    """In the middle of the second epoch, whose counts each process has for itself."""
    settings = settings_of(
        kind, 2, checkpoint_minutes=AT_EVERY_STEP, optimizer=OptimizerSettings(ema_decay=0.9, gradient_clip=2.0)
    )
    assert run_all(2, settings, tmp_path, "whole") == [0, 0]
    killed = Moment("a step", 8, 300, signal.SIGKILL)
    statuses = run_all(2, settings, tmp_path, "run", max_restarts=1, last=killed)
    assert statuses == [1, -signal.SIGKILL]
    said = (tmp_path / "0" / "err.txt").read_text().strip().splitlines()[-1]
    assert said.startswith("matcaps train: process 0 of 2 has lost another process of the training")
    assert "Traceback" not in (tmp_path / "0" / "err.txt").read_text()
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "within-epoch.ckpt")
    assert checkpoint["global_step"] == 7
    first, second = checkpoint["matcaps"]["processes"]
    assert first["metrics"]["loss"] != second["metrics"]["loss"]
    assert run_all(2, settings, tmp_path, "run", max_restarts=1) == [0, 0]
    assert "has begun, and continues" in (tmp_path / "0" / "err.txt").read_text()
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert repeatable_metrics(tmp_path / "run") == repeatable_metrics(tmp_path / "whole")


def test_a_run_that_has_begun_is_refused_unless_it_may_be_resumed(tmp_path):
    settings = settings_of("plain", 1)
    train(settings, tmp_path / "run")
    before = weights(tmp_path / "run")
    with pytest.raises(FileExistsError, match="is not empty"):
        train(settings, tmp_path / "run")
    train(settings, tmp_path / "run", resume="if-begun")
    assert weights(tmp_path / "run") == before
    with pytest.raises(ValueError, match="settings must be those of the resumed run"):
        train(replace(settings, seed=3), tmp_path / "run", resume="if-begun")
    assert train(settings, tmp_path / "new", resume="if-begun").folder == tmp_path / "new"
    assert weights(tmp_path / "new") == before


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path):
    settings = settings_of("plain", 1)
    train(settings, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "after-epoch.ckpt"
    checkpoint = read_checkpoint(path)
    checkpoint["matcaps"]["processes"] *= 3
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="was written by 3 processes, and a run continues with as many"):
        train(settings, tmp_path / "run", resume=True)


def test_a_launcher_of_another_number_of_processes_is_refused(tmp_path):
    started = launch(
        2, "train", write_config(settings_of("plain", 1), tmp_path), f"--output={tmp_path / 'run'}", folder=tmp_path
    )
    assert [one.wait(240) for one in started] == [1, 1]
    for one in started:
        assert one.errors.strip().splitlines()[-1].endswith("give --devices 2 --num_nodes 1")
    assert not (tmp_path / "run").exists()


def torchrun(count: int, config: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts=2", f"--nproc-per-node={count}"]
    with (folder / f"{name}.txt").open("wb") as errors:
        return subprocess.Popen(
            [*command, "-m", "matcaps", "train", config, f"--output={name}", "--report=false"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=errors,
        )


def wait_for_a_step(run: subprocess.Popen[bytes], folder: Path) -> list[int]:
    """Wait for the first checkpoint within an epoch; return the processes that torchrun started."""
    checkpoint, deadline = folder / "checkpoints" / "within-epoch.ckpt", time.monotonic() + 240
    while not checkpoint.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.poll() is None
    return [int(one) for one in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]


@pytest.mark.skipif(not ALL, reason="some minutes: make test-kills")
@pytest.mark.parametrize("count", [2, 4])
def test_torchrun_starts_them_again_after_the_loss_of_one(count, tmp_path):
    settings = settings_of(
        "normalised", count, checkpoint_minutes=AT_EVERY_STEP, optimizer=OptimizerSettings(ema_decay=0.9)
    )
    config = write_config(settings, tmp_path)
    assert torchrun(count, config, tmp_path, "whole").wait(240) == 0
    run = torchrun(count, config, tmp_path, "run")
    os.kill(wait_for_a_step(run, tmp_path / "run")[-1], signal.SIGKILL)
    assert run.wait(300) == 0
    assert "has begun, and continues" in (tmp_path / "run.txt").read_text()
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert repeatable_metrics(tmp_path / "run") == repeatable_metrics(tmp_path / "whole")


@pytest.mark.skipif(not ALL, reason="some minutes: make test-kills")
def test_sigterm_to_torchrun_saves_and_ends_all(tmp_path):
    settings = settings_of("plain", 2, checkpoint_minutes=AT_EVERY_STEP, epochs=1000)
    run = torchrun(2, write_config(settings, tmp_path), tmp_path, "run")
    workers = wait_for_a_step(run, tmp_path / "run")
    run.terminate()
    assert run.wait(60) == 1  # torchrun's own, with a traceback of its own
    assert "stopped by SIGTERM; continue it with: matcaps train --resume run" in (tmp_path / "run.txt").read_text()
    for one in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(one, 0)
