"""Classes of unequal size: a warning at the start, and sampling in equal numbers if wanted."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from matcaps.data.dataset import ImageDataset
from matcaps.data.random import permutation

_LARGE = 4
"""From this ratio of the largest class to the smallest on, classes count as uneven."""


class Balance:
    """Draws equally many images of every class in an epoch, from seed and epoch alone.

    Each class is dealt from packs: all its images in an order of their own, then all again in another, and so on
    without end over the epochs. An epoch takes the next few of every class. So the images of a small class come several
    times an epoch, those of a large one once in some epochs, and all of a class equally often in the long run.

    Args:
        labels: ``[N]``, int64, the classes of the images. Classes without images are left out.
    """

    def __init__(self, labels: Tensor) -> None:
        values = labels.numpy()
        self._members = [np.flatnonzero(values == label) for label in np.unique(values)]
        self._each = max(1, len(values) // max(1, len(self._members)))

    @property
    def num_images(self) -> int:
        """Images in an epoch: as many of each class, together at most one a class fewer than there are."""
        return self._each * len(self._members)

    def draw(self, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The images of an epoch, class by class.

        Args:
            seed: the run's seed.
            epoch: the epoch, from 0.

        Returns:
            Positions, and for each how often that image has come before in this epoch; both ``[num_images]``.
        """
        positions, repeats = [], []
        for number, members in enumerate(self._members):
            places = np.arange(epoch * self._each, (epoch + 1) * self._each)
            packs, within = np.divmod(places, len(members))
            drawn = np.empty(self._each, np.int64)
            for pack in range(int(packs[0]), int(packs[-1]) + 1):
                chosen = packs == pack
                # A number of its own for each class, apart from the epochs' own orders.
                order = permutation(seed ^ (number + 1 << 32), pack, len(members))
                drawn[chosen] = members[order[within[chosen]]]
            positions.append(drawn)
            repeats.append(_times_before(drawn))
        return np.concatenate(positions), np.concatenate(repeats)


def _times_before(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each value, the number of equal values before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    before = np.empty(len(values), np.int64)
    before[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return before


def describe_unevenness(dataset: ImageDataset) -> str:
    """Describe how unequal the classes are; empty unless the largest has at least four times as many images.

    Args:
        dataset: the images to train on.
    """
    counts = dataset.labels.bincount(minlength=dataset.num_classes).tolist()
    largest, smallest = (max(counts), min(counts)) if counts else (0, 0)
    if largest < _LARGE * max(1, smallest):
        return ""
    names = [f"{dataset.classes[counts.index(count)]} {count:,}" for count in (largest, smallest)]
    return (
        f"the classes have from {smallest:,} to {largest:,} training images ({names[1]}, {names[0]}), so that the "
        "network may never predict a small one; --data.balance sampling draws every class equally often"
    )
