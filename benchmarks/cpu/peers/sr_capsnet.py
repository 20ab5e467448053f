"""coder3000/SR-CapsNet: its EM routing layer, ``modules.EmRouting2d``, in a network of ours.

Its own networks are other ones (deeper stems, one or two capsule layers), so that only the layer is its: the first
convolution and the primary capsules around it are ours, with neither batch normalisation nor coordinate addition.

Less than the paper: parents compete within one position's window only; no coordinates. Otherwise: the class capsules
have matrices of their own for each of the 4×4 positions, as in its networks; the log-density multiplies the variance by
ln 2π inside the logarithm.
"""

from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from benchmarks.cpu.peers.common import (
    LAST_MAP,
    POSE_COMPONENTS,
    Configuration,
    first_convolution,
    import_from,
)

REPOSITORY = "https://github.com/coder3000/SR-CapsNet"
FILE = "modules.py"
NOTE = "its EM layer, the network ours; no competition between positions, no coordinates, class matrices not shared"


class Network(nn.Module):
    def __init__(self, peer: ModuleType, configuration: Configuration):
        super().__init__()
        widths = (configuration.primary_capsules, configuration.conv_capsules1, configuration.conv_capsules2)

        def routing(children: int, parents: int, kernel_size: int, stride: int) -> nn.Module:
            return peer.EmRouting2d(
                children,
                parents,
                POSE_COMPONENTS,
                kernel_size=kernel_size,
                stride=stride,
                padding=0,
                iters=configuration.iterations,
            )

        self.stem = first_convolution(configuration)
        self.primary_activations = nn.Conv2d(configuration.stem_channels, widths[0], 1)
        self.primary_poses = nn.Conv2d(configuration.stem_channels, widths[0] * POSE_COMPONENTS, 1)
        self.conv_capsules1 = routing(widths[0], widths[1], 3, 2)
        self.conv_capsules2 = routing(widths[1], widths[2], 3, 1)
        self.class_capsules = routing(widths[2], configuration.num_classes, LAST_MAP, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images).relu()
        capsules = self.primary_activations(features).sigmoid(), self.primary_poses(features)
        activations, _ = self.class_capsules(*self.conv_capsules2(*self.conv_capsules1(*capsules)))
        return activations.flatten(1)  # the last map has one position


def build(checkout: Path, configuration: Configuration, batch: int) -> nn.Module:
    return Network(import_from(checkout, "modules"), configuration)
