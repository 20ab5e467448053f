import gzip
import shutil

import numpy as np
import pytest
import torch

from matcaps.data import data_root, load_mnist
from matcaps.data.idx import read_idx, write_idx
from matcaps.data.mnist import CLASSES


def test_images_labels_and_a_warning_for_other_contents(mnist_root):
    with pytest.warns(UserWarning, match="checksum differs from the published one"):
        dataset = load_mnist(mnist_root, "train")
    assert dataset.images.shape == (30, 1, 28, 28)
    assert dataset.images.dtype == torch.uint8
    assert np.array_equal(dataset.images[:, 0], read_idx(mnist_root / "mnist" / "train-images-idx3-ubyte.gz"))
    assert dataset.labels.tolist() == [i % 10 for i in range(30)]
    assert dataset.indices.tolist() == list(range(30))
    assert dataset.classes == tuple("0123456789")
    assert (dataset.image_size, dataset.num_channels, dataset.num_classes, dataset.split) == (28, 1, 10, "train")
    assert "differ" in dataset.origin


def test_uncompressed_files_count_too(mnist_root):
    for path in (mnist_root / "mnist").glob("t10k*"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    with pytest.warns(UserWarning, match="checksum differs"):
        assert len(load_mnist(mnist_root, "test")) == 20


def test_missing_files_are_named_with_the_command(mnist_root):
    (mnist_root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(mnist_root, "test")
    message = str(caught.value)
    assert "missing t10k-labels-idx1-ubyte.gz" in message
    assert f"matcaps data fetch mnist --root {mnist_root}" in message
    assert "t10k-images" not in message


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("train-images-idx3-ubyte.gz", np.zeros((30, 28, 27), np.uint8), r"must hold uint8 images \[N, 28, 28\]"),
        ("train-labels-idx1-ubyte.gz", np.zeros(29, np.uint8), "must hold 30 uint8 labels"),
        ("train-labels-idx1-ubyte.gz", np.full(30, 10, np.uint8), "at most 10"),
        ("train-labels-idx1-ubyte.gz", np.zeros(30, np.int32), "int32"),
    ],
)
def test_wrong_contents_are_refused(mnist_root, name, array, reason):
    write_idx(mnist_root / "mnist" / name, array)
    with pytest.raises(ValueError, match=reason):
        load_mnist(mnist_root, "train")


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("MATCAPS_DATA", str(tmp_path / "from-environment"))
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root() == tmp_path / "from-environment"
    assert data_root("") == tmp_path / "from-environment"
    monkeypatch.delenv("MATCAPS_DATA")
    assert data_root().is_absolute()
    assert "matcaps" in str(data_root())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root("~/sets") == tmp_path / "sets"


def test_real_mnist(real_root, tmp_path):
    train, test = load_mnist(real_root, "train"), load_mnist(real_root, "test")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert "checksums as published" in train.origin
    # The same, from uncompressed files.
    (tmp_path / "mnist").mkdir()
    for path in (real_root / "mnist").glob("t10k*.gz"):
        with gzip.open(path) as source, (tmp_path / "mnist" / path.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    assert torch.equal(load_mnist(tmp_path, "test").images, test.images)


def test_fashion_classes():
    assert len(CLASSES["fashion-mnist"]) == 10
