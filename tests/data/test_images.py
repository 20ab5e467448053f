"""Single images: read rightly, or refused with their names."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from matcaps.data import images as images_module
from matcaps.data import load_image
from matcaps.data import pixels as pixels_module
from matcaps.data.images import endings, read_known_image


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def bands_of(rows, monkeypatch):
    """Have large pictures begin at a few rows."""
    monkeypatch.setattr(pixels_module, "_BAND", rows)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_read_in_bands_is_the_same(tmp_path, mode, fit, monkeypatch):
    random = np.random.default_rng(0)
    for height in (40, 57):
        if mode == "I;16":
            image = Image.fromarray(random.integers(0, 65536, (height, 40), dtype=np.uint16))
        elif mode == "F":
            image = Image.fromarray(random.random((height, 40), dtype=np.float32))
        else:
            image = Image.fromarray(random.integers(0, 256, (height, 40, 4), dtype=np.uint8))
            image = image if mode == "RGBA" else image.convert("RGB" if mode in ("P", "CMYK") else "LA").convert(mode)
        path = tmp_path / ("a.tif" if mode in ("F", "CMYK") else "a.png")
        image.save(path)
        for channels, size in ((1, 8), (3, 7)):
            monkeypatch.undo()
            whole = read_known_image(path, size, channels, fit=fit, transparency="auto")
            bands_of(3 * 40, monkeypatch)
            banded = read_known_image(path, size, channels, fit=fit, transparency="auto")
            assert np.array_equal(whole.pixels, banded.pixels)
            assert whole.key == banded.key


def test_a_small_file_that_would_take_long_or_much_memory_is_refused(tmp_path, monkeypatch):
    """Found by fuzzing: 679 bytes of JPEG 2000 took 3.4 s and 1.4 GB, 255 kB of JPEG with 310 scans 8.7 s."""
    monkeypatch.setattr(images_module, "_MOST_VALUES", 3 * 100 * 100)
    Image.new("RGB", (100, 100)).save(tmp_path / "just.png")
    load_image(tmp_path / "just.png", 8, 3)
    Image.new("RGB", (101, 100)).save(tmp_path / "large.png")
    with pytest.raises(
        ValueError, match=r"at most 10,000 pixels in a file of less than 1,000,000 bytes; got 101×100 in"
    ):
        load_image(tmp_path / "large.png", 8, 3)
    monkeypatch.setattr(images_module, "_SMALL_FILE", 10)
    load_image(tmp_path / "large.png", 8, 3)
    Image.new("RGB", (90, 70), (200, 30, 10)).save(tmp_path / "a.jpg", progressive=True)
    content = (tmp_path / "a.jpg").read_bytes()
    last = content[content.rindex(b"\xff\xda") : -2]
    (tmp_path / "b.jpg").write_bytes(content[:-2] + 20 * last + content[-2:])
    load_image(tmp_path / "b.jpg", 8, 3)
    (tmp_path / "c.jpg").write_bytes(content[:-2] + 60 * last + content[-2:])
    with pytest.raises(
        ValueError, match=r"c\.jpg cannot be read as an image \(it must have at most 50 scans; got 70\)"
    ):
        load_image(tmp_path / "c.jpg", 8, 3)


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


def test_bad_images_are_named(tmp_path, monkeypatch):
    whole = tmp_path / "whole.png"
    save(whole, np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG but not really")
    with pytest.raises(ValueError, match=r"bad.png cannot be read as an image"):
        load_image(bad, 8, 1)
    bad.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"bad.png cannot be read as an image.*repair it or remove it"):
        load_image(bad, 8, 1)
    # PostScript under an image's name: Pillow would start another program to draw it.
    bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    with pytest.raises(ValueError, match=r"bad.png cannot be read"):
        load_image(bad, 8, 1)
    bad.write_bytes(b"")
    with pytest.raises(ValueError, match=r"bad.png cannot be read"):
        load_image(bad, 8, 1)
    with pytest.raises(ValueError, match=r"cannot be read as an image.*directory"):
        load_image(tmp_path, 8, 1)
    monkeypatch.setattr(images_module, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"whole.png .*must have at most 1,000 pixels; got 48×64"):
        load_image(whole, 8, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"whole.png cannot be read as an image.*decompression bomb"):
        load_image(whole, 8, 1)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "nothing.png", 8, 1)
    with pytest.raises(ValueError, match="channels must be 1"):
        load_image(whole, 8, 4)
    with pytest.raises(ValueError, match="image_size must be 1 or more; got 0"):
        load_image(whole, 0, 1)
    with pytest.raises(ValueError, match="fit must be one of crop, pad, stretch; got 'squeeze'"):
        load_image(whole, 8, 1, fit="squeeze")


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"])
def test_a_damaged_file_is_read_or_named_and_nothing_else(tmp_path, ending):
    random = np.random.default_rng(ord(ending[0]))
    path = tmp_path / f"it.{ending}"
    save(path, random.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    whole = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
        for place in random.integers(0, min(120, len(damaged)), 4):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        said = str(path)
        try:
            load_image(path, 8, 3)
        except ValueError as error:
            said = str(error)
        assert str(path) in said
        assert "\n" not in said


@pytest.mark.parametrize(("tag", "kind"), [(0x0201, 2), (0x0100, 2), (0x0131, 12), (0x011A, 7), (0x0112, 2)])
def test_a_mistyped_exif_tag_does_not_hide_the_picture_nor_its_orientation(tmp_path, tag, kind):
    entries = [struct.pack(">HHI4s", tag, kind, 1, b"\0\0\0\x08")]
    if tag != 0x0112:
        entries.append(struct.pack(">HHI4s", 0x0112, 3, 1, b"\0\6\0\0"))
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + b"".join(sorted(entries)) + bytes(12)
    halves = np.repeat(np.array([0, 255], np.uint8), 12)[:, None].repeat(24, 1)  # dark above, light below
    save(tmp_path / "phone.jpg", halves, exif=exif)
    image = load_image(tmp_path / "phone.jpg", 24, 1)[0, 0].float()
    upright = tag == 0x0112
    assert (image[:, :6].mean() - image[:, -6:].mean()).abs() < 3 if upright else image[:, :6].mean() > 200
    assert image[:6].mean() < 3 if upright else (image[:6].mean() - image[-6:].mean()).abs() < 3


GREYS = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
DEEP = GREYS.astype(np.uint16) * 257


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm", "big-endian.tif"])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path, name):
    Image.fromarray(DEEP.astype(">u2") if name.startswith("big") else DEEP).save(tmp_path / name)
    for channels in (1, 3):
        assert np.array_equal(load_image(tmp_path / name, 32, channels)[0, 0].numpy(), GREYS)


def test_floating_point_is_read_from_0_to_1_and_other_ranges_are_refused(tmp_path):
    Image.fromarray((GREYS / 255).astype(np.float32)).save(tmp_path / "unit.tif")
    assert np.array_equal(load_image(tmp_path / "unit.tif", 32, 1)[0, 0].numpy(), GREYS)
    real, whole = GREYS.astype(np.float32), GREYS.astype(np.int32)
    for values in (real, real * np.float32("nan"), whole, whole - 1):
        Image.fromarray(values).save(tmp_path / "odd.tif")
        with pytest.raises(ValueError, match=r"odd.tif cannot be read as an image \(its "):
            load_image(tmp_path / "odd.tif", 32, 1)


def test_white_that_is_zero_is_white(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    Image.fromarray(65535 - DEEP).save(tmp_path / "it.tif", tiffinfo=tags)
    with Image.open(tmp_path / "it.tif") as written:
        assert written.tag_v2[262] == 0
    assert np.array_equal(load_image(tmp_path / "it.tif", 32, 1)[0, 0].numpy(), GREYS)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_of_eight_bits_is_read(tmp_path, mode):
    pixels = Image.fromarray(GREYS)
    wanted = np.asarray(pixels.convert(mode).convert("L"))
    path = tmp_path / ("it.tif" if mode == "CMYK" else "it.png")
    pixels.convert("RGB" if mode == "CMYK" else "L").convert(mode).save(path)
    for channels in (1, 3):
        found = load_image(path, 32, channels)[0, -1].numpy().astype(int)
        assert np.abs(found - wanted).max() <= 1


def test_lab_is_read_as_what_it_shows(tmp_path):
    Image.new("LAB", (8, 8), (255, 128, 128)).save(tmp_path / "white.tif")
    assert (load_image(tmp_path / "white.tif", 8, 3) >= 254).all()


def drawing(level, mode="RGBA"):
    """A square of one grey level in the middle of a transparent ground that holds black."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = (level, level, level, 255)
    image = Image.fromarray(pixels)
    return image if mode == "RGBA" else image.convert("LA")


