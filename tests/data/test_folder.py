import numpy as np
import pytest
import torch
from PIL import Image

from matcaps.data import DataSettings, SplitSettings, load_data, load_image, load_image_folder
from matcaps.data import folder as folder_module


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    for name, count in (("cat", 6), ("ant", 9)):
        for number in range(count):
            save(tmp_path / name / f"{number}.png", random.integers(0, 256, (64, 48, 3), dtype=np.uint8))
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / ".hidden.png").write_text("not an image")
    save(tmp_path / "cat" / ".checkpoints" / "0.png", np.zeros((8, 8), np.uint8))
    save(tmp_path / "cat" / "more" / ".checkpoints" / "0.png", np.zeros((8, 8), np.uint8))
    (tmp_path / ".git").mkdir()
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
            save(pictures / "sets" / "train" / name / f"{number}.jpg", np.full((8, 8), 9, np.uint8))
        save(pictures / "sets" / "test" / name / "a.bmp", np.full((8, 8), 9, np.uint8))
    assert len(load_image_folder(pictures / "sets", 8)) == 6
    assert len(load_image_folder(pictures / "sets", 8, split="test")) == 2
    bundle = load_data(DataSettings("folder", folder=str(pictures / "sets"), image_size=8))
    assert (len(bundle.train), len(bundle.test), bundle.image_size) == (6, 2, 8)
    save(pictures / "sets" / "test" / "dog" / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="the class 'dog', which the training images have not"):
        load_image_folder(pictures / "sets", 8, split="test")


def test_a_share_of_each_class_is_held_out_without_a_test_folder(pictures):
    split = SplitSettings(test_fraction=1 / 3, validation_fraction=0.5)
    bundle = load_data(DataSettings("folder", folder=str(pictures), channels=3, split=split))
    assert bundle.test.labels.bincount().tolist() == [3, 2]
    assert bundle.validation.labels.bincount().tolist() == [3, 2]
    assert bundle.train.labels.bincount().tolist() == [3, 2]
    parts = [set(part.indices.tolist()) for part in (bundle.train, bundle.validation, bundle.test)]
    assert len(set.union(*parts)) == 15
    with pytest.raises(ValueError, match="leaves none to test"):
        load_data(DataSettings("folder", folder=str(pictures), split=SplitSettings(test_fraction=0)))


def test_pixels_are_averaged_and_the_middle_is_kept(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    save(tmp_path / "a.png", pixels)
    averaged = pixels.reshape(48, 2, 48, 2).mean(axis=(1, 3))
    assert np.abs(load_image(tmp_path / "a.png", 48, 1)[0, 0].numpy() - averaged).max() <= 0.5
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    save(tmp_path / "wide.png", wide)
    assert (load_image(tmp_path / "wide.png", 10, 1) == 200).all()
    stereo = load_image(tmp_path / "a.png", 96, 2)
    assert stereo.shape == (1, 2, 96, 96)
    assert torch.equal(stereo[0, 0], stereo[0, 1])
    assert np.array_equal(stereo[0, 0], pixels)


def test_orientation_and_palettes(tmp_path):
    image = Image.fromarray(np.tile(np.repeat(np.array([0, 255], np.uint8), 8), (16, 1)))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    upright = load_image(tmp_path / "turned.png", 16, 1)[0, 0]
    assert upright.float().std(dim=1).max() == 0
    image.convert("P").save(tmp_path / "palette.gif")
    assert load_image(tmp_path / "palette.gif", 16, 3).unique().tolist() == [0, 255]


def test_bad_images_are_named(pictures, monkeypatch):
    bad = pictures / "cat" / "bad.png"
    bad.write_bytes(b"\x89PNG but not really")
    with pytest.raises(ValueError, match=r"bad.png cannot be read as an image"):
        load_image_folder(pictures, 8)
    whole = (pictures / "cat" / "0.png").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"bad.png cannot be read as an image.*repair it or take it away"):
        load_image_folder(pictures, 8)
    bad.unlink()
    save(pictures / "cat" / "deep.png", np.zeros((8, 8), np.uint16))
    with pytest.raises(ValueError, match=r"deep.png must have 8 bits a channel"):
        load_image_folder(pictures, 8)
    (pictures / "cat" / "deep.png").unlink()
    # PostScript under an image's name: Pillow would start another program to draw it.
    (pictures / "cat" / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    with pytest.raises(ValueError, match=r"script.png cannot be read"):
        load_image_folder(pictures, 8)
    (pictures / "cat" / "script.png").unlink()
    monkeypatch.setattr(folder_module, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"must have at most 1,000 pixels; got 48×64"):
        load_image_folder(pictures, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"cannot be read as an image.*decompression bomb"):
        load_image(pictures / "cat" / "0.png", 8, 1)


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is none at"):
        load_image_folder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="must hold a folder for each class"):
        load_image_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold images"):
        load_image_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "nothing.png", 8, 1)
    with pytest.raises(ValueError, match="channels must be 1"):
        load_image(tmp_path / "nothing.png", 8, 4)
