"""Whether routing brings the true class's votes together, measured every few epochs on some labelled images."""

from contextlib import nullcontext
from typing import Any

from torch import nn

from matcaps.data import ImageDataset, Transform
from matcaps.data.devices import send
from matcaps.data.loader import Batch
from matcaps.inspect.agreement import RoutingAgreement, routing_agreement
from matcaps.inspect.door import copy_to_look_into
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of
from matcaps.training.averaging import AveragedWeights
from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training

_BATCH = 64


class AgreementWatch(Callback):
    """Every few epochs, log what routing does for the true class, as the averaged weights have it where there are any.

    The first of several processes measures, on a copy of the network where that is: the training is the same with it
    and without. A CNN has no routing, and nothing is logged.

    Args:
        part: the name of the images' part of the data.
        images: labelled images to look at, the same each time.
        transform: how the network takes them.
        every: epochs from one look to the next; the last epoch always has one.
        averaging: the run's averaged weights.
    """

    def __init__(
        self,
        part: str,
        images: ImageDataset,
        transform: Transform,
        every: int,
        averaging: AveragedWeights | None = None,
    ):
        self._part = part
        self._images = images
        self._transform = transform
        self._every = every
        self._averaging = averaging

    def on_train_epoch_end(self, loop: Loop, training: Training) -> None:
        epoch = loop.current_epoch + 1
        if not isinstance(training.network, EMCapsNet):
            return
        if epoch % self._every and epoch != loop.max_epochs:
            return
        with nullcontext() if self._averaging is None else self._averaging.applied():
            if not loop.is_global_zero:
                return
            measured = self._measure(training.network)
        for name, value in as_metrics(measured).items():
            loop.log(name, value)

    def measure(self, network: nn.Module) -> dict[str, Any] | None:
        """The measures of a network, as plain values, with what they were made on; None of a CNN."""
        if not isinstance(network, EMCapsNet):
            return None
        return {"part": self._part, **self._measure(network).to_dict()}

    def _measure(self, network: EMCapsNet) -> RoutingAgreement:
        copied, images, device = copy_to_look_into(network), self._images, device_of(network)
        parts = zip(*(one.split(_BATCH) for one in (images.images, images.labels, images.indices)), strict=True)
        batches = (Batch(self._transform.evaluate(send(stored, device)), *rest) for stored, *rest in parts)
        return routing_agreement(copied, batches)


def as_metrics(measured: RoutingAgreement) -> dict[str, float]:
    """The measures by the names under which a training logs them, iterations counted from 1."""
    by_iteration = {
        "share_true": measured.share_true,
        "log_deviation_gap": measured.log_deviation_gap,
        "nearest_is_true": measured.nearest_is_true,
        "accuracy": measured.accuracy,
        "changed": measured.changed,
    }
    metrics = {
        f"agreement/{name}_{iteration}": value
        for name, values in by_iteration.items()
        for iteration, value in enumerate(values, 1)
        if not (name == "changed" and iteration == 1)  # from what?
    }
    for name, layer in measured.layers.items():
        metrics |= {f"below_0.01/{name}": layer.share_low, f"above_0.99/{name}": layer.share_high}
    return metrics
