"""What is watched while a network trains, and what makes a resumed run end as an uninterrupted one."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from matcaps.data.loader import Batch, EpochSampler
from matcaps.inspect.health import DEAD_BELOW
from matcaps.models import EMCapsNet
from matcaps.models.modes import evaluation_mode
from matcaps.models.statistics import update_statistics
from matcaps.training.evaluation import evaluate
from matcaps.training.module import Training
from matcaps.training.record import METRICS_NAME, read_metrics, write_metrics

_MANY_BATCHES, _FEW_BATCHES = 64, 20
"""By which averaged weights find their statistics: where they are looked at, and what would take time every epoch."""


class ExactResume(Callback):
    """Carry torch's random state, the time spent and the place in the epoch across an interruption.

    Args:
        sampler: the training images' sampler.
        facts: plain values for the checkpoint to hold: the settings, and what the network is.

    Attributes:
        seconds: spent on training, over all interruptions.
        extension: another number of epochs than the run was set up for, from where it goes on now; None: the same.
        extensions: all of them, over all interruptions, as plain values.
        has_started: whether this process has begun to train.
    """

    def __init__(self, sampler: EpochSampler, facts: dict[str, Any]):
        self.seconds = 0.0
        self.extension: Any = None
        self.extensions: list[dict[str, int]] = []
        self.has_started = False
        self._facts = facts
        self._sampler = sampler
        self._started: float | None = None
        self._random_state: Tensor | None = None
        self._cuda_random_state: Tensor | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._started = time.perf_counter()
        self.has_started = True
        if self._random_state is not None:
            torch.set_rng_state(self._random_state)
        if self._cuda_random_state is not None and pl_module.device.type == "cuda":
            torch.cuda.set_rng_state(self._cuda_random_state, pl_module.device)
        for config in trainer.lr_scheduler_configs:  # the rate of the step to come is the one before more epochs were
            scheduler = config.scheduler  # wanted; without them it is what it is already
            assert isinstance(scheduler, LambdaLR)
            for group, rate, factor in zip(
                scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
            ):
                group["lr"] = rate * factor(scheduler.last_epoch)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.seconds = self._elapsed()
        self._started = None

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["matcaps"] = {
            "random_state": torch.get_rng_state(),
            "seconds": self._elapsed(),
            "extensions": self.extensions,
            **self._facts,
        }
        if pl_module.device.type == "cuda":
            checkpoint["matcaps"]["cuda_random_state"] = torch.cuda.get_rng_state(pl_module.device)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._random_state = checkpoint["matcaps"]["random_state"]
        self._cuda_random_state = checkpoint["matcaps"].get("cuda_random_state")
        self.seconds = checkpoint["matcaps"]["seconds"]
        self.extensions = list(checkpoint["matcaps"].get("extensions", []))
        if self.extension is not None:
            self.extensions.append(vars(self.extension))
        # Lightning asks for the first batches before it tells the sampler the epoch, so the sampler hears it here.
        self._sampler.resume_at(*divmod(checkpoint["global_step"], len(self._sampler)))

    def _elapsed(self) -> float:
        return self.seconds + (0.0 if self._started is None else time.perf_counter() - self._started)


class AveragedWeights(EMAWeightAveraging):
    """Average the weights; leave the average in the network, also where a resumed run has no epoch left to train.

    Frozen weights are their own average. Where the network has running statistics, the average finds its own before
    it is looked at or saved.

    Args:
        decay: share of the average that each optimiser step keeps.
        batches: gives so many batches of images to find statistics by, the same each time; None: the network has none.
    """

    def __init__(self, decay: float, batches: Callable[[int], Iterable[Tensor]] | None = None):
        super().__init__(decay=decay, use_buffers=False)
        self._decay = decay
        self._batches = batches
        self._found = (-1, 0)  # at which optimiser step, by how many batches

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            self._average_without_waiting(trainer, pl_module)
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        assert self._average_model is not None
        for average, current in zip(self._average_model.module.parameters(), pl_module.parameters(), strict=True):
            if not current.requires_grad:  # the mean of a frozen number with itself is not always that number
                average.data.copy_(current.data)

    @torch.no_grad()
    def _average_without_waiting(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The same mean in a few launches; torch's own asks the GPU every step whether it is the first."""
        if trainer.global_step <= self._latest_update_step:
            return
        assert self._average_model is not None
        average, is_first = self._average_model.module, self._latest_update_step == 0
        pairs: list[tuple[Tensor, Tensor]] = [*zip(average.parameters(), pl_module.parameters(), strict=True)]
        moving = [] if is_first else [(own, current) for own, current in pairs if current.requires_grad]
        copied = [(own, current) for own, current in pairs if is_first or not current.requires_grad]
        copied += zip(average.buffers(), pl_module.buffers(), strict=True)
        if moving:
            owned, currents = zip(*moving, strict=True)
            torch._foreach_lerp_(owned, currents, 1 - self._decay)  # pyright: ignore[reportPrivateImportUsage]
        for own, current in copied:
            own.copy_(current, non_blocking=True)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._find_statistics(pl_module, _MANY_BATCHES)
        super().on_train_end(trainer, pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.on_train_end(trainer, pl_module)  # Lightning skips it where every epoch is done; twice does no harm

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._find_statistics(pl_module, _FEW_BATCHES)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._find_statistics(pl_module, _FEW_BATCHES)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    @contextmanager
    def applied(self, pl_module: lightning.LightningModule) -> Iterator[None]:
        """Put the average into the network for a while."""
        self._find_statistics(pl_module, _MANY_BATCHES)
        self._swap_models(pl_module)
        try:
            yield
        finally:
            self._swap_models(pl_module)

    def _find_statistics(self, pl_module: lightning.LightningModule, count: int) -> None:
        """Give the average its statistics, from those of the weights as they are now and from the same batches.

        They depend on nothing else, so that a resumed run finds the same.
        """
        average, done = self._average_model, (pl_module.global_step, count)
        if average is None or self._batches is None or self._found >= done:
            return
        self._found = done
        for own, current in zip(average.module.buffers(), pl_module.buffers(), strict=True):
            own.data.copy_(current.data)
        network = average.module.get_submodule("network")
        update_statistics(network, (images.to(pl_module.device) for images in self._batches(count)))


class WatchedParts(Callback):
    """After some epochs, log the accuracy on parts of the data, as the averaged weights have it where there are any.

    Args:
        loaders: what to classify, by the part's name; every process classifies all of it.
        classes: the classes' names.
        every: epochs from one look to the next; the last epoch always has one.
        averaging: the run's averaged weights.
    """

    def __init__(
        self,
        loaders: Mapping[str, DataLoader[Batch]],
        classes: tuple[str, ...],
        every: int,
        averaging: AveragedWeights | None,
    ):
        self._loaders = loaders
        self._classes = classes
        self._every = every
        self._averaging = averaging

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not isinstance(pl_module, Training):
            return
        if epoch % self._every and epoch != trainer.max_epochs:
            for part in self._loaders:  # Lightning keeps what was logged last, which is no figure of this epoch
                trainer.callback_metrics.pop(f"{part}/accuracy", None)
            return
        with nullcontext() if self._averaging is None else self._averaging.applied(pl_module):
            for part, loader in self._loaders.items():
                result = evaluate(pl_module.network, loader, self._classes)
                pl_module.log(f"{part}/accuracy", result.accuracy)


class MetricsFile(Callback):
    """Append one row of all logged metrics an epoch to the run's CSV file; a resumed run drops what it does again.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path):
        self._path = folder / METRICS_NAME
        self._rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._rows = [row for row in read_metrics(self._path) if int(row["epoch"]) <= trainer.current_epoch]

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        self._rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **values})
        write_metrics(self._path, self._rows)


class Throughput(Callback):
    """Log images a second of the training steps alone, without validation, over an epoch."""

    def __init__(self) -> None:
        self._images = 0
        self._seconds = 0.0
        self._last: float | None = None
        self.images_per_second: float | None = None

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._images, self._seconds, self._last = 0, 0.0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # the steps so far have only been asked for
        now = time.perf_counter()
        self._images += len(batch.labels) * trainer.world_size
        self._seconds += now - (self._last or now)
        self._last = now

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._seconds > 0:
            self.images_per_second = self._images / self._seconds
            pl_module.log("train/images_per_second", self.images_per_second)


class CapsuleHealth(Callback):
    """After each epoch, before its checkpoint, look at what the network makes of some images.

    Logs, for every capsule layer, the share of dead types and the histogram of activations; stops the run if an output
    is no longer finite, so that the checkpoint from before stays.

    Args:
        images: ``[B, C, H, W]``, the images to look at, the same in every epoch.
    """

    def __init__(self, images: Tensor):
        self._images = images

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not isinstance(pl_module, Training):
            return
        images = self._images.to(pl_module.device)
        pl_module.check_finite(images)
        if not isinstance(pl_module.network, EMCapsNet):
            return
        with evaluation_mode(pl_module.network):
            outputs = pl_module.network.layer_outputs(images)
        for name, capsules in outputs.items():
            activations = capsules.activations.float()
            types = activations.flatten(0, -2)
            pl_module.log(f"dead/{name}", (types.amax(dim=0) < DEAD_BELOW).float().mean())
            pl_module.log(f"activation/{name}", activations.mean())
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_histogram(f"activations/{name}", activations, trainer.current_epoch + 1)
