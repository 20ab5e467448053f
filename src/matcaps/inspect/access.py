"""How the functions of this package access a network: in evaluation mode, without gradients, on any device."""

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
    function: Callable[Concatenate[Network, Rest], Result],
) -> Callable[Concatenate[Network, Rest], Result]:
    """Decorate a function that inspects a network, its first argument: no gradients, evaluation mode, any device.

    Its tensor arguments are sent to the network's device first, and the tensors of its result to the CPU.
    """

    @wraps(function)
    @torch.no_grad()
    def checked(network: Network, *arguments: Rest.args, **options: Rest.kwargs) -> Result:
        device = device_of(network)

        def to_device(value: Any) -> Any:
            return send(value, device) if isinstance(value, Tensor) else value

        with evaluation_mode(network):
            if device.type == "cpu":
                return function(network, *arguments, **options)
            untyped: Callable[..., Any] = function
            sent = [to_device(value) for value in arguments]
            return on_host(untyped(network, *sent, **{name: to_device(value) for name, value in options.items()}))

    return checked


def on_host(result: Any) -> Any:
    """Return a result with all its tensors on the CPU, those in dataclasses, tuples, lists and dictionaries, too."""
    if isinstance(result, Tensor):
        return result.cpu()
    if is_dataclass(result) and not isinstance(result, type):
        return replace(result, **{one.name: on_host(getattr(result, one.name)) for one in fields(result) if one.init})
    if isinstance(result, tuple):
        parts = [on_host(one) for one in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if isinstance(result, list):
        return [on_host(one) for one in result]
    if isinstance(result, dict):
        kind = OrderedDict if isinstance(result, OrderedDict) else dict
        return kind((name, on_host(one)) for name, one in result.items())
    return result


def evaluation_copy(network: Network) -> Network:
    """A copy on the network's device, in evaluation mode, so that the network can go on training."""
    return copy.deepcopy(network).eval()


def evaluation_copy_on_cpu(network: Network) -> Network:
    """A copy on the CPU, in evaluation mode, so that the network can go on training.

    Layers with ``implementation="cuda"``, which needs a GPU, get ``"auto"``.
    """
    copied = copy.deepcopy(network).cpu().eval()
    for module in copied.modules():
        if isinstance(module, ConvCapsules | ClassCapsules) and module.routing.implementation == "cuda":
            module.routing.implementation = "auto"
    return copied
