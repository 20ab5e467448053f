"""What every look into a network asks of it."""

import copy
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from matcaps.layers import ClassCapsules, ConvCapsules
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


def copy_on_cpu(network: Network) -> Network:
    """A copy to look into, on the CPU and in evaluation mode: what trains goes on untouched, wherever it is.

    Routing for which only an accelerator will do, ``implementation="cuda"``, is done by what there is for a CPU.
    """
    copied = copy.deepcopy(network).cpu().eval()
    for module in copied.modules():
        if isinstance(module, ConvCapsules | ClassCapsules) and module.routing.implementation == "cuda":
            module.routing.implementation = "auto"
    return copied
