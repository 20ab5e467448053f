"""Batch normalisation before the routing: convolutions whose output keeps its scale."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matcaps.layers.shared_batch import normalise_whole, present_share


class NormalisedConv2d(nn.Conv2d):
    """A convolution without a bias, and batch normalisation after it (Ioffe and Szegedy 2015).

    If its weights are frozen, its statistics stay unchanged, too.

    Args:
        in_channels: input feature maps.
        out_channels: output feature maps.
        kernel_size: rows and columns.
        stride: of the convolution.
        affine: whether scale and shift are learned after normalising.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, affine: bool = True):
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=False)
        self.normalisation = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C', H', W']``, channels last in memory, the order in which capsules read them.

        Otherwise the normalisation's backward pass would take three times as long on the CPU as the convolution.
        """
        norm, features = self.normalisation, super().forward(input.contiguous(memory_format=torch.channels_last))
        if norm.training and not self.weight.requires_grad:
            mean, variance = norm.running_mean, norm.running_var
            return F.batch_norm(features, mean, variance, norm.weight, norm.bias, eps=norm.eps)
        if norm.training and present_share() is not None:
            return normalise_whole(features, norm)
        return norm(features)


def convolution(normalise: bool, *sizes: int, affine: bool = True) -> nn.Conv2d:
    """A convolution, with batch normalisation or a bias; ``sizes`` are the arguments of ``nn.Conv2d``."""
    settings: Any = sizes
    return NormalisedConv2d(*settings, affine=affine) if normalise else nn.Conv2d(*settings)
