"""Small files in the published formats, written here; and the real sets, where this machine has them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from matcaps.data import ImageDataset
from matcaps.data.idx import write_idx
from tests.support.norb import norb_labels, write_small_norb


@pytest.fixture
def norb_root(tmp_path: Path) -> Path:
    """A data root with a smallNORB of 20 pairs in each part: training compressed, testing not."""
    return write_small_norb(tmp_path)


@pytest.fixture
def mnist_root(tmp_path: Path) -> Path:
    """A data root with an MNIST of 30 training and 20 test images."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    random = np.random.default_rng(3)
    for prefix, count in (("train", 30), ("t10k", 20)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


@pytest.fixture
def make_dataset():
    """A maker of small random datasets, with smallNORB's labels if asked for."""

    def make(
        count: int = 20, channels: int = 2, size: int = 48, *, split: str = "train", norb: bool = False
    ) -> ImageDataset:
        generator = torch.Generator().manual_seed(count + size)
        attributes = {}
        labels = torch.arange(count) % 5
        if norb:
            category, info = norb_labels(split, views=18)
            count, labels = len(category), torch.tensor(category, dtype=torch.int64)
            columns = zip(("instance", "elevation", "azimuth", "lighting"), info.T, strict=True)
            attributes = {name: torch.tensor(values, dtype=torch.int64) for name, values in columns}
        images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
        return ImageDataset(
            "smallnorb" if norb else "random", split, images, labels, tuple("abcde"), torch.arange(count), attributes
        )

    return make


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The real MNIST and smallNORB, if the environment variable MATCAPS_TEST_DATA says where they are."""
    given = os.environ.get("MATCAPS_TEST_DATA")
    if not given:
        pytest.skip("MATCAPS_TEST_DATA is not set: no real MNIST and smallNORB to test with")
    root = Path(given)
    if not (root / "mnist").is_dir() or not (root / "smallnorb").is_dir():
        pytest.skip(f"MATCAPS_TEST_DATA={given} holds no mnist and smallnorb")
    return root
