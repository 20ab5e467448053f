import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matcaps.data import ImageDataset, SplitSettings, load_data, load_mnist, load_smallnorb, split_dataset
from matcaps.data.settings import DataSettings
from matcaps.data.splits import balanced_choice, limit_images, stratified_fraction


def identities(part):
    return set() if part is None else {(part.split, int(index)) for index in part.indices}


def assert_nothing_tested_is_trained_on(split):
    train, validation = identities(split.train), identities(split.validation)
    tests = identities(split.test) | identities(split.familiar_test)
    assert len(tests) == len(split.test) + (len(split.familiar_test) if split.familiar_test else 0)
    assert not train & tests
    assert not validation & tests
    assert not train & validation
    assert len(train) == len(split.train)


@pytest.fixture(scope="module")
def norb(request):
    """smallNORB's labels in full, with pixels of one by one: 4,050 of each part."""

    def part(split):
        instances = {"train": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}[split]
        grids = torch.cartesian_prod(torch.arange(5), torch.tensor(instances), torch.arange(9), torch.arange(0, 36, 2))
        names = ("category", "instance", "elevation", "azimuth")
        attributes = {name: column.contiguous() for name, column in zip(names, grids.T, strict=True)}
        pixels = torch.arange(len(grids)).remainder(256).to(torch.uint8).reshape(-1, 1, 1, 1)
        return ImageDataset(
            "smallnorb", split, pixels, attributes["category"], tuple("abcde"), torch.arange(len(grids)), attributes
        )

    return part("train"), part("test")


subsets = st.lists(st.integers(0, 9), unique=True, max_size=5).map(tuple)
rules = st.builds(
    dict,
    rule=st.sampled_from(["official", "instance", "elevation", "azimuth"]),
    source=st.sampled_from(["both", "train", "test"]),
    train_instances=subsets,
    validation_instances=subsets,
    test_instances=subsets,
    train_elevations=st.lists(st.integers(0, 8), unique=True, min_size=1).map(tuple),
    train_azimuths=st.lists(st.sampled_from(range(0, 36, 2)), unique=True, min_size=1).map(tuple),
    validation_fraction=st.sampled_from([0.0, 0.1, 0.5, 0.99]),
    seed=st.integers(-5, 5),
)


@given(rules)
@settings(max_examples=150, deadline=None)
def test_no_test_image_is_ever_trained_on(norb, values):
    """Any rule that is accepted at all: parts share no image, and hold what the rule says."""
    try:
        rule = SplitSettings(**values)
        split = split_dataset(*norb, rule)
    except ValueError:
        return
    assert_nothing_tested_is_trained_on(split)
    if rule.rule in ("elevation", "azimuth"):
        chosen = set(rule.train_elevations if rule.rule == "elevation" else rule.train_azimuths)
        assert set(split.train.attributes[rule.rule].tolist()) <= chosen
        assert not set(split.test.attributes[rule.rule].tolist()) & chosen
    if rule.source == "both":
        assert split.train.split == "train"
        assert split.test.split == "test"
    elif rule.test_instances:
        assert not set(split.train.attributes["instance"].tolist()) & set(rule.test_instances)
    if rule.train_instances:
        assert set(split.train.attributes["instance"].tolist()) <= set(rule.train_instances)
    if rule.validation_instances:
        assert not set(split.train.attributes["instance"].tolist()) & set(rule.validation_instances)


def test_papers_viewpoints(norb):
    elevation = split_dataset(*norb, SplitSettings("elevation"))
    assert elevation.train.attributes["elevation"].unique().tolist() == [0, 1, 2]
    assert elevation.test.attributes["elevation"].unique().tolist() == [3, 4, 5, 6, 7, 8]
    assert elevation.familiar_test.attributes["elevation"].unique().tolist() == [0, 1, 2]
    assert (len(elevation.train), len(elevation.test), len(elevation.familiar_test)) == (1350, 2700, 1350)
    azimuth = split_dataset(*norb, SplitSettings("azimuth"))
    assert azimuth.train.attributes["azimuth"].unique().tolist() == [0, 2, 4, 30, 32, 34]
    assert azimuth.test.attributes["azimuth"].unique().tolist() == list(range(6, 30, 2))


def test_viewpoints_from_the_test_part_alone(norb):
    rule = SplitSettings("azimuth", "test", test_instances=(3, 5), validation_instances=(2,))
    split = split_dataset(None, norb[1], rule)
    assert split.train.attributes["instance"].unique().tolist() == [0, 1]
    assert split.validation.attributes["instance"].unique().tolist() == [2]
    assert split.test.attributes["instance"].unique().tolist() == [3, 5]
    assert split.familiar_test.attributes["instance"].unique().tolist() == [3, 5]


def test_known_objects_from_new_viewpoints(norb):
    split = split_dataset(norb[0], None, SplitSettings("elevation", "train"))
    assert split.familiar_test is None
    assert len(split.train) + len(split.test) == len(norb[0])


