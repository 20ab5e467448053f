"""Drawings and uploads become images of MNIST's form."""

import numpy as np
import pytest
import torch
from PIL import Image

from matcaps.data import load_image
from matcaps.demo import draw_strokes, drawn_digits, parse_strokes, prepare_digit, read_upload


def blot(height: int, width: int, box: tuple[int, int, int, int], *, ink: int = 255, paper: int = 0) -> torch.Tensor:
    picture = torch.full((height, width), paper, dtype=torch.uint8)
    top, left, rows, columns = box
    picture[top : top + rows, left : left + columns] = ink
    return picture


@pytest.mark.parametrize("box", [(5, 5, 40, 20), (50, 90, 10, 80), (0, 3, 1, 1), (3, 3, 90, 180), (60, 2, 30, 30)])
def test_box_and_middle_are_mnist_s(box):
    pixels = prepare_digit(blot(100, 200, box)).pixels
    assert pixels.shape == (1, 1, 28, 28)
    assert pixels.dtype == torch.uint8
    rows, columns = pixels[0, 0].nonzero().T
    height, width = (int(places.max() - places.min()) + 1 for places in (rows, columns))
    assert max(height, width) == 20
    assert height / width == pytest.approx(box[2] / box[3], abs=0.03)
    mass = pixels[0, 0].double()
    for axis in (0, 1):
        centre = float((mass.sum(1 - axis) * torch.arange(28)).sum() / mass.sum())
        assert abs(centre - 13.5) <= 0.51
    assert int(pixels.max()) == 255


def test_an_uneven_digit_is_centred_by_its_mass_not_its_box():
    picture = blot(60, 60, (10, 10, 40, 4))
    picture[10:16, 10:50] = 255  # a bar at the top: mass above the middle of the box
    rows = prepare_digit(picture).pixels[0, 0].nonzero()[:, 0]
    assert int(rows.min()) > 4


def test_dark_on_light_is_inverted_and_said():
    light, dark = blot(80, 80, (20, 30, 40, 10)), blot(80, 80, (20, 30, 40, 10), ink=0, paper=255)
    assert torch.equal(prepare_digit(light).pixels, prepare_digit(dark).pixels)
    assert prepare_digit(dark).description.startswith("Dark on light, so inverted")
    assert "inverted" not in prepare_digit(light).description


def test_grey_paper_and_faint_ink_are_stretched():
    pixels = prepare_digit(blot(80, 80, (20, 30, 40, 10), ink=120, paper=190)).pixels
    assert int(pixels.max()) == 255
    assert int(pixels[0, 0, 0, 0]) == 0


def test_blank_and_wrong_pictures():
    with pytest.raises(ValueError, match="nothing is drawn"):
        prepare_digit(torch.full((50, 50), 200, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"picture must be uint8 of shape \[H, W\]; got torch.float32 \[3, 4\]"):
        prepare_digit(torch.zeros(3, 4))


def test_another_size():
    pixels = prepare_digit(blot(100, 100, (10, 40, 80, 20)), 56).pixels
    assert pixels.shape == (1, 1, 56, 56)
    assert int(pixels[0, 0].any(1).sum()) == 40


def test_the_pen_does_not_grow_with_the_drawing():
    large = [[(0.1, 0.1), (0.9, 0.9)]]
    small = [[(0.4, 0.4), (0.5, 0.5)]]
    assert torch.equal(draw_strokes(large).pixels, draw_strokes(small).pixels)


def test_a_dot_and_an_upright_line():
    assert int(draw_strokes([[(0.5, 0.5)]]).pixels.max()) == 255
    line = draw_strokes([[(0.5, 0.1), (0.5, 0.9)]]).pixels[0, 0]
    assert int(line.any(1).sum()) == 20
    assert 2 <= int(line.any(0).sum()) <= 4


def test_nothing_is_drawn():
    assert parse_strokes("") == parse_strokes(None) == parse_strokes("[]") == parse_strokes("[[]]") == []
    with pytest.raises(ValueError, match="nothing is drawn"):
        draw_strokes([])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        '{"a": 1}',
        '["ab"]',
        "[[[0.1]]]",
        "[[[0.1, null]]]",
        "[[[2, 0]]]",
        "[[[NaN, 0]]]",
        "[" * 10_000,
        f"[[[1{'0' * 400}, 0]]]",
    ],
)
def test_bad_drawings(text):
    with pytest.raises(ValueError, match="the drawing"):
        parse_strokes(text)


def test_too_many_points():
    with pytest.raises(ValueError, match="at most 20,000 points; got 20,001"):
        parse_strokes("[[" + ",".join(["[0,0]"] * 20_001) + "]]")


def test_digits_that_come_with_matcaps():
    digits = drawn_digits(3)
    assert digits.images.shape == (30, 1, 28, 28)
    assert digits.labels.tolist() == list(range(10)) * 3
    assert torch.equal(digits.images, drawn_digits(3).images)
    flat = digits.images.flatten(1).float()
    distances = torch.cdist(flat, flat).fill_diagonal_(float("inf"))
    assert float(distances.min()) > 100  # no two alike
    assert len(drawn_digits(0)) == 0


def test_uploads(tmp_path):
    picture = np.full((300, 200, 3), 240, np.uint8)
    picture[50:250, 90:110] = 20
    Image.fromarray(picture).save(tmp_path / "one.png")
    prepared = read_upload(tmp_path / "one.png", 28, 1, as_digit=True)
    assert int(prepared.pixels[0, 0].any(1).sum()) == 20
    assert "inverted" in prepared.description
    plain = read_upload(tmp_path / "one.png", 28, 1, as_digit=False)
    assert torch.equal(plain.pixels, load_image(tmp_path / "one.png", 28, 1))
    assert read_upload(tmp_path / "one.png", 32, 2, as_digit=True).pixels.shape == (1, 2, 32, 32)


def test_bad_uploads(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_upload(tmp_path / "text.png", 28, 1, as_digit=True)
    Image.new("L", (9000, 8000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="at most 64,000,000 pixels; got 9000×8000"):
        read_upload(tmp_path / "huge.png", 28, 1, as_digit=True)
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    with pytest.raises(ValueError, match="nothing is drawn"):
        read_upload(tmp_path / "blank.png", 28, 1, as_digit=True)
