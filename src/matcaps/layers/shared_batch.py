"""A batch that several processes share, each with a part of its images: what depends on the whole batch is computed
over all parts, so that training with several processes is training with one and the whole batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as processes
from torch.nn import functional as F


@dataclass(frozen=True)
class Share:
    """A process's part of a batch: image ``rank`` of the whole batch, and every ``world_size``-th after it.

    Attributes:
        rank: this process, from 0.
        world_size: number of processes.
        num_images: images of the whole batch; at least one a process.
    """

    rank: int
    world_size: int
    num_images: int

    @property
    def own_images(self) -> int:
        """Images of this process."""
        return len(range(self.rank, self.num_images, self.world_size))


_share: Share | None = None


def present_share() -> Share | None:
    """The share within :func:`shared_batch`; None outside, where a batch is whole."""
    return _share


@contextmanager
def shared_batch(share: Share) -> Iterator[None]:
    """Within the block a batch is one of several processes' parts, all of which compute the same layers.

    The backward pass may come after it. torch's default process group must exist.
    """
    global _share
    before, _share = _share, share
    try:
        yield
    finally:
        _share = before


class _Sum(torch.autograd.Function):
    """The sum over all processes; a process's gradient is the sum of theirs."""

    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = values.clone(memory_format=torch.contiguous_format)
        processes.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = gradient.clone(memory_format=torch.contiguous_format)
        processes.all_reduce(total)
        return total


def whole_size(values: Tensor) -> int:
    """Number of elements of the whole batch's values, of which ``values`` are this process's, as many for each
    image.
    """
    return values.numel() if _share is None else values.numel() // _share.own_images * _share.num_images


def whole_mean(values: Tensor) -> Tensor:
    """The mean over the whole batch, a scalar; ``values`` are this process's, as many for each image."""
    if _share is None:
        return values.mean()
    return _sum(values.sum()) / whole_size(values)


def normalise_whole(features: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Batch normalisation over the whole batch, within :func:`shared_batch`: ``norm(features)`` of one process.

    Args:
        features: ``[B, C, H, W]``, of this process.
        norm: in training mode; its running statistics move.
    """
    of_channel = (0, 2, 3)
    count = whole_size(features) // features.shape[1]
    values = features.float()
    mean = _sum(values.sum(of_channel)) / count
    centred = values - mean[:, None, None]
    variance = _sum(centred.square().sum(of_channel)) / count
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        assert norm.momentum is not None
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)
    scale = (variance + norm.eps).rsqrt()
    scaled = centred * (scale if norm.weight is None else scale * norm.weight)[:, None, None]
    return (scaled if norm.bias is None else scaled + norm.bias[:, None, None]).to(features.dtype)


class Dropout(nn.Dropout):
    """torch's dropout, which within :func:`shared_batch` drops what one process would drop in the whole batch."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape ``[B, ...]``; the same shape."""
        if _share is None or not self.training:
            return super().forward(input)
        kept = F.dropout(input.new_ones(_share.num_images, *input.shape[1:]), self.p, training=True)
        return input * kept[_share.rank :: _share.world_size]


def _sum(values: Tensor) -> Tensor:
    total = _Sum.apply(values)
    assert isinstance(total, Tensor)
    return total
