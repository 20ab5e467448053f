"""smallNORB: the published binary matrices, read in pieces and averaged on the way."""

import hashlib
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from matcaps._paths import named_errors
from matcaps.data.averaging import average_blocks
from matcaps.data.dataset import ImageDataset
from matcaps.data.files import describe_origin, find_files, new_md5
from matcaps.data.idx import damaged, expect_end, is_gzip, open_maybe_gzip, read_exactly
from matcaps.data.sources import SMALLNORB_STEMS, get_source

CLASSES = ("animal", "human", "plane", "truck", "car")
"""The five categories, by label."""

ATTRIBUTES = ("instance", "elevation", "azimuth", "lighting")
"""The columns of an ``info`` file."""

PUBLISHED_SIZE = 96
"""Rows and columns of a published image."""

_DTYPES = {
    0x1E3D4C51: "<f4",
    0x1E3D4C53: "<f8",
    0x1E3D4C54: "<i4",
    0x1E3D4C55: "u1",
    0x1E3D4C56: "<i2",
}
_IMAGES_AT_ONCE = 64  # 1.2 MB: stays in the processor's cache
# What each column may hold; -1 stands for unknown.
_ALLOWED = {
    "category": range(5),
    "instance": range(10),
    "elevation": range(-1, 9),
    "azimuth": (-1, *range(0, 36, 2)),
    "lighting": range(-1, 6),
}


def _read_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype, bytes]:
    start = read_exactly(file, 8, path)
    magic, ndim = struct.unpack("<Ii", start)
    if magic not in _DTYPES:
        known = ", ".join(f"{value:08X}" for value in _DTYPES)
        raise damaged(path, f"expected a magic number among {known}, got {magic:08X}")
    if not 1 <= ndim <= 8:
        raise damaged(path, f"expected 1 to 8 dimensions, got {ndim}")
    # At least three sizes are stored, whatever the number of dimensions.
    sizes = read_exactly(file, 4 * max(3, ndim), path)
    shape = struct.unpack(f"<{max(3, ndim)}i", sizes)[:ndim]
    if min(shape) < 0:
        raise damaged(path, f"expected sizes of 0 or more, got {list(shape)}")
    dtype = np.dtype(_DTYPES[magic])
    if not is_gzip(path):
        expected = len(start) + len(sizes) + math.prod(shape) * dtype.itemsize
        if path.stat().st_size != expected:
            raise damaged(path, f"expected {expected:,} bytes for {list(shape)}, got {path.stat().st_size:,}")
    return shape, dtype, start + sizes


def read_norb_matrix(path: str | os.PathLike[str], *, digest: "hashlib._Hash | None" = None) -> NDArray[np.generic]:
    """The array in a file of NORB's binary matrix format.

    Args:
        path: the file, compressed with gzip or not; its name does not matter.
        digest: if given, is updated with the file's uncompressed contents.

    Returns:
        An array of the shape and dtype that the header gives.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the magic number is unknown, or the file ends early, goes on too long or is damaged.
    """
    path = Path(path)
    with named_errors(path), open_maybe_gzip(path) as file:
        shape, dtype, header = _read_header(file, path)
        body = read_exactly(file, math.prod(shape) * dtype.itemsize, path)
        expect_end(file, path)
    if digest is not None:
        digest.update(header)
        digest.update(body)
    return np.frombuffer(body, dtype).reshape(shape)


def _image_chunks(file: BinaryIO, path: Path, count: int) -> Iterator[bytes]:
    bytes_each = 2 * PUBLISHED_SIZE**2
    for start in range(0, count, _IMAGES_AT_ONCE):
        yield read_exactly(file, min(_IMAGES_AT_ONCE, count - start) * bytes_each, path)
    expect_end(file, path)


def _read_images(path: Path, count: int, size: int, digest: "hashlib._Hash") -> NDArray[np.uint8]:
    images = np.empty((count, 2, size, size), np.uint8)
    with named_errors(path), open_maybe_gzip(path) as file:
        shape, dtype, header = _read_header(file, path)
        if dtype != np.uint8 or shape != (count, 2, PUBLISHED_SIZE, PUBLISHED_SIZE):
            expected = f"uint8 [{count}, 2, {PUBLISHED_SIZE}, {PUBLISHED_SIZE}], as many as the category file has"
            raise damaged(path, f"expected {expected}, got {dtype} {list(shape)}")
        digest.update(header)
        position = 0
        for chunk in _image_chunks(file, path, count):
            digest.update(chunk)
            block = np.frombuffer(chunk, np.uint8).reshape(-1, 2, PUBLISHED_SIZE, PUBLISHED_SIZE)
            images[position : position + len(block)] = average_blocks(block, PUBLISHED_SIZE // size)
            position += len(block)
    return images


def load_smallnorb(root: str | Path | None, split: str, *, size: int = 48) -> ImageDataset:
    """smallNORB from ``ROOT/smallnorb``, each image pair as two channels, with all its labels.

    Memory stays close to that of the result (112 MB for a part at 48 pixels): the images are averaged as they are
    read. The checksum of the contents is computed on the way.

    Args:
        root: see :func:`matcaps.data.data_root`.
        split: ``"train"`` (instances 4, 6, 7, 8, 9) or ``"test"`` (instances 0, 1, 2, 3, 5).
        size: side of the images, a divisor of 96. Default 48 (Hinton et al. 2018, section 4).

    Returns:
        Images ``[N, 2, size, size]``, N 24,300 in the published files; labels are the category; attributes
        ``category``, ``instance``, ``elevation``, ``azimuth`` and ``lighting`` as in :class:`ImageDataset`.

    Raises:
        FileNotFoundError: files are missing; the message says how to get them.
        ValueError: a file is malformed.
    """
    if size < 1 or PUBLISHED_SIZE % size:
        raise ValueError(f"size must be a divisor of {PUBLISHED_SIZE}; got {size}: 48 is the paper's")
    files = [file for file in get_source("smallnorb").files if file.name.startswith(SMALLNORB_STEMS[split])]
    paths = find_files("smallnorb", files, root)
    digests = [new_md5() for _ in files]
    images_path, category_path, info_path = paths
    category = read_norb_matrix(category_path, digest=digests[1])
    if category.ndim != 1 or category.dtype != "<i4":
        raise damaged(category_path, f"expected int32 [N], got {category.dtype} {list(category.shape)}")
    info = read_norb_matrix(info_path, digest=digests[2])
    if info.shape != (len(category), 4) or info.dtype != "<i4":
        expected = f"int32 [{len(category)}, 4], a row for each category"
        raise damaged(info_path, f"expected {expected}, got {info.dtype} {list(info.shape)}")
    columns = {"category": category} | {name: info[:, i] for i, name in enumerate(ATTRIBUTES)}
    for name, values in columns.items():
        bad = values[~np.isin(values, list(_ALLOWED[name]))]
        if bad.size:
            path = category_path if name == "category" else info_path
            raise damaged(path, f"expected {name} among {', '.join(map(str, _ALLOWED[name]))}, got {bad[0]}")
    images = _read_images(images_path, len(category), size, digests[0])
    md5s = [digest.hexdigest() for digest in digests]
    attributes = {name: torch.tensor(values, dtype=torch.int64) for name, values in columns.items()}
    return ImageDataset(
        name="smallnorb",
        split=split,
        images=torch.from_numpy(images),
        labels=attributes["category"],
        classes=CLASSES,
        indices=torch.arange(len(images)),
        attributes=attributes,
        origin=describe_origin(f"smallnorb {split}", list(zip(files, paths, md5s, strict=True))),
    )
