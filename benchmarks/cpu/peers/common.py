"""What the adapters share: the two networks that everyone builds, and the import from a checkout."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

POSE_COMPONENTS = 16

STEM_KERNEL_SIZE, STEM_STRIDE = 5, 2

LAST_MAP = 4
"""Rows and columns of the last convolutional capsules: images → 14 → 6 → 4 in both configurations."""


class CannotBuildError(Exception):
    """A peer has no network for this configuration; the message says why."""


@dataclass(frozen=True)
class Configuration:
    """A matrix capsule network as the paper writes it, with its letters A to E.

    Attributes:
        name: also the preset of ours.
        padded: the first convolution is padded, so that 28 pixels give a map of 14 positions a side.
    """

    name: str
    in_channels: int
    image_size: int
    num_classes: int
    stem_channels: int
    primary_capsules: int
    conv_capsules1: int
    conv_capsules2: int
    padded: bool
    iterations: int = 3

    @property
    def stem_padding(self) -> int:
        """Pixels on each side, for peers whose convolution pads alike on both."""
        return STEM_KERNEL_SIZE // 2 if self.padded else 0


CONFIGURATIONS = {
    found.name: found
    for found in (
        Configuration("paper-small", 2, 32, 5, 64, 8, 16, 16, padded=False),
        Configuration("tutorial", 1, 28, 10, 32, 32, 32, 32, padded=True),
    )
}


def first_convolution(configuration: Configuration) -> nn.Conv2d:
    """The convolution before the primary capsules, for peers that have none of these widths."""
    return nn.Conv2d(
        configuration.in_channels,
        configuration.stem_channels,
        STEM_KERNEL_SIZE,
        STEM_STRIDE,
        padding=configuration.stem_padding,
    )


def import_from(folder: Path, module: str) -> ModuleType:
    """Import a module of a checkout by the name under which the checkout's own files import it."""
    sys.dont_write_bytecode = True  # the checkout stays as it is
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(module)
