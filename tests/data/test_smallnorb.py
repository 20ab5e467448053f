import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
import torch

from matcaps.data import load_smallnorb, read_norb_matrix
from matcaps.data.averaging import average_blocks
from matcaps.data.sources import SMALLNORB_STEMS

MAGIC = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54, "float32": 0x1E3D4C51}


def norb_bytes(array):
    """An array in NORB's binary matrix format: at least three sizes are stored."""
    sizes = array.shape + (1,) * max(0, 3 - array.ndim)
    return struct.pack(f"<Ii{len(sizes)}i", MAGIC[array.dtype.name], array.ndim, *sizes) + array.tobytes()


pytestmark = pytest.mark.filterwarnings("ignore:.*checksum differs from the published:UserWarning")


@pytest.mark.parametrize("array", [np.arange(7, dtype="<i4"), np.ones((2, 3), "<f4"), np.zeros((2, 2, 3, 4), "u1")])
@pytest.mark.parametrize("compressed", [False, True])
def test_matrix_round_trip(tmp_path, array, compressed):
    content = norb_bytes(array)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if compressed else content)
    digest = hashlib.md5()
    read = read_norb_matrix(path, digest=digest)
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    assert digest.hexdigest() == hashlib.md5(content).hexdigest()


GOOD = norb_bytes(np.arange(7, dtype="<i4"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected 8 more bytes"),
        (b"\x00" * 40, "expected a magic number among .*, got 00000000"),
        (GOOD[:3] + b"\x00" + GOOD[4:], "magic number"),
        # 0x1E3D4C52 is the format's "packed matrix", which smallNORB does not use.
        (struct.pack("<Ii3i", 0x1E3D4C52, 1, 7, 1, 1) + b"\x00" * 28, "got 1E3D4C52"),
        (struct.pack("<Ii3i", 0x1E3D4C54, 0, 7, 1, 1), "1 to 8 dimensions, got 0"),
        (struct.pack("<Ii3i", 0x1E3D4C54, 99, 7, 1, 1), "1 to 8 dimensions, got 99"),
        (struct.pack("<Ii3i", 0x1E3D4C54, 1, -7, 1, 1), "sizes of 0 or more"),
        (GOOD[:12], "more bytes, got"),
        (GOOD[:-1], "expected 48 bytes for .*, got 47"),
        (GOOD + b"\x00", "expected 48 bytes for .*, got 49"),
        (gzip.compress(GOOD[:-1], mtime=0), "expected 28 more bytes, got 27"),
        (gzip.compress(GOOD + b"\x00", mtime=0), "longer than its header says"),
        (gzip.compress(GOOD, mtime=0)[:-10], "compression is damaged"),
        (gzip.compress(struct.pack("<Ii3i", 0x1E3D4C54, 3, 2**30, 2**30, 2**30), mtime=0), "more bytes, got 0"),
    ],
)
def test_malformed_matrices_are_refused(tmp_path, content, reason):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_norb_matrix(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("block", [1, 2, 3, 4, 8, 16, 32, 48, 96])
def test_averages_are_the_nearest_grey_level(block):
    images = np.random.default_rng(0).integers(0, 256, (6, 2, 96, 96), dtype=np.uint8)
    exact = images.reshape(6, 2, 96 // block, block, 96 // block, block).mean(axis=(-3, -1), dtype=np.float64)
    assert np.array_equal(average_blocks(images, block), np.rint(exact))  # rint takes halves to even, too
    assert np.array_equal(average_blocks(images[..., ::-1], block), np.rint(exact)[..., ::-1])


@pytest.mark.parametrize("split", ["train", "test"])
def test_everything_is_exposed(norb_root, split):
    dataset = load_smallnorb(norb_root, split)
    folder, stem = norb_root / "smallnorb", SMALLNORB_STEMS[split]
    ending = ".mat.gz" if split == "train" else ".mat"
    images, category, info = (read_norb_matrix(folder / f"{stem}-{kind}{ending}") for kind in ("dat", "cat", "info"))
    assert dataset.images.shape == (20, 2, 48, 48)
    assert np.array_equal(dataset.images, average_blocks(images, 2))
    assert torch.equal(dataset.labels, dataset.attributes["category"])
    assert dataset.labels.tolist() == category.tolist()
    for column, name in enumerate(("instance", "elevation", "azimuth", "lighting")):
        assert dataset.attributes[name].tolist() == info[:, column].tolist()
    assert dataset.classes == ("animal", "human", "plane", "truck", "car")
    assert dataset.split == split
    assert load_smallnorb(norb_root, split, size=96).images.shape[-1] == 96


def test_other_contents_are_used_with_a_warning(norb_root):
    with pytest.warns(UserWarning, match=r"training-dat.mat.gz.*checksum differs.*not results on the published"):
        dataset = load_smallnorb(norb_root, "train")
    assert "checksums differ" in dataset.origin


def test_a_read_only_folder_is_enough(norb_root):
    folder = norb_root / "smallnorb"
    before = sorted(os.listdir(folder))
    folder.chmod(0o555)
    try:
        load_smallnorb(norb_root, "test")
    finally:
        folder.chmod(0o755)
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("kind", ["dat", "cat", "info"])
def test_missing_files_are_named_with_the_command(norb_root, kind):
    name = f"{SMALLNORB_STEMS['train']}-{kind}.mat.gz"
    (norb_root / "smallnorb" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"matcaps data fetch smallnorb --root {norb_root}") as caught:
        load_smallnorb(norb_root, "train")
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "array", "reason"),
    [
        ("cat", np.zeros((20, 1), "<i4"), r"expected int32 \[N\]"),
        ("cat", np.full(20, 5, "<i4"), "expected category among .* got 5"),
        ("cat", np.zeros(20, "<f4"), "got float32"),
        ("cat", np.zeros(19, "<i4"), r"expected int32 \[19, 4\]"),
        ("info", np.zeros((20, 3), "<i4"), r"expected int32 \[20, 4\]"),
        ("info", np.full((20, 4), 9, "<i4"), "expected elevation among"),
        ("info", np.full((20, 4), 1, "<i4"), "expected azimuth among"),
        ("dat", np.zeros((20, 2, 96, 95), "u1"), r"expected uint8 \[20, 2, 96, 96\]"),
        ("dat", np.zeros((19, 2, 96, 96), "u1"), r"expected uint8 \[20, 2, 96, 96\]"),
    ],
)
def test_wrong_contents_are_refused(norb_root, kind, array, reason):
    path = norb_root / "smallnorb" / f"{SMALLNORB_STEMS['test']}-{kind}.mat"
    path.write_bytes(norb_bytes(array))
    with pytest.raises(ValueError, match=reason):
        load_smallnorb(norb_root, "test")


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\x00"])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_and_too_long_images_are_refused(norb_root, change, compressed):
    path = norb_root / "smallnorb" / f"{SMALLNORB_STEMS['test']}-dat.mat"
    content = change(path.read_bytes())
    path.write_bytes(gzip.compress(content, 1) if compressed else content)
    with pytest.raises(ValueError, match="malformed"):
        load_smallnorb(norb_root, "test")


