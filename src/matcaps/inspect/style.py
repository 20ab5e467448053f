"""What all figures share: colours that colour-blind people can distinguish, and how a figure is saved."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter
from torch import Tensor

from matcaps.models.files import whole_file

# Okabe and Ito, "Color Universal Design" (2008), in the order in which they are used here
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
NETWORK_COLOURS = {"capsules": COLOURS[0], "cnn": COLOURS[1], "tutorial": COLOURS[2]}
"""A network keeps its colour through all figures."""
HEAT = "viridis"  # its lightness rises evenly, so that it can be read without colour
GREY = "#8c8c8c"
LAYER_TITLES = {
    "primary_capsules": "primary capsules",
    "conv_capsules1": "conv capsules 1",
    "conv_capsules2": "conv capsules 2",
    "class_capsules": "class capsules",
}


def new_figure(columns: int = 1, rows: int = 1, *, width: float = 4.5, height: float = 3.4) -> Figure:
    """A figure for panels of ``width`` × ``height`` inches each, without matplotlib's global state."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and as SVG, each whole or not at all.

    Args:
        figure: what to write.
        path: without an ending.

    Returns:
        The two paths.
    """
    paths = []
    for ending in ("png", "svg"):
        target = path.with_name(f"{path.name}.{ending}")
        with whole_file(target) as partial:
            if ending == "svg":
                save_svg(figure, partial)
            else:
                _save_png(figure, partial)
        paths.append(target)
    return paths


def _save_png(figure: Figure, target: Path) -> None:
    shown = figure.get_dpi()
    figure.set_dpi(150)
    with _without_math_text(figure):
        FigureCanvasAgg(figure).print_png(target)  # savefig would draw it twice
    figure.set_dpi(shown)


def save_svg(figure: Figure, target: Path | IO[bytes]) -> None:
    """Write a figure as SVG, without a date or random names, so that the same figure gives the same file."""
    with rc_context({"svg.hashsalt": "matcaps"}), _without_math_text(figure):
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})


def to_pixels(figure: Figure, dots_per_inch: float = 80) -> np.ndarray:
    """Return a figure as a picture, ``[height, width, 3]``, uint8."""
    figure.set_dpi(dots_per_inch)
    canvas = FigureCanvasAgg(figure)
    with _without_math_text(figure):
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


@contextmanager
def _without_math_text(figure: Figure) -> Iterator[None]:
    """Draw texts as they are written; matplotlib would read text between two dollar signs as mathematics.

    Only the numbers of a logarithmic axis stay mathematics, for their powers of ten. Letters that the
    font lacks are drawn as boxes, and one warning names them all.
    """
    numbers = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if isinstance(axis.get_major_formatter(), LogFormatter)
        for label in axis.get_ticklabels(which="both")
    }
    for text in figure.findobj(Text):
        if text not in numbers:
            text.set_parse_math(False)  # type: ignore[attr-defined]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = [warning for warning in caught if _GLYPH.search(str(warning.message))]
    for warning in caught:
        if warning not in missing:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        letters = {chr(int(match[1])) for warning in missing if (match := _GLYPH.search(str(warning.message)))}
        warnings.warn(
            f"the figures' font has no letter {' '.join(sorted(letters))}: figures show boxes instead; tables and "
            "reports show them correctly",
            stacklevel=3,
        )


def to_picture(image: Tensor, reference: Tensor | None = None) -> np.ndarray:
    """A network's input as a picture in [0, 1]: ``[H, W]``, of a stereo pair the first, or ``[H, W, 3]`` of colour.

    Args:
        image: ``[C, H, W]``.
        reference: whose darkest and lightest pixel are black and white; None: the image's own.
    """
    shown = image if image.shape[0] == 3 else image[:1]
    measure = shown if reference is None else (reference if reference.shape[0] == 3 else reference[:1])
    low, high = float(measure.min()), float(measure.max())
    picture = ((shown - low) / max(high - low, 1e-12)).clamp(0, 1).movedim(0, -1).numpy()
    return picture if picture.shape[-1] == 3 else picture[..., 0]


def show_picture(axes: Axes, picture: np.ndarray) -> None:
    """Draw a picture without ticks."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


_GLYPH = re.compile(r"Glyph (\d+) .*missing from")
