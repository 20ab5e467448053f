import gzip
import hashlib

import pytest
import torch

from matcaps.data import DataSettings, ImageDataset, SplitSettings, TransformSettings, load_data, load_embedded
from matcaps.data.embedded import FOLDER, PARTS


def test_embedded_slice_is_what_its_readme_says():
    readme = (FOLDER / "README.md").read_text()
    total = 0
    for split, count in (("train", 5000), ("test", 1000)):
        dataset = load_embedded(split)
        assert dataset.images.shape == (count, 1, 28, 28)
        assert dataset.labels.bincount().tolist() == [count // 10] * 10
        assert torch.equal(dataset.indices, dataset.indices.unique())
        assert dataset.indices.max() < {"train": 60_000, "test": 10_000}[split]
        for part in PARTS:
            content = (FOLDER / f"{split}-{part}").read_bytes()
            total += len(content)
            assert hashlib.sha256(content).hexdigest() in readme
            assert hashlib.sha256(gzip.decompress(content)).hexdigest() in readme
    assert total <= 3_000_000
    assert "MIT License" in readme


def test_no_embedded_test_image_is_trained_on():
    train, test = load_embedded("train"), load_embedded("test")
    assert not {i.numpy().tobytes() for i in train.images} & {i.numpy().tobytes() for i in test.images}


def test_defaults_need_nothing_but_the_package():
    bundle = load_data(DataSettings(), seed=4)
    assert (len(bundle.train), bundle.validation, len(bundle.test)) == (5000, None, 1000)
    assert (bundle.num_channels, bundle.image_size, len(bundle.classes)) == (1, 28, 10)
    assert bundle.settings.transform.is_resolved
    batch = next(iter(bundle.loader("train")))
    assert batch.images.shape == (32, 1, 28, 28)
    assert 0 <= batch.images.min() <= batch.images.max() <= 1
    assert bundle.loader("train", rank=1, world_size=2, batch_size=50).batch_sampler.rank == 1
    with pytest.raises(ValueError, match="it has no 'validation'"):
        bundle.loader("validation")


def test_limits_and_validation():
    settings = DataSettings(max_train_images=200, max_test_images=50, split=SplitSettings(validation_fraction=0.1))
    bundle = load_data(settings)
    assert bundle.train.labels.bincount().tolist() == [20] * 10
    assert bundle.test.labels.bincount().tolist() == [5] * 10
    assert bundle.validation.labels.bincount().tolist() == [5] * 10
    assert not set(bundle.train.indices.tolist()) & set(bundle.validation.indices.tolist())
    # A different run's seed keeps the split.
    assert torch.equal(load_data(settings, seed=1).train.indices, bundle.train.indices)


@pytest.mark.filterwarnings("ignore:.*checksum differs from the published:UserWarning")
def test_smallnorb(norb_root):
    bundle = load_data(DataSettings("smallnorb", str(norb_root), batch_size=8))
    assert (len(bundle.train), len(bundle.test), bundle.num_channels, bundle.image_size) == (20, 20, 2, 32)
    assert next(iter(bundle.loader("train"))).images.shape == (8, 2, 32, 32)
    other = DataSettings("smallnorb", str(norb_root), image_size=24, transform=TransformSettings(crop=16))
    assert load_data(other).image_size == 16
    # Only the part that is used must be there.
    for path in (norb_root / "smallnorb").glob("*training*"):
        path.unlink()
    split = SplitSettings("instance", "test", test_instances=(0,))
    alone = load_data(DataSettings("smallnorb", str(norb_root), split=split))
    assert set(alone.test.attributes["instance"].tolist()) == {0}
    with pytest.raises(FileNotFoundError, match="matcaps data fetch smallnorb"):
        load_data(DataSettings("smallnorb", str(norb_root)))


@pytest.mark.filterwarnings("ignore:.*checksum differs from the published:UserWarning")
def test_mnist_root_from_the_environment(mnist_root, monkeypatch):
    monkeypatch.setenv("MATCAPS_DATA", str(mnist_root))
    bundle = load_data(DataSettings("mnist", transform=TransformSettings(max_shift=2)))
    assert (len(bundle.train), len(bundle.test)) == (30, 20)
    assert bundle.transform.settings.max_shift == 2


def test_datasets_check_what_they_are_given():
    images, labels, indices = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 1]), torch.arange(3)
    good = ImageDataset("x", "train", images, labels, ("a", "b"), indices)
    assert len(good) == 3
    assert good.subset(torch.tensor([2, 0])).indices.tolist() == [2, 0]
    assert good.subset(torch.tensor([True, False, True])).labels.tolist() == [0, 1]
    assert good.subset(torch.tensor([], dtype=torch.int64)).images.shape == (0, 1, 4, 4)
    for changed, reason in (
        ({"images": images.float()}, "images must be uint8"),
        ({"images": images[0]}, "images must be uint8"),
        ({"images": images[..., :3]}, "images must be square; got 4 rows and 3 columns"),
        ({"labels": labels[:2]}, r"labels must be int64 of shape \[3\]"),
        ({"labels": labels.int()}, "labels must be int64"),
        ({"labels": labels + 1}, r"labels must lie in 0..1, .* got 1..2"),
        ({"indices": indices.float()}, "indices must be int64"),
        ({"attributes": {"elevation": indices[:1]}}, "elevation must be int64"),
    ):
        values = {"images": images, "labels": labels, "classes": ("a", "b"), "indices": indices} | changed
        with pytest.raises(ValueError, match=reason):
            ImageDataset("x", "train", **values)