def test_validation_by_instance_and_fraction(norb):
    split = split_dataset(*norb, SplitSettings(validation_instances=(9,)))
    assert split.validation.attributes["instance"].unique().tolist() == [9]
    assert len(split.train) == 4 * len(split.validation)
    split = split_dataset(*norb, SplitSettings(validation_fraction=0.1))
    assert split.validation.labels.bincount().tolist() == [81] * 5
    assert len(split.train) + len(split.validation) == len(norb[0])
    other = split_dataset(*norb, SplitSettings(validation_fraction=0.1, seed=1))
    assert identities(other.validation) != identities(split.validation)
    again = split_dataset(*norb, SplitSettings(validation_fraction=0.1))
    assert identities(again.validation) == identities(split.validation)


def test_official(norb):
    split = split_dataset(*norb, SplitSettings())
    assert split.train is norb[0]
    assert split.test is norb[1]
    assert split.validation is None
    assert split.familiar_test is None


def test_refusals(norb, make_dataset):
    train, test = norb
    with pytest.raises(ValueError, match="no image is left to train"):
        split_dataset(train, test, SplitSettings(train_instances=(0,)))
    with pytest.raises(ValueError, match="no image is left to test"):
        split_dataset(train, test, SplitSettings(test_instances=(4,)))
    with pytest.raises(ValueError, match="no image is left to validation"):
        split_dataset(train, test, SplitSettings(validation_instances=(0,)))
    with pytest.raises(ValueError, match="official part that was not given"):
        split_dataset(None, test, SplitSettings())
    with pytest.raises(ValueError, match="labels that random does not have"):
        split_dataset(make_dataset(), make_dataset(split="test"), SplitSettings("elevation"))
    unknown = dict(train.attributes) | {"azimuth": torch.full((len(train),), -1)}
    blind = ImageDataset("smallnorb", "train", train.images, train.labels, train.classes, train.indices, unknown)
    with pytest.raises(ValueError, match=r"azimuth of every image; it is unknown \(-1\) for 4,050 of the 4,050"):
        split_dataset(blind, test, SplitSettings("azimuth"))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 70), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_balanced_choice(labels, count, seed):
    labels = torch.tensor(labels)
    chosen = balanced_choice(labels, count, seed)
    assert len(chosen) == min(count, len(labels))
    assert torch.equal(chosen, chosen.unique())
    # No class that has more to give is two behind another.
    counts, available = labels[chosen].bincount(minlength=5), labels.bincount(minlength=5)
    for label in range(5):
        assert counts[label] == available[label] or counts[label] >= counts.max() - 1
    assert set(balanced_choice(labels, count // 2, seed).tolist()) <= set(chosen.tolist())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 0.999), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_stratified_fraction(labels, fraction, seed):
    labels = torch.tensor(labels)
    chosen = stratified_fraction(labels, fraction, seed)
    for label in labels.unique():
        size = int((labels == label).sum())
        assert int(chosen[labels == label].sum()) == min(round(fraction * size), size - 1)


def test_limit(norb):
    limited = limit_images(norb[0], 101, 0)
    assert sorted(limited.labels.bincount().tolist()) == [20, 20, 20, 20, 21]
    assert "101 of 4,050" in limited.origin
    assert limit_images(norb[0], None, 0) is norb[0]


@pytest.mark.filterwarnings("ignore:.*checksum differs from the published:UserWarning")
def test_no_test_image_is_trained_on_in_the_real_sets(real_root):
    train, test = load_smallnorb(real_root, "train"), load_smallnorb(real_root, "test")
    for rule in (
        SplitSettings(validation_fraction=0.1),
        SplitSettings(validation_instances=(9,)),
        SplitSettings("elevation"),
        SplitSettings("azimuth", "test", train_instances=(0, 1, 2), test_instances=(3, 5)),
        SplitSettings("instance", "test", test_instances=(5,)),
    ):
        assert_nothing_tested_is_trained_on(split_dataset(train, test, rule))
    with pytest.raises(ValueError, match="azimuth of every image"):
        split_dataset(train, test, SplitSettings("azimuth"))
    # Nor under another name: no test picture equals a training picture, pixel for pixel.
    assert not {image.numpy().tobytes() for image in train.images} & {image.numpy().tobytes() for image in test.images}
    mnist = [load_mnist(real_root, split) for split in ("train", "test")]
    assert not {i.numpy().tobytes() for i in mnist[0].images} & {i.numpy().tobytes() for i in mnist[1].images}
    bundle = load_data(DataSettings("mnist", str(real_root), split=SplitSettings(validation_fraction=0.1)))
    assert_nothing_tested_is_trained_on(bundle)


def test_published_sets_keep_their_divisions_bit_for_bit():
    digests = []
    for chosen in (
        DataSettings(split=SplitSettings(validation_fraction=0.1)),
        DataSettings(max_train_images=333, max_test_images=77, split=SplitSettings(validation_fraction=0.25, seed=7)),
    ):
        bundle = load_data(chosen)
        for part in (bundle.train, bundle.validation, bundle.test):
            assert part is not None
            digests.append(hashlib.sha256(part.indices.numpy().tobytes()).hexdigest()[:16])
    assert digests == [
        *("48bd70cc8ae7f481", "57fa672d710a9375", "086af9e5f94aecad"),
        *("478807c275e0f177", "30644cc31c1f4f8f", "9297c696b5ea2801"),
    ]
