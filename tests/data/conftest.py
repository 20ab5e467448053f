"""Small files in the published formats, written here; and the real sets, where this machine has them."""

import gzip
import itertools
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from matcaps.data import ImageDataset
from matcaps.data.idx import write_idx
from matcaps.data.sources import SMALLNORB_STEMS

INSTANCES = {"train": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}
MAGIC = {np.dtype("u1"): 0x1E3D4C55, np.dtype("<i4"): 0x1E3D4C54, np.dtype("<f4"): 0x1E3D4C51}


def norb_bytes(array: np.ndarray) -> bytes:
    """An array in NORB's binary matrix format: at least three sizes are stored."""
    sizes = array.shape + (1,) * max(0, 3 - array.ndim)
    header = struct.pack("<Ii", MAGIC[array.dtype], array.ndim) + struct.pack(f"<{len(sizes)}i", *sizes)
    return header + array.tobytes()


def norb_labels(split: str, *, views: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Category [N] and info [N, 4] with every category, instance, elevation and some azimuths."""
    azimuths = range(0, 36, 36 // views if views > 1 else 36)
    rows = list(itertools.product(range(5), INSTANCES[split], range(9), azimuths))
    table = np.array(rows, dtype="<i4")
    lighting = np.arange(len(table), dtype="<i4") % 6
    return table[:, 0].copy(), np.column_stack([table[:, 1:], lighting]).astype("<i4")


@pytest.fixture
def norb_root(tmp_path: Path) -> Path:
    """A data root with a smallNORB of 20 pairs in each part: training compressed, testing not."""
    folder = tmp_path / "smallnorb"
    folder.mkdir()
    for number, (split, stem) in enumerate(SMALLNORB_STEMS.items()):
        category, info = (values[::11][:20].copy() for values in norb_labels(split))
        images = np.random.default_rng(number).integers(0, 256, (20, 2, 96, 96), dtype=np.uint8)
        for kind, array in (("cat", category), ("info", info), ("dat", images)):
            content = norb_bytes(array)
            name = f"{stem}-{kind}.mat"
            if split == "train":
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (folder / name).write_bytes(content)
    return tmp_path


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
