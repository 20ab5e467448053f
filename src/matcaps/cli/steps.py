"""A training's epochs as work with steps."""

from contextlib import ExitStack
from typing import Any

from matcaps._progress import step, work
from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training


class EpochSteps(Callback):
    """Says how far each epoch is, for :func:`matcaps.cli.bar.bars` to show; closes what is open when it is left."""

    def __init__(self) -> None:
        self._epoch = ExitStack()

    def __enter__(self) -> "EpochSteps":
        return self

    def __exit__(self, *_: object) -> None:
        self._epoch.close()

    def on_train_epoch_start(self, loop: Loop, training: Training) -> None:
        self._epoch.close()
        length = loop.num_training_batches
        name = f"epoch {loop.current_epoch + 1} of {loop.max_epochs}"
        self._epoch.enter_context(work(name, length, loop.global_step % length))

    def on_train_batch_end(self, loop: Loop, training: Training, outputs: Any, batch: Any, batch_idx: int) -> None:
        step()

    def on_train_end(self, loop: Loop, training: Training) -> None:
        self._epoch.close()
