"""Images to attack: chosen evenly over the classes, prepared, each with a wrong class as its target."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from matcaps.data.dataset import ImageDataset
from matcaps.data.random import integers, make_keys
from matcaps.data.splits import balanced_choice
from matcaps.data.transforms import Transform
from matcaps.experiments.attacks.space import TARGETS


def input_bounds(transform: Transform, images: Tensor) -> tuple[Tensor, Tensor]:
    """The valid range of the network's input that :meth:`Transform.evaluate` makes from stored images.

    Each normalised image has its own range: its values of black and white. An attack happens after
    the normalisation, as in the paper, so the range is that of the image before it is changed.

    Args:
        transform: makes the network's input.
        images: ``[B, C, H, W]``, uint8, as stored.

    Returns:
        Lowest and highest input, each ``[B, 1, 1, 1]``, float32.
    """
    return transform.bounds(images)


class AttackImages(NamedTuple):
    """Images ready to be attacked, or a batch of them.

    Attributes:
        inputs: ``[N, C, H, W]``, float32, as the network takes them.
        labels: ``[N]``, int64.
        targets: ``[N]``, int64, a random wrong class each.
        low: ``[N, 1, 1, 1]``, the lowest valid input of each image.
        high: ``[N, 1, 1, 1]``, the highest.
        indices: ``[N]``, int64, places in the data set; random numbers depend on them.
    """

    inputs: Tensor
    labels: Tensor
    targets: Tensor
    low: Tensor
    high: Tensor
    indices: Tensor

    def batches(self, size: int, device: torch.device) -> Iterator["AttackImages"]:
        """The same images, ``size`` at a time, on a device."""
        for parts in zip(*(tensor.split(size) for tensor in self), strict=True):
            yield AttackImages(*(part.to(device) for part in parts))


def choose_images(dataset: ImageDataset, transform: Transform, count: int, seed: int) -> AttackImages:
    """Choose and prepare images and choose targets; the result depends on the data, transform, count and seed alone."""
    positions = balanced_choice(dataset.labels, count, seed)
    chosen, num_classes = dataset.subset(positions), dataset.num_classes
    keys = make_keys(seed, TARGETS, positions.numpy())
    low, high = input_bounds(transform, chosen.images)
    steps = torch.from_numpy(1 + integers(keys, 0, num_classes - 1))
    return AttackImages(
        inputs=transform.evaluate(chosen.images),
        labels=chosen.labels,
        targets=(chosen.labels + steps) % num_classes,
        low=low,
        high=high,
        indices=positions,
    )
