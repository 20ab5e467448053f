"""Drawings as strokes: those from the page's drawing pad, and the digits that come with matcaps."""

import json
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from matcaps.data import ImageDataset
from matcaps.data.mnist import CLASSES
from matcaps.demo.pictures import BOX, FRAME, Prepared, prepare_digit

Strokes = Sequence[Sequence[tuple[float, float]]]
"""Lines through points; x to the right and y downwards, both from 0 to 1."""

MAX_POINTS = 20_000
"""The largest number of points of a drawing."""

_SHARPER = 8  # a drawing is made this many times larger than the image
_PEN = 2.4  # width of the pen in MNIST's pixels: about that of its digits


def parse_strokes(text: str | None) -> list[list[tuple[float, float]]]:
    """Read the strokes that the pad sends.

    Args:
        text: JSON, a list of strokes, each a list of points ``[x, y]`` from 0 to 1; None or empty: nothing drawn.

    Raises:
        ValueError: the text is malformed, or has more than :data:`MAX_POINTS` points.
    """
    if not text:
        return []
    try:
        strokes = [[(float(x), float(y)) for x, y in stroke] for stroke in json.loads(text)]
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError("the drawing must be a list of strokes, each a list of points [x, y]") from error
    points = [value for stroke in strokes for point in stroke for value in point]
    if len(points) > 2 * MAX_POINTS:
        raise ValueError(f"the drawing must have at most {MAX_POINTS:,} points; got {len(points) // 2:,}: clear it")
    if not all(0 <= value <= 1 for value in points):  # false for NaN, too
        raise ValueError("the drawing's points must lie on the pad, from 0 to 1")
    return [stroke for stroke in strokes if stroke]


def draw_strokes(strokes: Strokes, size: int = FRAME, *, pen: float = _PEN) -> Prepared:
    """Draw strokes as an image like MNIST's, with a pen whose width does not depend on the drawing's size.

    Args:
        strokes: the lines.
        size: side of the result.
        pen: width of the line in pixels of a 28×28 image.

    Returns:
        ``pixels`` ``[1, 1, size, size]``.

    Raises:
        ValueError: there are no strokes.
    """
    points = np.array([point for stroke in strokes for point in stroke], float)
    if not len(points):
        raise ValueError("nothing is drawn: draw on the pad")
    low, high = points.min(0), points.max(0)
    side, width = _SHARPER * FRAME, _SHARPER * pen
    extent = max(float((high - low).max()), 0.02)  # a dot stays a dot
    scale = (_SHARPER * BOX - width) / extent
    canvas = Image.new("L", (side, side))
    brush = ImageDraw.Draw(canvas)
    for stroke in strokes:
        places = [tuple((np.array(point) - (low + high) / 2) * scale + side / 2) for point in stroke]
        if len(places) > 1:
            brush.line(places, fill=255, width=round(width), joint="curve")
        for x, y in (places[0], places[-1]):
            brush.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return prepare_digit(torch.from_numpy(np.array(canvas)), size)


def _arc(x: float, y: float, width: float, height: float, start: float, end: float) -> list[tuple[float, float]]:
    """Part of an ellipse about ``(x, y)``, by angles in degrees: 0 to the right, 90 downwards."""
    angles = np.radians(np.linspace(start, end, max(3, int(abs(end - start) / 12))))
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


DIGITS: tuple[Strokes, ...] = (
    (_arc(0.5, 0.5, 0.3, 0.45, -90, 270),),
    ([(0.42, 0.2), (0.52, 0.05), (0.52, 0.95)],),
    ([*_arc(0.5, 0.3, 0.28, 0.25, 190, 380), (0.6, 0.62), (0.22, 0.95), (0.8, 0.95)],),
    ([*_arc(0.48, 0.27, 0.26, 0.22, 200, 450), *_arc(0.48, 0.71, 0.3, 0.24, -90, 160)],),
    ([(0.3, 0.05), (0.2, 0.55), (0.8, 0.55)], [(0.66, 0.3), (0.62, 0.97)]),
    ([(0.75, 0.06), (0.32, 0.06), (0.27, 0.45), *_arc(0.47, 0.68, 0.28, 0.27, -120, 140)],),
    ([(0.66, 0.05), (0.4, 0.3), *_arc(0.5, 0.7, 0.24, 0.25, 200, 560)],),
    ([(0.2, 0.08), (0.8, 0.08), (0.42, 0.95)],),
    ([*_arc(0.5, 0.27, 0.22, 0.21, 90, 450)], [*_arc(0.5, 0.71, 0.27, 0.24, -90, 270)]),
    ([*_arc(0.48, 0.3, 0.24, 0.24, 0, 360), (0.72, 0.3), (0.66, 0.95)],),
)
"""A digit of each class, drawn for this package."""


def drawn_digits(each: int = 8, seed: int = 0) -> ImageDataset:
    """Digits for use without MNIST: those of this file, slanted, rotated and stretched, with pens of several widths.

    They are not MNIST's: a network's accuracy on them tells nothing about MNIST.

    Args:
        each: images of each class.
        seed: of the slants and widths.

    Returns:
        ``10·each`` images ``[N, 1, 28, 28]``, class by class in turn.
    """
    random = np.random.default_rng(seed)
    images = []
    for _ in range(each):
        for strokes in DIGITS:
            slant, turn = random.uniform(-0.35, 0.1), random.uniform(-0.12, 0.12)
            wide, pen = random.uniform(0.75, 1.1), random.uniform(2.0, 3.2)
            matrix = np.array([[wide, slant], [turn, 1.0]])
            bent = [[tuple(matrix @ (np.array(point) - 0.5) + 0.5) for point in stroke] for stroke in strokes]
            images.append(draw_strokes(bent, pen=pen).pixels[0])
    count = 10 * each
    return ImageDataset(
        name="drawn digits",
        split="test",
        images=torch.stack(images) if images else torch.zeros(0, 1, FRAME, FRAME, dtype=torch.uint8),
        labels=torch.arange(count) % 10,
        classes=CLASSES["mnist"],
        indices=torch.arange(count),
        origin="drawn by strokes that come with matcaps",
    )
