"""What is looked at after an epoch: parts of the data, the capsules, and views of them for TensorBoard."""

import time
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from matcaps.data import ImageDataset, Transform
from matcaps.data.loader import Batch
from matcaps.inspect.health import DEAD_BELOW
from matcaps.inspect.tensorboard import OF_NUMBERS, TENSORBOARD_VIEWS, Look
from matcaps.models import EMCapsNet
from matcaps.models.modes import evaluation_mode
from matcaps.training.averaging import AveragedWeights
from matcaps.training.evaluation import evaluate
from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training

SHARE = 0.02
"""Largest share of the training's time that the views take; one that would exceed it waits for the next look."""

_FIRST_FIGURE = 3.0
_FIRST_NUMBERS = 0.5
"""Seconds that a figure, and a view of numbers, are taken to cost before one was made."""


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


class CapsuleViews(Callback):
    """Every few epochs, write into TensorBoard what ``matcaps inspect`` would show of the network as it is.

    Of one image, the figures of vote distances, activations, assignments and EM steps, and, where a decoder is trained
    with the network, of the pose moved component by component. Of it and of all images, how far votes for the true
    class and for a wrong one lie from their mean. Of all images, the vote distances of the true and the
    other classes as histograms and means, and the true classes' poses as an embedding. They never take more than
    :data:`SHARE` of the training's time: they take turns, and where the next one would exceed it, that one waits for
    the next look. The training itself is the same with them and without.

    Args:
        images: labelled images to look at, the same each time; the figures show the first.
        transform: how the network takes them.
        every: epochs from one look to the next.
        averaging: the run's averaged weights, which are looked at where there are any.
        share: largest share of the time since the training started, or was resumed.
    """

    def __init__(
        self,
        images: ImageDataset,
        transform: Transform,
        every: int,
        averaging: AveragedWeights | None = None,
        share: float = SHARE,
    ):
        self._images = images
        self._transform = transform
        self._every = every
        self._averaging = averaging
        self._share = share
        self._started = 0.0
        self._spent = 0.0
        self._costs: dict[str, float] = {}
        self._last = ""

    def on_train_start(self, loop: Loop, training: Training) -> None:
        self._started, self._spent = time.perf_counter(), 0.0

    def on_train_epoch_end(self, loop: Loop, training: Training) -> None:
        writer = loop.writer
        epoch = loop.current_epoch + 1
        if writer is None:
            return
        if not isinstance(training.network, EMCapsNet) or epoch % self._every:
            return
        names = [name for name in TENSORBOARD_VIEWS if name != "poses" or training.decoder is not None]
        last = self._last if self._last in names else names[-1]
        start = names.index(last) + 1
        look = None
        for name in [*names[start:], *names[:start]]:  # in turn, from where the last look ended
            cost = self._costs.get(name, _FIRST_NUMBERS if name in OF_NUMBERS else _FIRST_FIGURE)
            began = time.perf_counter()
            if look is None:
                cost += self._costs.get("look", _FIRST_NUMBERS)
            if self._spent + cost > self._share * (began - self._started):
                break  # and no cheaper one in its place, which would keep it out for good
            if look is None:
                with nullcontext() if self._averaging is None else self._averaging.applied():
                    look = Look(training.network, training.decoder, self._images, self._transform)
                self._costs["look"] = time.perf_counter() - began
            drawn = time.perf_counter()
            TENSORBOARD_VIEWS[name](look, writer, epoch)
            self._costs[name] = time.perf_counter() - drawn
            self._spent += time.perf_counter() - began
            self._last = name
