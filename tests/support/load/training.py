"""Days of training in minutes: a tiny network, epochs of two steps, a checkpoint after each and one every second."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from matcaps.data import DataSettings, SplitSettings
from matcaps.training.record import read_metrics
from tests.support.load.watching import Sample, growth, sample, table
from tests.support.runs import tiny_settings, write_config

PARTS = 3
"""The training is stopped and resumed in between."""
_EPOCHS_A_DAY = 1440
"""Of a training with an epoch a minute."""

SETTINGS = tiny_settings(
    epochs=1_000_000,
    checkpoint_minutes=1 / 60,
    agreement_every=100,
    views_every=1000,
    data=DataSettings(
        max_train_images=16, max_test_images=10, batch_size=8, split=SplitSettings(validation_fraction=0.1)
    ),
)
SETTINGS = replace(SETTINGS, optimizer=replace(SETTINGS.optimizer, schedule="constant", ema_decay=0.9))


def train_for(minutes: float, folder: Path) -> list[str]:
    """Train, stop and resume for some minutes; print what was measured, and return what was wrong."""
    wrong: list[str] = []
    began = time.monotonic()
    arguments = [write_config(SETTINGS, folder), "--output=run", "--report=false"]
    run = folder / "run"
    for part in range(PARTS):
        samples = _watch(arguments, folder, began, minutes * 60 / PARTS)
        arguments = ["--resume=run", "--report=false"]
        print(f"part {part + 1} of {PARTS}, to epoch {len(read_metrics(run / 'metrics.csv')):,}:")
        print(*table(samples), sep="\n", flush=True)
        memory = growth([one.memory for one in samples])
        print(f"  memory {memory:+.2%}; {_sizes(run)}", flush=True)
        if memory > 0.01:
            wrong.append(f"part {part + 1}: memory grew by {memory:.2%}")
        for name in ("descriptors", "threads"):
            if (more := growth([getattr(one, name) for one in samples])) > 0:
                wrong.append(f"part {part + 1}: {name} grew by {more:.1%}")
    wrong += _of_files(run, PARTS)
    epochs = len(read_metrics(run / "metrics.csv"))
    print(
        f"{epochs:,} epochs: {epochs / _EPOCHS_A_DAY:.1f} days of a training with an epoch a minute; a day of it adds"
    )
    for name, size in (("metrics.csv", _size(run / "metrics.csv")), ("tensorboard", _size(run / "tensorboard"))):
        print(f"  {size / epochs * _EPOCHS_A_DAY / 1e6:.2f} MB to {name}")
    return wrong


def _watch(arguments: list[str], folder: Path, began: float, seconds: float) -> list[Sample]:
    """Train for so long, from the first epoch's end on, then stop by SIGTERM; what it held in between."""
    checkpoint = folder / "run" / "checkpoints" / "after-epoch.ckpt"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "matcaps.cli", "train", *arguments]
    with (folder / "out.txt").open("a") as out, (folder / "err.txt").open("w") as err:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
        first = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == first):
            time.sleep(0.1)  # until it trains
        deadline, samples = time.monotonic() + seconds, []
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(min(1.0, seconds / 50))
            samples.append(sample(process.pid, began))
        process.send_signal(signal.SIGTERM)
        status = process.wait(1200)  # beside other work it may hardly get a processor
    errors = (folder / "err.txt").read_text()
    assert status == 128 + signal.SIGTERM, f"it ended with {status}: {errors}"
    assert "Traceback" not in errors, errors
    return samples


def _of_files(run: Path, parts: int) -> list[str]:
    """What lies in the folder must not depend on how long it has trained."""
    names = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]
    own = sorted(name for name in names if not name.startswith("tensorboard/"))
    expected = [
        ".run.lock",
        "checkpoints/after-epoch.ckpt",
        "checkpoints/within-epoch.ckpt",
        "data.json",
        "metrics.csv",
    ]
    wrong = []
    if not set(own) <= {*expected, "settings.yaml"}:
        wrong.append(f"the folder holds {own}")
    events = [name for name in names if re.search(r"events\.out", name)]
    if len(events) != parts:
        wrong.append(f"TensorBoard has {len(events)} files of {parts} starts")
    return wrong


def _sizes(run: Path) -> str:
    parts = {name: _size(run / name) for name in ("checkpoints", "metrics.csv", "tensorboard")}
    count = sum(path.is_file() for path in run.rglob("*"))
    return f"{count} files, " + ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in parts.items())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(_size(inner) for inner in path.iterdir())
