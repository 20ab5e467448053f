"""How figures are saved."""

import pytest
from PIL import Image

from matcaps._numbers import short_number
from matcaps.inspect.style import new_figure, save_figure, to_pixels


def make_figure():
    figure = new_figure()
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0])
    axes.set_title("a title")
    return figure


def test_the_same_figure_is_the_same_file(tmp_path):
    for name in ("one", "two"):
        paths = save_figure(make_figure(), tmp_path / name)
    assert [path.name for path in paths] == ["two.png", "two.svg"]
    for ending in ("png", "svg"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_pixels_are_those_of_the_figure():
    pixels = to_pixels(make_figure(), dots_per_inch=40)
    assert pixels.shape == (136, 180, 3)  # 3.4 by 4.5 inches
    assert len(Image.fromarray(pixels).getcolors(10_000)) > 10


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.1234, "0.123"), (12.345, "12.3"), (999.4, "999"), (999.6, "1,000"), (109611, "109,611")],
)
def test_short_numbers(value, text):
    assert short_number(value) == text
