import gzip
import hashlib
import struct

import numpy as np
import pytest

from matcaps.data import read_idx
from matcaps.data.idx import write_idx


def idx_bytes(array, code):
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_every_dtype_compressed_or_not_by_content(tmp_path, code, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    # The names are wrong on purpose: only the bytes count.
    (tmp_path / "plain.gz").write_bytes(idx_bytes(array, code))
    (tmp_path / "squeezed").write_bytes(gzip.compress(idx_bytes(array, code)))
    for name in ("plain.gz", "squeezed"):
        digest = hashlib.md5()
        read = read_idx(tmp_path / name, digest=digest)
        assert np.array_equal(read, array)
        assert read.dtype.isnative
        assert digest.hexdigest() == hashlib.md5(idx_bytes(array, code)).hexdigest()


def test_written_bytes_are_the_same_every_time(tmp_path):
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    for name in ("a", "b"):
        write_idx(tmp_path / name, array)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert np.array_equal(read_idx(tmp_path / "a"), array)


GOOD = idx_bytes(np.zeros((3, 5), np.uint8), 0x08)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected 4 more bytes"),
        (b"\x00\x00\x07\x01", "expected an idx header"),
        (b"PK\x03\x04 a zip file", "expected an idx header"),
        (b"\x00\x00\x08\x00", "expected an idx header"),
        (GOOD[:10], "more bytes, got"),
        (GOOD[:-1], "expected 15 more bytes, got 14"),
        (GOOD + b"\x00", "longer than its header says"),
        (gzip.compress(GOOD, mtime=0)[:-12], "compression is damaged"),
        (
            gzip.compress(GOOD, mtime=0)[:15] + b"\xff\xff\xff" + gzip.compress(GOOD, mtime=0)[18:],
            "compression is damaged",
        ),
        # A header that claims 256 TB must not be believed.
        (struct.pack(">HBB3I", 0, 8, 3, 2**16, 2**16, 2**16) + b"\x00", "more bytes, got"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, reason):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "fetch it again" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")
