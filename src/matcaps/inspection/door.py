"""What every look into a network asks of it."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from matcaps.models.modes import evaluation_mode

Network = TypeVar("Network", bound=nn.Module)
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


def inspects(
    look: Callable[Concatenate[Network, Rest], Result],
) -> Callable[Concatenate[Network, Rest], Result]:
    """Have a function look into its first argument without gradients and in evaluation mode, and only on the CPU.

    Raises:
        ValueError: when it is called with a network that is elsewhere.
    """

    @wraps(look)
    @torch.no_grad()
    def checked(network: Network, *arguments: Rest.args, **options: Rest.kwargs) -> Result:
        device = next(network.parameters()).device
        if device.type != "cpu":
            raise ValueError(f"network must be on the CPU to be looked into; got one on {device}: give network.cpu()")
        with evaluation_mode(network):
            return look(network, *arguments, **options)

    return checked
