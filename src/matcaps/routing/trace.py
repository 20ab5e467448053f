"""Every iteration's state, for looking inside a routing.

Where gradients are wanted it is the reference's; otherwise it can be what the compiled core, or the GPU path, keeps
anyway, in a fraction of the time and without the votes in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from matcaps.capsules import RoutingIteration
from matcaps.routing import cuda_trace, native_trace, reference
from matcaps.routing.autocast import without_autocast
from matcaps.routing.checks import as_schedule, prepare_class, prepare_conv, prepare_votes
from matcaps.routing.choice import check_implementation, choose_implementation
from matcaps.routing.spec import RoutingInputs, RoutingSpec
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
    schedule = as_schedule(inverse_temperature, beta_use)
    spec = RoutingSpec(activation_rule=activation_rule, variance_floor=variance_floor, annealing=annealing)
    tensors = prepare_votes(votes, activations, beta_use, beta_activation, schedule)
    with without_autocast(votes.device):
        return list(reference.em_routing(*tensors, spec))


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
    schedule = as_schedule(inverse_temperature, beta_use)
    spec = RoutingSpec(stride, competition, activation_rule, variance_floor, annealing, implementation)
    return trace_conv(RoutingInputs(poses, activations, weight, beta_use, beta_activation, schedule), spec)


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
    schedule = as_schedule(inverse_temperature, beta_use)
    spec = RoutingSpec(
        activation_rule=activation_rule,
        variance_floor=variance_floor,
        annealing=annealing,
        implementation=implementation,
    )
    return trace_class(
        RoutingInputs(poses, activations, weight, beta_use, beta_activation, schedule, coordinates), spec
    )


def trace_conv(inputs: RoutingInputs, spec: RoutingSpec) -> list[RoutingIteration]:
    """Do what :func:`trace_conv_em_routing` does, for a layer, which has its options in one object."""
    check_implementation(spec.implementation)
    return _trace(prepare_conv(inputs), spec)


def trace_class(inputs: RoutingInputs, spec: RoutingSpec) -> list[RoutingIteration]:
    """Do what :func:`trace_class_em_routing` does, for a layer, which has its options in one object."""
    check_implementation(spec.implementation)
    return _trace(prepare_class(inputs), spec)


def _trace(inputs: RoutingInputs, spec: RoutingSpec) -> list[RoutingIteration]:
    with without_autocast(inputs.poses.device):
        chosen = _choose(inputs, spec)
        if chosen == "native":
            return native_trace.trace(inputs, spec)
        if chosen == "cuda":
            return cuda_trace.trace(inputs, spec)
        return list(reference.route(inputs, spec))


def _choose(inputs: RoutingInputs, spec: RoutingSpec) -> str:
    chosen = choose_implementation(inputs, spec)
    wants_grad = is_transformed() or any(tensor.requires_grad for tensor in inputs.tensors())
    if chosen != "reference" and torch.is_grad_enabled() and wants_grad:
        if spec.implementation != "auto":
            raise ValueError(
                f"implementation={spec.implementation!r} traces without gradients; got tensors that require them: "
                "trace under torch.no_grad(), or use implementation='reference'"
            )
        return "reference"
    return chosen