@pytest.mark.parametrize(("level", "ground"), [(0, 255), (120, 255), (180, 255), (210, 0), (255, 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_drawing_on_a_transparent_ground_shows(tmp_path, level, ground, mode):
    drawing(level, mode).save(tmp_path / "it.png")
    image = load_image(tmp_path / "it.png", 32, 1)[0, 0]
    assert image[0, 0] == ground
    assert image[16, 16] == level
    for choice, under in (("white", 255), ("black", 0), ("drop", 0)):
        assert load_image(tmp_path / "it.png", 32, 1, transparency=choice)[0, 0, 0, 0] == under


def test_a_transparent_palette_or_level_is_transparent(tmp_path):
    pixels = np.full((32, 32), 7, np.uint8)
    pixels[8:24, 8:24] = 40
    for name, image, clear in (
        ("level.png", Image.fromarray(pixels), 7),
        ("palette.png", Image.fromarray(pixels).convert("P"), 7),
        ("palette.gif", Image.fromarray(pixels).convert("P"), 7),
        ("deep.png", Image.fromarray(pixels.astype(np.uint16) * 257), 7 * 257),
    ):
        image.save(tmp_path / name, transparency=clear)
        found = load_image(tmp_path / name, 32, 1)[0, 0]
        assert (found[0, 0], found[16, 16]) == (255, 40), name


def test_a_wholly_transparent_picture_is_read_as_if_it_were_opaque(tmp_path):
    pixels = np.dstack([GREYS] * 3 + [GREYS * 0])
    Image.fromarray(pixels).save(tmp_path / "it.png")
    assert np.array_equal(load_image(tmp_path / "it.png", 32, 1)[0, 0].numpy(), GREYS)


def test_half_transparent_pixels_are_mixed_with_the_ground(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 3] = 128
    Image.fromarray(pixels).save(tmp_path / "it.png")
    assert load_image(tmp_path / "it.png", 8, 1)[0, 0, 0, 0] == 127


def test_fit_says_what_becomes_of_a_picture_that_is_not_square(tmp_path):
    wide = np.full((10, 30), 100, np.uint8)
    wide[:, 10:20] = 200
    save(tmp_path / "wide.png", wide)
    crop, pad, stretch = (load_image(tmp_path / "wide.png", 30, 1, fit=fit)[0, 0] for fit in ("crop", "pad", "stretch"))
    assert (crop[:, 1:-1] == 200).all()
    assert pad[15].tolist() == wide[5].tolist()
    assert (pad[:10] == pad[0, 0]).all()
    assert 100 < pad[0, 0] < 200  # the mean of the border
    assert (stretch[:, 15] == 200).all()
    assert (stretch[:, 2] == 100).all()
    tall = load_image(tmp_path / "wide.png", 30, 3, fit="pad")
    assert tall.shape == (1, 3, 30, 30)
    save(tmp_path / "line.png", np.full((1, 500), 9, np.uint8))
    assert (load_image(tmp_path / "line.png", 20, 1, fit="pad") == 9).all()


def test_fit_changes_nothing_of_a_square_picture(tmp_path):
    save(tmp_path / "square.png", np.random.default_rng(0).integers(0, 256, (33, 33), dtype=np.uint8))
    one = load_image(tmp_path / "square.png", 20, 1)
    for fit in ("pad", "stretch"):
        assert torch.equal(load_image(tmp_path / "square.png", 20, 1, fit=fit), one)


def test_a_file_is_opened_by_its_content(tmp_path):
    Image.fromarray(GREYS).save(tmp_path / "it.bmp")
    (tmp_path / "it.bmp").rename(tmp_path / "it.jpg")
    assert np.array_equal(load_image(tmp_path / "it.jpg", 32, 1)[0, 0].numpy(), GREYS)


@pytest.mark.parametrize("ending", ["avif", "jp2", "webp", "tiff"])
def test_later_formats_are_read_where_pillow_has_them(tmp_path, ending):
    if f".{ending}" not in endings():
        pytest.skip(f"this Pillow has no {ending}")
    Image.fromarray(GREYS).convert("RGB").save(tmp_path / f"it.{ending}", lossless=True)
    found = load_image(tmp_path / f"it.{ending}", 32, 1)[0, 0].numpy().astype(int)
    assert np.abs(found - GREYS).max() <= 3


def test_the_first_picture_of_a_moving_image_counts(tmp_path):
    image = Image.fromarray(GREYS)
    for ending in ("gif", "png", "webp"):
        image.save(tmp_path / f"it.{ending}", save_all=True, append_images=[image.rotate(90)], lossless=True)
        assert np.array_equal(load_image(tmp_path / f"it.{ending}", 32, 1)[0, 0].numpy(), GREYS)


def test_a_picture_has_one_key_whatever_its_name_and_exact_format(tmp_path):
    image = Image.fromarray(GREYS)
    image.save(tmp_path / "a.png")
    image.convert("RGB").save(tmp_path / "b.bmp")
    image.convert("RGBA").save(tmp_path / "c.png", compress_level=1)
    image.save(tmp_path / "d.tif", compression="tiff_lzw")
    image.save(tmp_path / "e.jpg")
    (tmp_path / "f.jpeg").write_bytes((tmp_path / "e.jpg").read_bytes())
    image.rotate(90).save(tmp_path / "g.png")

    def key(name, size=16, channels=1):
        return read_known_image(tmp_path / name, size, channels, fit="crop", transparency="auto").key

    assert len({key(name) for name in ("a.png", "b.bmp", "c.png", "d.tif")}) == 1
    Image.fromarray(DEEP).save(tmp_path / "h.png")
    Image.fromarray(DEEP.astype(">u2")).save(tmp_path / "i.tif")
    assert key("h.png") == key("i.tif") != key("a.png")
    assert key("e.jpg") == key("f.jpeg")
    assert len({key("a.png"), key("e.jpg"), key("g.png")}) == 3
    assert key("a.png") == key("a.png", 5, 3)


def test_home_folders_are_known_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(GREYS).save(tmp_path / "it.png")
    assert load_image("~/it.png", 32, 1).shape == (1, 1, 32, 32)
    with pytest.raises(ValueError, match="user whose home folder is not known"):
        load_image("~no-such-user/it.png", 32, 1)
