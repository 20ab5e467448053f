"""One line an epoch, for people and logs."""

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training


class EpochLines(Callback):
    """Give a line of figures to a function after each epoch.

    Args:
        write: takes the line.
    """

    def __init__(self, write: Callable[[str], None]):
        self._write = write

    def on_train_start(self, loop: Loop, training: Training) -> None:
        if loop.is_global_zero:
            self._write(f"run folder: {loop.folder}")

    def on_train_epoch_end(self, loop: Loop, training: Training) -> None:
        if not loop.is_global_zero:
            return
        metrics = {name: float(value) for name, value in loop.metrics.items()}
        parts = [f"epoch {loop.current_epoch + 1}/{loop.max_epochs}"]
        for name, label, form in (
            ("train/loss", "loss", "{:.4f}"),
            ("train/accuracy", "train", "{:.2%}"),
            ("validation/accuracy", "validation", "{:.2%}"),
            ("train/images_per_second", "images/s", "{:.0f}"),
        ):
            if name in metrics:
                parts.append(f"{label} {form.format(metrics[name])}")
        self._write("  ".join(parts))


class StepsBar(Callback):
    """A bar of the epoch's steps on standard error, while it is entered.

    Args:
        is_shown: whether there is one.
    """

    def __init__(self, is_shown: bool) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(
            *columns,
            console=Console(file=sys.stderr),
            transient=True,
            disable=not is_shown,
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> "StepsBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_train_epoch_start(self, loop: Loop, training: Training) -> None:
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        if loop.is_global_zero:
            done = loop.global_step % loop.num_training_batches
            self._progress.add_task(f"epoch {loop.current_epoch + 1}", total=loop.num_training_batches, completed=done)

    def on_train_batch_end(self, loop: Loop, training: Training, outputs: Any, batch: Any, batch_idx: int) -> None:
        for task in self._progress.task_ids:
            self._progress.advance(task)
