"""Write checkpoints that survive a kill at any moment; :mod:`matcaps.training.checkpoint_files` reads them."""

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from matcaps.models.files import whole_file
from matcaps.training.checkpoint_files import AFTER_EPOCH, WITHIN_EPOCH, read_checkpoint
from matcaps.training.stopping import Halt, StopRequest


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write to a file beside, flush it to the disk, then rename; read tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(checkpoint, content)  # into a file it would say of a full disk only that writing failed
        with whole_file(path) as partial:
            partial.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class _Newest(ModelCheckpoint):
    """Remembers nothing in the checkpoint: where a run's folder was before it moved is of no use, nor is a best one."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class _WithinEpoch(_Newest):
    """A checkpoint every some minutes, but none after an epoch's last step; and one where a signal ends the training.

    Lightning takes a run that resumes there as one whose epoch is over, validation, metrics and all; the checkpoint
    after the epoch follows anyhow, and a training that is asked to end there ends after that one.
    """

    def __init__(self, request: StopRequest, **options: Any):
        super().__init__(**options)
        self._request = request

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._request.take_over()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._is_asked_to_end(trainer):
            raise Halt

    def _is_asked_to_end(self, trainer: lightning.Trainer) -> bool:
        """Whether a signal came, to any of several processes: all must end at the same step."""
        asked = self._request.number is not None
        return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            return
        if self._is_asked_to_end(trainer):
            trainer.save_checkpoint(Path(str(self.dirpath)) / f"{WITHIN_EPOCH}.ckpt")
            raise Halt
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def checkpoint_callbacks(folder: Path, minutes: float, request: StopRequest) -> list[Callback]:
    """One checkpoint after each epoch and one every some minutes within, each replacing its predecessor.

    Args:
        folder: where they go.
        minutes: from one within an epoch to the next.
        request: tells of a signal that asks the training to end; it does so with a checkpoint.
    """
    common: dict[str, Any] = {
        "dirpath": folder,
        "save_top_k": 1,
        "monitor": None,
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
    }
    return [
        _Newest(filename=AFTER_EPOCH, every_n_epochs=1, save_on_train_epoch_end=True, **common),
        _WithinEpoch(request, filename=WITHIN_EPOCH, train_time_interval=timedelta(minutes=minutes), **common),
    ]
