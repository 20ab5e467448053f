"""What every look into a network asks of it."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from matcaps.data.devices import send
from matcaps.layers import ClassCapsules, ConvCapsules
from matcaps.models.modes import device_of, evaluation_mode

Network = TypeVar("Network", bound=nn.Module)
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


def inspects(
    look: Callable[Concatenate[Network, Rest], Result],
) -> Callable[Concatenate[Network, Rest], Result]:
    """Have a function look into its first argument without gradients, in evaluation mode, and wherever it is.

    Tensors that it is given go to the network's device first, and what it finds comes back to the host.
    """

    @wraps(look)
    @torch.no_grad()
    def checked(network: Network, *arguments: Rest.args, **options: Rest.kwargs) -> Result:
        device = device_of(network)

        def sent(one: Any) -> Any:
            return send(one, device) if isinstance(one, Tensor) else one

        with evaluation_mode(network):
            if device.type == "cpu":
                return look(network, *arguments, **options)
            anywhere: Callable[..., Any] = look
            given = [sent(one) for one in arguments]
            return on_host(anywhere(network, *given, **{name: sent(one) for name, one in options.items()}))

    return checked


def on_host(found: Any) -> Any:
    """What was found, with all its tensors on the host: in dataclasses, tuples, lists and dictionaries, too."""
    if isinstance(found, Tensor):
        return found.cpu()
    if is_dataclass(found) and not isinstance(found, type):
        return replace(found, **{one.name: on_host(getattr(found, one.name)) for one in fields(found) if one.init})
    if isinstance(found, tuple):
        parts = [on_host(one) for one in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    if isinstance(found, list):
        return [on_host(one) for one in found]
    if isinstance(found, dict):
        kind = OrderedDict if isinstance(found, OrderedDict) else dict
        return kind((name, on_host(one)) for name, one in found.items())
    return found


def copy_to_look_into(network: Network) -> Network:
    """A copy where the network is, in evaluation mode: what trains goes on untouched."""
    return copy.deepcopy(network).eval()


def copy_on_cpu(network: Network) -> Network:
    """A copy to look into, on the CPU and in evaluation mode: what trains goes on untouched, wherever it is.

    Routing for which only an accelerator will do, ``implementation="cuda"``, is done by what there is for a CPU.
    """
    copied = copy.deepcopy(network).cpu().eval()
    for module in copied.modules():
        if isinstance(module, ConvCapsules | ClassCapsules) and module.routing.implementation == "cuda":
            module.routing.implementation = "auto"
    return copied
