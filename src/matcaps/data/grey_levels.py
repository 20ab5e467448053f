"""Three numbers about the grey levels of images, enough to tell black on white from white on black."""

from dataclasses import dataclass

import torch
from torch import Tensor

from matcaps.data.dataset import ImageDataset

_CHUNK = 4096  # images at a time, so that a large set is not copied to float


@dataclass(frozen=True)
class Appearance:
    """Grey levels of a set of images as they were read, before any normalisation: 0 is black, 1 is white.

    Attributes:
        mean: over all pixels and channels of all images.
        deviation: standard deviation over the same.
        border_mean: mean over the outermost ring alone, a sixteenth of the side wide and at least one pixel: the
            ground, in images of one thing in the middle.
    """

    mean: float
    deviation: float
    border_mean: float


def appearance(images: ImageDataset | Tensor) -> Appearance:
    """Mean, deviation and border of some images.

    Args:
        images: a set of images, such as ``bundle.train``; or ``[N, C, H, W]``, uint8, as
            :func:`matcaps.data.load_image` returns one.

    Returns:
        Three numbers in [0, 1]; integer sums, so the same on every machine and in every order.

    Raises:
        ValueError: there are no images, or they have another shape or dtype.

    Example:
        >>> import torch
        >>> from matcaps.data import appearance
        >>> appearance(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
        Appearance(mean=0.0, deviation=0.0, border_mean=0.0)
    """
    pixels = images.images if isinstance(images, ImageDataset) else images
    if pixels.ndim != 4 or pixels.dtype != torch.uint8 or pixels.numel() == 0:
        raise ValueError(
            f"images must be uint8 of shape [N, C, H, W], at least one; got {pixels.dtype} {list(pixels.shape)}"
        )
    height, width = pixels.shape[2:]
    ring = max(1, min(height, width) // 16)
    outer = torch.ones(height, width, dtype=torch.bool)
    outer[ring : height - ring, ring : width - ring] = False
    first = second = border = 0
    for chunk in pixels.split(_CHUNK):
        values = chunk.to(torch.int64)
        first += int(values.sum())
        second += int((values * values).sum())
        border += int(values[:, :, outer].sum())
    count = pixels.numel()
    mean = first / count
    variance = max(0.0, (second * count - first * first) / (count * count))
    rim = pixels.shape[0] * pixels.shape[1] * int(outer.sum())
    return Appearance(mean / 255, variance**0.5 / 255, border / rim / 255)
