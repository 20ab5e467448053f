"""smallNORB's files, in the published format and small."""

import gzip
import itertools
import struct
from pathlib import Path

import numpy as np

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


def write_small_norb(root: Path) -> Path:
    """A smallNORB of 20 pairs in each part in a data root: training compressed, testing not. Returns the root."""
    folder = root / "smallnorb"
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
    return root


def write_noise_norb(root: Path) -> Path:
    """A smallNORB of noise in a data root: every object at every elevation. Returns the root."""
    folder = root / "smallnorb"
    folder.mkdir()
    for seed, (split, stem) in enumerate(SMALLNORB_STEMS.items()):
        category, info = norb_labels(split)
        images = np.random.default_rng(seed).integers(0, 256, (len(category), 2, 96, 96), dtype=np.uint8)
        for kind, array in (("cat", category), ("info", info), ("dat", images)):
            (folder / f"{stem}-{kind}.mat").write_bytes(norb_bytes(array))
    return root