def test_unknown_azimuth_is_kept(norb_root):
    path = norb_root / "smallnorb" / f"{SMALLNORB_STEMS['test']}-info.mat"
    info = read_norb_matrix(path).copy()
    info[:, 2] = -1
    path.write_bytes(norb_bytes(info))
    assert load_smallnorb(norb_root, "test").attributes["azimuth"].unique().tolist() == [-1]


def test_size_must_divide(norb_root):
    with pytest.raises(ValueError, match="divisor of 96; got 50"):
        load_smallnorb(norb_root, "test", size=50)


def test_real_smallnorb(real_root):
    dataset = load_smallnorb(real_root, "test")
    assert dataset.images.shape == (24_300, 2, 48, 48)
    assert dataset.labels.bincount().tolist() == [4860] * 5
    attributes = dataset.attributes
    assert attributes["instance"].unique().tolist() == [0, 1, 2, 3, 5]
    assert attributes["elevation"].unique().tolist() == list(range(9))
    assert attributes["azimuth"].unique().tolist() == list(range(0, 36, 2))
    assert attributes["lighting"].unique().tolist() == list(range(6))
    # Every combination exactly once.
    combined = torch.stack([attributes[name] for name in ("category", "instance", "elevation", "azimuth", "lighting")])
    assert len(combined.unique(dim=1).T) == 24_300
