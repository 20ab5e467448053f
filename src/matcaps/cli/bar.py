"""A bar of an epoch's steps, where a person looks on."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training


class StepsBar(Callback):
    """A bar of the epoch's steps on standard error, where that is a terminal, while it is entered."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
            disable=not sys.stderr.isatty(),
            redirect_stdout=sys.stdout.isatty(),  # else its lines would come to the terminal, and not where they should
        )

    def __enter__(self) -> "StepsBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_train_epoch_start(self, loop: Loop, training: Training) -> None:
        if not loop.is_global_zero:
            return
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        done = loop.global_step % loop.num_training_batches
        self._progress.add_task(f"epoch {loop.current_epoch + 1}", total=loop.num_training_batches, completed=done)
        self._progress.start()

    def on_train_batch_end(self, loop: Loop, training: Training, outputs: Any, batch: Any, batch_idx: int) -> None:
        for task in self._progress.task_ids:
            self._progress.advance(task)
