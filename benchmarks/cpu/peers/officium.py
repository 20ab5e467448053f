"""Officium/Capsules: its primary and convolutional capsule layers, in a network of the asked widths.

Its ``CapsuleNet`` has 32 types a layer and 5 classes written into it, so that the network here is ours: its capsule
layers in the same order, after the same first convolution. Its module imports torchvision, but only its training uses
it; an empty module stands in.

Otherwise than the paper: the assignments of a kernel slot (one place in the window, one child type) are normalised
over all parents at all positions, although that slot holds another child at each position; the E-step multiplies the
log-density by the activation instead of adding the activation's logarithm; β is laid out along positions, not along
types. There is no batch normalisation. The class capsules are a 4×4 kernel with shared matrices.
"""

import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

from torch import Tensor, nn

from benchmarks.cpu.peers.common import LAST_MAP, Configuration, first_convolution, import_from

REPOSITORY = "https://github.com/Officium/Capsules"
FILE = "src/matrix_capsules.py"
NOTE = "its layers, the network ours; assignments are normalised over all positions, even where the children differ"


class Network(nn.Module):
    def __init__(self, peer: ModuleType, configuration: Configuration):
        super().__init__()
        widths = (configuration.primary_capsules, configuration.conv_capsules1, configuration.conv_capsules2)
        iterations = configuration.iterations
        self.stem = first_convolution(configuration)
        self.primary_capsules = peer.PrimaryCapsule(configuration.stem_channels, widths[0])
        self.conv_capsules1 = peer.ConvCapsule(widths[0], widths[1], 3, stride=2, iters=iterations)
        self.conv_capsules2 = peer.ConvCapsule(widths[1], widths[2], 3, stride=1, iters=iterations)
        self.class_capsules = peer.ConvCapsule(
            widths[2],
            configuration.num_classes,
            LAST_MAP,
            stride=1,
            iters=iterations,
            add_coordinate=True,
            share_transformation=True,
        )

    def forward(self, images: Tensor) -> Tensor:
        capsules = self.primary_capsules(self.stem(images).relu())
        capsules = self.conv_capsules2(*self.conv_capsules1(*capsules))
        activations, _ = self.class_capsules(*capsules)
        return activations.view(len(images), -1)  # one row for each image and class


def build(checkout: Path, configuration: Configuration, batch: int) -> nn.Module:
    torchvision = ModuleType("torchvision")
    torchvision.__dict__["transforms"] = None
    # only while the peer is imported: torch itself looks for torchvision later
    with mock.patch.dict(sys.modules, {"torchvision": torchvision}):
        peer = import_from(checkout / "src", "matrix_capsules")
    return Network(peer, configuration)
