import numpy as np
import pytest
import torch
from PIL import Image

from matcaps.data import DataSettings, load_data, load_image_folder


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    for name, count in (("cat", 6), ("ant", 9)):
        for number in range(count):
            save(tmp_path / name / f"{number}.png", random.integers(0, 256, (64, 48, 3), dtype=np.uint8))
    return tmp_path


def test_classes_in_order_of_their_names(pictures):
    dataset = load_image_folder(pictures, 16, 3)
    assert dataset.classes == ("ant", "cat")
    assert dataset.labels.bincount().tolist() == [9, 6]
    assert dataset.images.shape == (15, 3, 16, 16)
    assert dataset.images.dtype == torch.uint8
    assert load_image_folder(pictures, 16, 1).images.shape == (15, 1, 16, 16)
    assert load_image_folder(pictures, 16, split="test") is None


def test_train_and_test_folders(pictures):
    for name in ("ant", "cat"):
        for number in range(3):
            save(pictures / "sets" / "train" / name / f"{number}.jpg", np.full((8, 8), 9 * ord(name[0]) // 8, np.uint8))
        save(pictures / "sets" / "test" / name / "a.bmp", np.full((8, 8), ord(name[0]), np.uint8))
    assert len(load_image_folder(pictures / "sets", 8)) == 6
    assert len(load_image_folder(pictures / "sets", 8, split="test")) == 2
    bundle = load_data(DataSettings("folder", folder=str(pictures / "sets"), image_size=8))
    assert (len(bundle.train), len(bundle.test), bundle.image_size) == (6, 2, 8)
    save(pictures / "sets" / "test" / "dog" / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="the class 'dog', which the training images do not have"):
        load_image_folder(pictures / "sets", 8, split="test")


def test_what_is_passed_over_is_counted_and_said_once(pictures):
    (pictures / "cat" / "notes.txt").write_text("not an image")
    (pictures / "cat" / ".hidden.png").write_text("not an image")
    (pictures / "cat" / "Thumbs.db").write_text("not an image")
    (pictures / "cat" / "broken.png").symlink_to("nowhere.png")
    save(pictures / "cat" / "more" / ".checkpoints" / "0.png", np.zeros((8, 8), np.uint8))
    save(pictures / "stray.png", np.zeros((8, 8), np.uint8))
    (pictures / "labels.csv").write_text("not an image")
    (pictures / "empty").mkdir()
    for name in (".git", "__MACOSX", "@eaDir", ".ipynb_checkpoints"):
        save(pictures / name / "0.png", np.zeros((8, 8), np.uint8))
    with pytest.warns(UserWarning, match="not used") as said:
        dataset = load_image_folder(pictures, 8)
    assert dataset.classes == ("ant", "cat")
    assert len(dataset) == 15
    [message] = [str(one.message) for one in said]
    assert f"{pictures}: 12 not used" in message
    assert "7 hidden or system files (.git, .ipynb_checkpoints, @eaDir, ...)" in message
    assert "2 not images by their file names (cat/notes.txt, labels.csv)" in message
    assert "1 broken links or special files (cat/broken.png)" in message
    assert "1 images outside a class folder (stray.png)" in message
    assert "1 folders without images (empty)" in message


def test_a_linked_folder_is_read_and_a_loop_of_links_ends(pictures, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "0.png", np.zeros((8, 8), np.uint8))
    (pictures / "linked").symlink_to(elsewhere)
    (pictures / "cat" / "again").symlink_to(pictures)
    with pytest.warns(UserWarning, match="1 links to a folder around them"):
        dataset = load_image_folder(pictures, 8)
    assert dataset.labels.bincount().tolist() == [9, 6, 1]


def test_all_images_that_cannot_be_read_are_named_at_once(pictures):
    for name in ("ant/1.png", "cat/0.png", "cat/3.png"):
        (pictures / name).write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"ant/1.png cannot be read .*; 2 more .*cat/0.png, .*cat/3.png$"):
        load_image_folder(pictures, 8)


def test_deep_images_that_use_little_of_their_range_are_said(pictures):
    save(pictures / "cat" / "x-ray.png", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    with pytest.warns(UserWarning, match="1 images of more than 8 bits use a sixteenth of their range or less"):
        load_image_folder(pictures, 8)


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is none at"):
        load_image_folder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="must hold a folder for each class"):
        load_image_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold images"):
        load_image_folder(tmp_path)
