"""The preset of matcaps that has the configuration's name, with ``implementation="auto"``.

``paper-small`` follows the paper: all parents that see a child compete for it, whatever their position. ``tutorial``
follows the tutorial: parents compete within a window. Its first convolution pads one pixel before and two behind, as
TensorFlow does; the peers pad two on both sides. Both give a map of 14×14.
"""

from pathlib import Path

from torch import nn

import matcaps
from benchmarks.cpu.peers.common import Configuration

NOTE = "paper-small: competition across positions, as in the paper; tutorial: within a window, as in the tutorial"


def build(checkout: Path | None, configuration: Configuration, batch: int) -> nn.Module:
    network = matcaps.create_model(
        configuration.name,
        in_channels=configuration.in_channels,
        num_classes=configuration.num_classes,
        stem_channels=configuration.stem_channels,
        primary_capsules=configuration.primary_capsules,
        conv_capsules1=configuration.conv_capsules1,
        conv_capsules2=configuration.conv_capsules2,
        stem_padding="same" if configuration.padded else "valid",
        iterations=configuration.iterations,
    )
    network.register_forward_hook(lambda module, inputs, classes: classes.activations)
    return network
