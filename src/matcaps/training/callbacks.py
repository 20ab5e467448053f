"""What is looked at after an epoch: the capsules, and parts of the data."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from matcaps.data.loader import Batch
from matcaps.inspect.health import DEAD_BELOW
from matcaps.models import EMCapsNet
from matcaps.models.modes import evaluation_mode
from matcaps.training.averaging import AveragedWeights
from matcaps.training.evaluation import evaluate
from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training


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

    def on_train_epoch_end(self, loop: Loop, training: Training) -> None:
        epoch = loop.current_epoch + 1
        if epoch % self._every and epoch != loop.max_epochs:
            return
        with nullcontext() if self._averaging is None else self._averaging.applied():
            for part, loader in self._loaders.items():
                result = evaluate(training.network, loader, self._classes)
                loop.log(f"{part}/accuracy", result.accuracy)


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
    def on_train_epoch_end(self, loop: Loop, training: Training) -> None:
        images = self._images.to(training.device)
        training.check_finite(images)
        if not isinstance(training.network, EMCapsNet):
            return
        with evaluation_mode(training.network):
            outputs = training.network.layer_outputs(images)
        for name, capsules in outputs.items():
            activations = capsules.activations.float()
            types = activations.flatten(0, -2)
            loop.log(f"dead/{name}", (types.amax(dim=0) < DEAD_BELOW).float().mean())
            loop.log(f"activation/{name}", activations.mean())
            if loop.writer is not None:
                loop.writer.add_histogram(f"activations/{name}", activations, loop.current_epoch + 1)
