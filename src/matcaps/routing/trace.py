"""Every iteration's state, for looking inside a routing.

Where gradients are wanted it is the reference's; otherwise it can be what the compiled core, or the GPU path, keeps
anyway, in a fraction of the time and without the votes in memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from matcaps.routing import cuda_trace, native_trace, reference
from matcaps.routing.autocast import without_autocast
from matcaps.routing.checks import prepare_class, prepare_conv, prepare_votes
from matcaps.routing.choice import check_implementation, choose_implementation, tensors_among
from matcaps.routing.reference import RoutingIteration
from matcaps.routing.transforms import is_transformed


def trace_em_routing(
    votes: Tensor,
    activations: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    inverse_temperature: Sequence[float] | Tensor,
    activation_rule: str = "paper",
    variance_floor: float = 5e-4,
    annealing: float = 1.0,
) -> list[RoutingIteration]:
    """Route as :func:`matcaps.routing.em_routing` does and return the state after every M-step.

    Takes the arguments of :func:`matcaps.routing.em_routing` and raises what it raises. The last state's ``mean``
    and ``activation`` are what that function returns, save that half precision stays in float32 here.

    Returns:
        One :class:`RoutingIteration` an iteration.
    """
    tensors, options = prepare_votes(
        votes,
        activations,
        beta_use,
        beta_activation,
        inverse_temperature=inverse_temperature,
        activation_rule=activation_rule,
        variance_floor=variance_floor,
        annealing=annealing,
    )
    with without_autocast(tensors[0].device):
        return list(reference.em_routing(*tensors, **options))


def trace_conv_em_routing(
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    stride: int = 1,
    inverse_temperature: Sequence[float] | Tensor,
    competition: str = "child",
    activation_rule: str = "paper",
    variance_floor: float = 5e-4,
    annealing: float = 1.0,
    implementation: str = "auto",
) -> list[RoutingIteration]:
    """Route as :func:`matcaps.routing.conv_em_routing` does and return the state after every M-step.

    Takes the arguments of that function and raises what it raises. ``"auto"`` takes the reference where a gradient
    is wanted, which ``"native"`` and ``"cuda"`` have not here and raise ``ValueError``; and, as there, for vector
    poses.

    Returns:
        One :class:`RoutingIteration` an iteration, with leading dimensions ``[B, H', W']`` and the ``K·K·I``
        children of a window in the order (row, column, type).
    """
    check_implementation(implementation)
    tensors, options = prepare_conv(
        poses,
        activations,
        weight,
        beta_use,
        beta_activation,
        stride=stride,
        inverse_temperature=inverse_temperature,
        competition=competition,
        activation_rule=activation_rule,
        variance_floor=variance_floor,
        annealing=annealing,
    )
    with without_autocast(tensors[0].device):
        chosen = _choose(implementation, tensors, options)
        if chosen == "native":
            return [RoutingIteration(*state) for state in native_trace.conv_em_routing(*tensors, **options)]
        if chosen == "cuda":
            return [RoutingIteration(*state) for state in cuda_trace.conv_em_routing(*tensors, **options)]
        return list(reference.conv_em_routing(*tensors, **options))


def trace_class_em_routing(
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    coordinates: Tensor | None = None,
    inverse_temperature: Sequence[float] | Tensor,
    activation_rule: str = "paper",
    variance_floor: float = 5e-4,
    annealing: float = 1.0,
    implementation: str = "auto",
) -> list[RoutingIteration]:
    """Route as :func:`matcaps.routing.class_em_routing` does and return the state after every M-step.

    Takes the arguments of that function and raises what it raises. ``"auto"`` takes the reference where a gradient
    is wanted, which ``"native"`` and ``"cuda"`` have not here and raise ``ValueError``; and, as there, for vector
    poses.

    Returns:
        One :class:`RoutingIteration` an iteration, with leading dimension ``[B]`` and the ``H·W·I`` children in the
        order (row, column, type).
    """
    check_implementation(implementation)
    tensors, options = prepare_class(
        poses,
        activations,
        weight,
        beta_use,
        beta_activation,
        coordinates=coordinates,
        inverse_temperature=inverse_temperature,
        activation_rule=activation_rule,
        variance_floor=variance_floor,
        annealing=annealing,
    )
    with without_autocast(tensors[0].device):
        chosen = _choose(implementation, tensors, options)
        if chosen == "native":
            return [RoutingIteration(*state) for state in native_trace.class_em_routing(*tensors, **options)]
        if chosen == "cuda":
            return [RoutingIteration(*state) for state in cuda_trace.class_em_routing(*tensors, **options)]
        return list(reference.class_em_routing(*tensors, **options))


def _choose(implementation: str, tensors: Sequence[Tensor], options: dict[str, Any]) -> str:
    chosen = choose_implementation(implementation, tensors, options)
    wants_grad = is_transformed() or any(t.requires_grad for t in tensors_among(tensors, options))
    needs_grad = torch.is_grad_enabled() and wants_grad
    if chosen != "reference" and needs_grad:
        if implementation != "auto":
            raise ValueError(
                f"implementation={implementation!r} traces without gradients; got tensors that require them: "
                "trace under torch.no_grad(), or use implementation='reference'"
            )
        return "reference"
    return chosen
