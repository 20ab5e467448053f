"""One line an epoch, for people and logs."""

from collections.abc import Callable

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback


class EpochLines(Callback):
    """Give a line of figures to a function after each epoch.

    Args:
        write: takes the line.
    """

    def __init__(self, write: Callable[[str], None]):
        self._write = write

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero and trainer.logger is not None:
            self._write(f"run folder: {trainer.logger.save_dir}")

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        for name, label, form in (
            ("train/loss", "loss", "{:.4f}"),
            ("train/accuracy", "train", "{:.2%}"),
            ("validation/accuracy", "validation", "{:.2%}"),
            ("train/images_per_second", "images/s", "{:.0f}"),
        ):
            if name in metrics:
                parts.append(f"{label} {form.format(metrics[name])}")
        self._write("  ".join(parts))
