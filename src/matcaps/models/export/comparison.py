"""Whether a file computes what the network computes."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from matcaps.models.export.graph import Outputs, expected_outputs

TOLERANCE = 1e-4
"""How far outputs may lie from the network's."""

_LITTLE_WORSE = 4

Reader = Callable[[Tensor], Outputs]


def difference(found: Outputs, expected: Outputs) -> float:
    """The largest difference of an output, relative to its largest number where that is above 1; NaN if one is."""
    differences = [
        (found[name] - value).abs().max() / value.abs().max().clamp_min(1) for name, value in expected.items()
    ]
    return float(torch.stack(differences).max())


@dataclass(frozen=True)
class Comparison:
    """How far outputs lie from those of the network in float64, on random images.

    Attributes:
        file: the file's.
        network: the network's own, in float32.
    """

    file: float
    network: float

    @property
    def is_close(self) -> bool:
        """Within the tolerance, or little worse than the network itself, whose numbers may hang on the last digits."""
        return self.file <= TOLERANCE or self.file <= _LITTLE_WORSE * self.network


def compare(reader: Reader, network: nn.Module, example: Tensor, *, trace: bool, dynamic: bool) -> Comparison:
    """Compare a file with the network on random images.

    Args:
        reader: from images to what the file makes of them.
        network: what it must be like.
        example: images of the shape that it takes.
        trace: whether iterations are among the outputs.
        dynamic: whether it takes any number of images: then one, and three, are tried.
    """
    generator = torch.Generator().manual_seed(0)
    exact = copy.deepcopy(network).double()
    of_file, of_network = [], []
    for count in (1, 3) if dynamic else (1,):
        images = torch.rand(count, *example.shape[1:], generator=generator)
        expected = expected_outputs(exact, images.double(), trace=trace)
        of_file.append(difference(reader(images), expected))
        of_network.append(difference(expected_outputs(network, images, trace=trace), expected))
    return Comparison(*(float(torch.tensor(found).max()) for found in (of_file, of_network)))  # NaN if one is
