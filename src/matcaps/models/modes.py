"""The state that a network is in: training or evaluation, and on which device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are; the host where it has none."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and afterwards each of its modules back into the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
