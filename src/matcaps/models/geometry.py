"""Receptive fields of a map's positions, along one axis of the image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """Positions of a map along rows or columns, by the centres of their receptive fields.

    Attributes:
        size: positions.
        first: centre of the first position's receptive field, in pixels; 0 is the first pixel's centre.
        step: pixels from one centre to the next.
        extent: pixels of a receptive field, padding included.
    """

    size: int
    first: float = 0.0
    step: float = 1.0
    extent: float = 1.0

    def convolve(self, kernel_size: int, stride: int, padding: str = "valid") -> "Axis":
        """The axis after a convolution; its size may be below 1."""
        before, after = same_padding(self.size, kernel_size, stride) if padding == "same" else (0, 0)
        return Axis(
            size=(self.size + before + after - kernel_size) // stride + 1,
            first=self.first + self.step * ((kernel_size - 1) / 2 - before),
            step=self.step * stride,
            extent=self.extent + self.step * (kernel_size - 1),
        )

    def centres(self, device: torch.device | None = None) -> Tensor:
        """Centres of the receptive fields in pixels, ``[size]``, float64; float32 on Apple's GPUs, which lack it."""
        dtype = torch.float32 if device is not None and device.type == "mps" else torch.float64
        return self.first + self.step * torch.arange(self.size, dtype=dtype, device=device)


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels to add before and after, so that there are ``ceil(size / stride)`` positions (TensorFlow's rule)."""
    total = max(0, (math.ceil(size / stride) - 1) * stride + kernel_size - size)
    return total // 2, total - total // 2


def receptive_field_coordinates(
    rows: Axis, columns: Axis, height: int, width: int, device: torch.device | None = None
) -> Tensor:
    """Centres of the receptive fields over the image's size: ``[H, W, 2]``, row and column.

    A pixel's centre lies half a pixel into the image, so the middle of the image has coordinate 1/2. The result is made
    on ``device``, because a copy to a GPU cannot be part of a CUDA graph.
    """
    return torch.stack(
        torch.meshgrid(
            (rows.centres(device) + 0.5) / height,
            (columns.centres(device) + 0.5) / width,
            indexing="ij",
        ),
        dim=-1,
    )
