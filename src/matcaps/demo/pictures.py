"""From a drawing or a photograph of a digit to an image like MNIST's; from any file to the network's image."""

from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from matcaps.data import load_image

FRAME = 28
"""Side of an MNIST image; of the digit itself, :data:`BOX`."""
BOX = 20

_INK = 0.2  # of the strongest ink: what counts towards the box around the digit
_FAINTEST = 25  # grey levels that the strongest ink must differ from the paper
_READ_SIZE = 8 * FRAME  # an upload is read at this side, so that thin lines stay


class Prepared(NamedTuple):
    """An image as a network takes it in, and what was done to it.

    Attributes:
        pixels: ``[1, C, S, S]``, uint8, for :meth:`matcaps.data.Transform.evaluate`.
        said: what was done, as a sentence for people.
    """

    pixels: Tensor
    said: str


def prepare_digit(picture: Tensor, size: int = FRAME) -> Prepared:
    """Bring a picture of one digit into the form of MNIST's images.

    As LeCun et al. (1998) describe theirs: the digit is cut out, brought into a box of 20×20 of 28×28 pixels without
    changing its proportions, and placed so that its centre of mass is in the middle; white on black. Which is ink and
    which is paper, the margin tells: paper is what most of the picture's edge is.

    Args:
        picture: ``[H, W]``, uint8, dark on light or light on dark.
        size: side of the result; the box grows with it.

    Returns:
        ``pixels`` ``[1, 1, size, size]``, and whether the picture was inverted, in words.

    Raises:
        ValueError: the picture has no two sides, or nothing is drawn on it.
    """
    if picture.ndim != 2 or picture.dtype != torch.uint8 or not picture.numel():
        raise ValueError(f"picture must be uint8 of shape [H, W]; got {picture.dtype} {list(picture.shape)}")
    grey = picture.numpy().astype(np.float32)
    paper = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    inverted = paper > 127.5
    ink = np.clip(paper - grey if inverted else grey - paper, 0, None)
    if ink.max() < _FAINTEST:
        raise ValueError("nothing is drawn: the picture has one shade all over")
    ink = ink * (255 / ink.max())
    rows, columns = (np.flatnonzero((ink > _INK * 255).any(axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = round(BOX / FRAME * size)
    scale = box / max(cut.shape)
    height, width = (max(1, round(side * scale)) for side in cut.shape)
    small = np.asarray(Image.fromarray(cut).resize((width, height), Image.Resampling.BOX), np.float32)
    small = small * (255 / max(float(small.max()), 1.0))
    frame = np.zeros((size, size), np.float32)
    top, left = (_place(small.sum(1 - axis), size) for axis in (0, 1))
    frame[top : top + height, left : left + width] = small
    pixels = torch.from_numpy(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    start = "Dark on light, so inverted; cut out" if inverted else "Cut out"
    return Prepared(pixels[None, None], f"{start}, brought to MNIST's size and centred by its mass.")


def _place(mass: np.ndarray, size: int) -> int:
    """Where an axis must begin so that its centre of mass lies in the middle, as far as it fits."""
    centre = float((mass * np.arange(len(mass))).sum() / mass.sum())
    return int(np.clip(round((size - 1) / 2 - centre), 0, size - len(mass)))


_FITTED = {"crop": "The middle square of the picture", "pad": "The whole picture", "stretch": "The picture made square"}


def read_upload(
    path: str | PathLike[str], size: int, channels: int, *, as_digit: bool, reading: Mapping[str, Any] | None = None
) -> Prepared:
    """Read an image file of a user's.

    Args:
        path: the file; nothing about it is trusted.
        size: side of the result.
        channels: 1, 2 or 3, as :func:`matcaps.data.load_image`.
        as_digit: whether to bring it into the form of MNIST's images, or to take it as it is.
        reading: the fit and transparency with which the network's images were read; see
            :func:`matcaps.inference.saved.read_as`.

    Returns:
        ``pixels`` ``[1, channels, size, size]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, is damaged or too large, or nothing is drawn on it.
    """
    if not as_digit:
        how = dict(reading or {})
        return Prepared(
            load_image(path, size, channels, **how), f"{_FITTED[how.get('fit', 'crop')]}, with its own shades."
        )
    prepared = prepare_digit(load_image(path, _READ_SIZE, 1)[0, 0], size)
    return prepared._replace(pixels=prepared.pixels.repeat(1, channels, 1, 1))
