"""How a folder of images is laid out: recognised, or refused with the layout that is wanted."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from matcaps.data import DataSettings, load_data
from matcaps.data.layouts import find_layout


@pytest.fixture
def make(tmp_path):
    random = np.random.default_rng(0)

    def fill(*folders, count=3):
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
        return tmp_path

    return fill


def counts(layout):
    return {part: {name: len(paths) for name, paths in own.items()} for part, own in layout.files.items()}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("training", "validation", "testing"),
        ("TRAINING", "dev", "TEST"),
    ],
)
def test_parts_are_known_by_their_usual_names(make, train, validation, test):
    root = make(*(f"{part}/{name}" for part in (train, validation, test) for name in ("cat", "dog")))
    layout = find_layout(root)
    assert layout.classes == ("cat", "dog")
    assert counts(layout) == {part: {"cat": 3, "dog": 3} for part in ("train", "validation", "test")}
    assert len(layout.unused) == 0


def test_val_becomes_the_validation_part_and_no_image_of_training_is_taken_for_it(make):
    root = make(*(f"{part}/{name}" for part in ("train", "val") for name in ("cat", "dog")), count=20)
    bundle = load_data(DataSettings.from_dict({"name": "folder", "folder": str(root), "image_size": 8}))
    assert bundle.validation is not None
    assert bundle.validation.labels.bincount().tolist() == [20, 20]
    assert bundle.validation.split == "validation"
    assert len(bundle.train) + len(bundle.test) == 40
    assert 0 < len(bundle.test) < 20


@pytest.mark.parametrize("name", ["train", "test", "val", "dev", "Training"])
def test_a_class_may_be_called_as_a_part_is(make, name):
    classes = sorted(("car", "plane", name))
    assert counts(find_layout(make(*classes))) == {"train": dict.fromkeys(classes, 3)}


def test_folders_inside_classes_belong_to_them(make):
    root = make("cat", "cat/more", "cat/more/still", "dog/deep/deeper")
    assert counts(find_layout(root)) == {"train": {"cat": 9, "dog": 3}}


def test_folders_beside_the_parts_are_counted(make):
    root = make("train/cat", "train/dog", "test/cat", "test/dog", "extra")
    layout = find_layout(root)
    assert counts(layout)["test"] == {"cat": 3, "dog": 3}
    assert "1 folders beside the parts (extra)" in layout.unused.describe(root)


def test_a_class_of_one_part_alone(make):
    root = make("train/cat", "train/dog", "test/cat")
    assert counts(find_layout(root))["test"] == {"cat": 3, "dog": 0}
    with pytest.warns(UserWarning, match="test has no image of dog"):
        load_data(DataSettings("folder", folder=str(root), image_size=8))
    make("test/ant")
    with pytest.raises(ValueError, match="has the class 'ant', which the training images do not have"):
        find_layout(root)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "test"), "no folder for each class in them: sort them into test/CLASS/image.png"),
        (("Training", "val"), "no folder for each class in them"),
        (("car", "train/steam", "train/electric"), "can be read in two ways: train .* or classes beside car"),
        (("cat", "dog", "test/cat", "test/dog"), "can be read in two ways: test .* or classes beside cat, dog"),
        (("test/cat", "test/dog"), "holds test but no folder train with images"),
        (("train/cat", "train/dog", "test"), "test must hold images in a folder for each class; it holds none"),
        (("train/cat", "Train/dog"), "one folder for the part train; it holds Train, train"),
        (("train/cat", "val/cat", "dev/cat"), "one folder for the part validation; it holds dev, val"),
        (("cat/train", "cat/test", "dog/train"), "the parts inside the classes, cat/test: keep .* test/cat"),
        (("pictures/cat", "pictures/dog"), "one folder, pictures, with the folders cat, dog inside: give .*/pictures"),
        (
            ("pictures/train/cat", "pictures/test/cat"),
            "one folder, pictures, with the folders test, train inside: give .*/pictures",
        ),
        ((".",), "must hold a folder for each class; it holds 3 images and no folder"),
    ],
)
def test_what_can_be_read_otherwise_is_refused_in_one_line(make, folders, message):
    root = make(*folders)
    with pytest.raises(ValueError, match=message) as refused:
        find_layout(root)
    assert "\n" not in str(refused.value)


def test_a_file_given_as_folder_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "pics.zip", "w") as archive:
        archive.writestr("cat/0.png", b"")
    with pytest.raises(ValueError, match=r"pics.zip is a zip file: unpack it, and give the folder"):
        find_layout(tmp_path / "pics.zip")
    (tmp_path / "list.txt").write_text("cat")
    with pytest.raises(ValueError, match=r"list.txt is a file: put the images in a folder"):
        find_layout(tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError, match="looked for in the folder where the command runs"):
        find_layout("no-such-folder")


def test_a_photo_format_that_needs_another_package_is_named(make):
    root = make("cat", "dog")
    (root / "cat" / "phone.HEIC").write_bytes(b"")
    assert "1 that need pip install pillow-heif (cat/phone.HEIC)" in find_layout(root).unused.describe(root)
