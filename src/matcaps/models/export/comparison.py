"""Whether a file computes what the network computes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from matcaps.models.export.graph import Outputs, expected_outputs

TOLERANCE = 1e-4
"""How far outputs may lie from the network's."""

Reader = Callable[[Tensor], Outputs]


def difference(found: Outputs, expected: Outputs) -> float:
    """The largest difference of an output, relative to its largest number where that is above 1; NaN if one is."""
    differences = [
        (found[name] - value).abs().max() / value.abs().max().clamp_min(1) for name, value in expected.items()
    ]
    return float(torch.stack(differences).max())


def largest_difference(
    reader: Reader | None, network: nn.Module, example: Tensor, *, trace: bool, dynamic: bool
) -> float | None:
    """Compare a file with the network on random images.

    Args:
        reader: from images to what the file makes of them; None if nothing can read it here.
        network: what it must be like.
        example: images of the shape that it takes.
        trace: whether iterations are among the outputs.
        dynamic: whether it takes any number of images: then one, and three, are tried.
    """
    if reader is None:
        return None
    generator = torch.Generator().manual_seed(0)
    found = []
    for count in (1, 3) if dynamic else (1,):
        images = torch.rand(count, *example.shape[1:], generator=generator)
        found.append(difference(reader(images), expected_outputs(network, images, trace=trace)))
    return float(torch.tensor(found).max())
