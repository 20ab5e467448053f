"""One line an epoch, for people and logs."""

from collections.abc import Callable

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
