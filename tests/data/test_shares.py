"""Shares of a folder: each image's part follows from its own content."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from matcaps.data import DataSettings, SplitSettings, load_data
from matcaps.data.shares import TEST, VALIDATION, drawn_share

PARTS = ("train", "validation", "test")

# As the version before content decided divided two classes of 60 images, a fifth to test and then a fifth to validate.
EARLIER_TEST = [
    *(4, 9, 16, 17, 21, 30, 32, 37, 39, 42, 52, 59),
    *(64, 66, 72, 81, 87, 91, 95, 99, 101, 104, 114, 117),
]
EARLIER_VALIDATION = [
    *(5, 11, 20, 22, 26, 38, 41, 47, 49, 53),
    *(65, 74, 79, 82, 85, 89, 102, 109, 113, 119),
]


def settings(root, **changes):
    changes = {"image_size": 16, "split": SplitSettings(validation_fraction=0.2)} | changes
    return DataSettings("folder", folder=str(root), **changes)


def add(root, random, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8)).save(root / name)


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def root(tmp_path, random):
    add(tmp_path, random, *(f"{name}/{number:03d}.png" for name in "ab" for number in range(60)))
    return tmp_path


def pictures(bundle):
    return {
        part: {image.numpy().tobytes() for image in getattr(bundle, part).images}
        for part in PARTS
        if getattr(bundle, part) is not None
    }


def test_an_image_more_or_less_moves_no_other(root, random):
    before = pictures(load_data(settings(root)))
    assert sum(map(len, before.values())) == 120
    add(root, random, "a/0000_new.png", "c/new.png", *(f"b/{number:03d}_new.png" for number in range(9)))
    (root / "a" / "030.png").unlink()
    shutil.move(root / "b" / "010.png", root / "b" / "zzz.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of class c there is one image alone
        after = pictures(load_data(settings(root)))
    for part in PARTS:
        for other in set(PARTS) - {part}:
            assert not before[part] & after[other]
    assert sum(map(len, after.values())) == 130


def test_shares_are_met_on_average():
    keys = torch.randint(-(2**63), 2**63 - 1, (40_000,), generator=torch.Generator().manual_seed(0))
    tests, validates = drawn_share(keys, 0.2, 5, TEST), drawn_share(keys, 0.1, 5, VALIDATION)
    assert float(tests.double().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(validates.double().mean()) == pytest.approx(0.1, abs=0.01)
    assert float((tests & validates).double().mean()) == pytest.approx(0.02, abs=0.005)
    assert not torch.equal(tests, drawn_share(keys, 0.2, 6, TEST))


def test_copies_of_a_picture_stand_in_one_part(root):
    for number in range(60):
        with Image.open(root / "a" / f"{number:03d}.png") as image:
            image.convert("RGB").save(root / "a" / f"copy{number:03d}.bmp")
    parts = pictures(load_data(settings(root)))
    for part in PARTS:
        for other in set(PARTS) - {part}:
            assert not parts[part] & parts[other]


def test_sizes_and_channels_do_not_change_the_division(root):
    one, other = load_data(settings(root)), load_data(settings(root, image_size=9, channels=3, fit="pad"))
    for part in PARTS:
        assert torch.equal(getattr(one, part).indices, getattr(other, part).indices)


def test_a_limited_number_of_images_is_chosen_by_content(root, random):
    limits = {"max_train_images": 40, "max_test_images": 10}
    before = pictures(load_data(settings(root, **limits)))
    add(root, random, "a/0000_new.png")
    after = pictures(load_data(settings(root, **limits)))
    assert [len(after[part]) for part in PARTS] == [40, 10, 10]
    for part in PARTS:
        assert len(before[part] - after[part]) <= 1
        for other in set(PARTS) - {part}:
            assert not before[part] & after[other]


def test_a_run_from_before_keeps_its_division_and_its_pictures(root):
    written = settings(root).to_dict()
    del written["split"]["choose_by"], written["transparency"], written["fit"], written["balance"]
    earlier = DataSettings.from_dict(written)
    assert (earlier.split.choose_by, earlier.transparency) == ("position", "drop")
    for name in ("a/001.avif", "a/.0.png", "Thumbs.db"):  # endings that were not known, and what was passed over
        (root / name).write_bytes(b"")
    bundle = load_data(earlier)
    assert bundle.test.indices.tolist() == EARLIER_TEST
    assert bundle.validation is not None
    assert bundle.validation.indices.tolist() == EARLIER_VALIDATION
    new = DataSettings.from_dict(settings(root).to_dict())
    assert new == settings(root)
    assert DataSettings.from_dict({"name": "folder", "folder": "x"}).split.choose_by == "content"


def test_published_sets_have_no_part_in_it():
    written = DataSettings().to_dict()
    del written["split"]["choose_by"], written["transparency"]
    assert DataSettings.from_dict(written) == DataSettings()


def test_a_class_without_an_image_in_a_part_is_said_with_a_seed_that_serves(root, random):
    add(root, random, "few/0.png", "few/1.png", "few/2.png", "few/3.png", "few/4.png", "few/5.png", "few/6.png")
    chosen = None
    for seed in range(20):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load_data(settings(root, split=SplitSettings(validation_fraction=0.2, seed=seed)))
        if said:
            [message] = [str(one.message) for one in said]
            assert "of few (7 in all)" in message
            chosen = int(message.split("--data.split.seed ")[1].split()[0])
            break
    assert chosen is not None
    bundle = load_data(settings(root, split=SplitSettings(validation_fraction=0.2, seed=chosen)))
    assert bundle.validation is not None
    assert all(part.labels.bincount().min() > 0 for part in (bundle.train, bundle.validation, bundle.test))


def test_no_image_to_test_is_refused_with_a_way_out(tmp_path, random):
    add(tmp_path, random, "a/0.png", "b/0.png")
    with pytest.raises(ValueError, match="leaves none to test: raise the fractions, try another"):
        load_data(settings(tmp_path, split=SplitSettings(test_fraction=0.001)))


def test_no_image_to_validate_is_said_and_no_reason_to_stop(root):
    with pytest.warns(UserWarning, match="no image at all to validation"):
        bundle = load_data(settings(root, split=SplitSettings(validation_fraction=1e-6)))
    assert bundle.validation is None


def test_copies_across_a_folders_own_parts_and_classes_are_said(tmp_path, random):
    add(tmp_path, random, *(f"{part}/{name}/{n}.png" for part in ("train", "test") for name in "ab" for n in range(4)))
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/copy.png")
    shutil.copy(tmp_path / "train/a/1.png", tmp_path / "train/b/copy.png")
    said = "1 of the 9 images of its test part are copies of training images; 1 of its pictures are in more than one"
    with pytest.warns(UserWarning, match=said):
        load_data(settings(tmp_path, split=SplitSettings()))
