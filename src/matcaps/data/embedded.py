"""The slice of Fashion-MNIST that comes with the package, for use without a download."""

from pathlib import Path

import torch

from matcaps.data.dataset import ImageDataset
from matcaps.data.idx import read_idx
from matcaps.data.mnist import CLASSES

FOLDER = Path(__file__).parent / "embedded_slice"
"""The folder of the slice; its README.md describes its origin and licence."""

PARTS = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz", "indices-idx1-int.gz")
"""The files of a split, after ``train-`` or ``test-``."""


def load_embedded(split: str) -> ImageDataset:
    """The embedded slice: 5,000 training and 1,000 test images, as many of each class.

    Args:
        split: ``"train"``, from Fashion-MNIST's official training images, or ``"test"``, from its test images.

    Returns:
        Images ``[N, 1, 28, 28]``; ``indices`` are positions in the official Fashion-MNIST files.

    Raises:
        ValueError: a file is damaged.
    """
    images, labels, indices = (torch.tensor(read_idx(FOLDER / f"{split}-{part}")) for part in PARTS)
    return ImageDataset(
        name="embedded",
        split=split,
        images=images[:, None],
        labels=labels.to(torch.int64),
        classes=CLASSES["fashion-mnist"],
        indices=indices.to(torch.int64),
        origin="a slice of Fashion-MNIST that comes with matcaps",
    )
