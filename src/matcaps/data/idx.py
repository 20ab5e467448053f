"""The idx format of MNIST: a big-endian array with a small header, perhaps compressed."""

import gzip
import hashlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from matcaps._paths import named_errors

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 22


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed, by its first bytes and not by its name."""
    with named_errors(path), path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def open_maybe_gzip(path: Path) -> BinaryIO:
    """A file's contents, decompressed on the way if the file is compressed."""
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")


def damaged(path: Path, reason: str) -> ValueError:
    """The error for a file that is not what it should be."""
    return ValueError(f"{path} is malformed: {reason}: delete it and fetch it again")


DECOMPRESSION_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)


def read_exactly(file: BinaryIO, count: int, path: Path) -> bytes:
    """The next ``count`` bytes; a clear error if there are fewer. Never asks for memory that the file cannot fill.

    Raises:
        ValueError: the file ends early or its compression is damaged.
    """
    parts, missing = [], count
    try:
        while missing:
            part = file.read(min(missing, _CHUNK))
            if not part:
                raise damaged(path, f"expected {count:,} more bytes, got {count - missing:,}")
            parts.append(part)
            missing -= len(part)
    except DECOMPRESSION_ERRORS as error:
        raise damaged(path, f"its compression is damaged ({error})") from error
    return b"".join(parts)


def expect_end(file: BinaryIO, path: Path) -> None:
    """Raise an error if the file has more bytes.

    Raises:
        ValueError: the file is longer than its header says.
    """
    try:
        if file.read(1):
            raise damaged(path, "it is longer than its header says")
    except DECOMPRESSION_ERRORS as error:
        raise damaged(path, f"its compression is damaged ({error})") from error


def read_idx(path: str | os.PathLike[str], *, digest: "hashlib._Hash | None" = None) -> NDArray[np.generic]:
    """The array in an idx file.

    Args:
        path: the file, compressed with gzip or not; its name does not matter.
        digest: if given, is updated with the file's uncompressed contents.

    Returns:
        An array of the shape and dtype that the header gives, in native byte order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no idx file, ends early, goes on too long or is damaged.
    """
    path = Path(path)
    with named_errors(path), open_maybe_gzip(path) as file:
        start = read_exactly(file, 4, path)
        zero, code, ndim = struct.unpack(">HBB", start)
        if zero != 0 or code not in _DTYPES or not 1 <= ndim <= 8:
            raise damaged(path, f"expected an idx header such as 00 00 08 03, got {start.hex(' ')}")
        header = read_exactly(file, 4 * ndim, path)
        shape = struct.unpack(f">{ndim}I", header)
        dtype = np.dtype(_DTYPES[code])
        body = read_exactly(file, math.prod(shape) * dtype.itemsize, path)
        expect_end(file, path)
    if digest is not None:
        for part in (start, header, body):
            digest.update(part)
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: str | os.PathLike[str], array: NDArray[np.generic]) -> None:
    """Write an array as a compressed idx file; the same array always gives the same bytes.

    Args:
        path: the file to write.
        array: of uint8 or int32.
    """
    code = {np.dtype("u1"): 0x08, np.dtype("i4"): 0x0C}[array.dtype]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    body = np.ascontiguousarray(array, dtype=_DTYPES[code]).tobytes()
    Path(path).write_bytes(gzip.compress(header + body, compresslevel=9, mtime=0))
