"""What all figures share: colours that colour-blind people tell apart, and how a figure is saved."""

from pathlib import Path
from typing import IO

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from matcaps.models.files import whole_file

# Okabe and Ito, "Color Universal Design" (2008), in the order in which they are used here
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
NETWORK_COLOURS = {"capsules": COLOURS[0], "cnn": COLOURS[1], "tutorial": COLOURS[2]}
"""A network keeps its colour through all figures."""


def new_figure(columns: int = 1, rows: int = 1, *, width: float = 4.5, height: float = 3.4) -> Figure:
    """A figure of panels ``width`` × ``height`` inches each, on no global state of matplotlib's."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def short_number(value: float) -> str:
    """A number from 0 to millions, for a small space: three digits, and never an exponent where it is large."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


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
                figure.savefig(partial, format=ending, dpi=150)
        paths.append(target)
    return paths


def save_svg(figure: Figure, target: Path | IO[bytes]) -> None:
    """Write a figure as SVG: without a date or names by chance, so that the same figure is the same file."""
    with rc_context({"svg.hashsalt": "matcaps"}):
        figure.savefig(target, format="svg", metadata={"Date": None})


def to_pixels(figure: Figure, dots_per_inch: float = 80) -> np.ndarray:
    """Return a figure as a picture, ``[height, width, 3]``, uint8."""
    figure.set_dpi(dots_per_inch)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
