"""Known rotations and shifts of stored images."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def rotate_images(images: Tensor, degrees: float) -> Tensor:
    """Rotate images counter-clockwise about their centre; bilinear, filled with black.

    Args:
        images: ``[N, C, H, W]``, uint8, H equal to W.
        degrees: the angle.

    Returns:
        ``[N, C, H, W]``, uint8.
    """
    angle = math.radians(degrees)
    # the grid gives the source of each output pixel: rotated clockwise
    theta = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]], dtype=torch.float32
    )
    grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    rotated = F.grid_sample(images.to(torch.float32), grid, "bilinear", "zeros", align_corners=False)
    return rotated.round().clamp(0, 255).to(torch.uint8)


def shift_images(images: Tensor, down: int, right: int) -> Tensor:
    """Shift images by whole pixels; the rest is filled with black.

    Args:
        images: ``[N, C, H, W]``.
        down: rows; negative for up.
        right: columns; negative for left.
    """
    return F.pad(images, (right, -right, down, -down))
