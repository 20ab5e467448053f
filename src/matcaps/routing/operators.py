"""From a forward and a backward operator of torch to an implementation like any other; it knows no kernel."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matcaps.routing.checks import ACTIVATION_RULES
from matcaps.routing.functional import make_functional
from matcaps.routing.transforms import SECOND_ORDER, is_transformed

NUM_OPTIONS = 6
"""Arguments of a forward operator after its tensors; the last says whether the state for a backward pass is kept."""

ONE_WINDOW: dict[str, Any] = {"stride": 1, "competition": "window"}
"""What class capsules are to an operator: a convolution with one window, the whole map."""


def call_operator(
    operator: Any,
    tensors: Sequence[Tensor],
    coordinates: Tensor | None,
    schedule: Tensor,
    *,
    stride: int,
    competition: str,
    activation_rule: str,
    variance_floor: float,
    annealing: float,
    keep_state: bool,
) -> tuple[Tensor, ...]:
    """Call a forward operator in the words of the doors.

    Returns:
        Poses, activations and the parts of the state that a backward pass needs, empty if it is not kept.
    """
    rule = ACTIVATION_RULES.index(activation_rule)
    options = stride, competition == "child", rule, variance_floor, annealing, keep_state
    return operator(*tensors, schedule, coordinates, *options)


class RoutingFit(NamedTuple):
    """How the Gaussians of the last iteration fit their data, without a gradient: what a layer's statistics need.

    Attributes:
        mass: ``[..., J]``, how much data each parent has.
        cost: ``[..., J]``, what they cost, in nats, as the activation rule counts it.
    """

    mass: Tensor
    cost: Tensor


def make_implementation(
    operator: Any, read_fit: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Callable[..., tuple[Tensor, ...]], ...]:
    """Make the two functions that every implementation has of its forward operator.

    ``read_fit(state, poses, weight, shape, iterations)`` takes mass and description of the last iteration, the
    cost of a unit of data, out of the parts of a state, each of the shape of the parents' activations.
    """

    def route(
        tensors: Sequence[Tensor],
        coordinates: Tensor | None,
        inverse_temperature: Sequence[float] | Tensor,
        *,
        wants_fit: bool = False,
        **options: Any,
    ) -> tuple[Tensor, ...]:
        schedule = schedule_tensor(inverse_temperature, tensors[0])
        inputs = (*tensors, schedule) if coordinates is None else (*tensors, schedule, coordinates)
        # A tensor that is mapped or wrapped does not say whether a gradient is wanted further out; and torch.jit.trace,
        # which has the answer in its graph, looks again without gradients and wants to see the same.
        wants_grad = is_transformed() or any(tensor.requires_grad for tensor in inputs)
        keep_state = wants_grad and (torch.is_grad_enabled() or torch.jit.is_tracing())  # type: ignore
        poses, activations, *state = call_operator(
            operator, tensors, coordinates, schedule, keep_state=keep_state or wants_fit, **options
        )
        if not wants_fit:
            return poses, activations
        with torch.no_grad():
            fit = read_fit([part.detach() for part in state], tensors[0], tensors[2], activations.shape, len(schedule))
        return poses, activations, *fit

    def conv_em_routing(
        *tensors: Tensor, inverse_temperature: Sequence[float] | Tensor, **options: Any
    ) -> tuple[Tensor, ...]:
        """Route through a kernel; return poses ``[B, H', W', J, 4, 4]`` and activations ``[B, H', W', J]``.

        With ``wants_fit`` mass and description of the last iteration follow, the cost of a unit of data.
        """
        return route(tensors, None, inverse_temperature, **options)

    def class_em_routing(
        *tensors: Tensor,
        coordinates: Tensor | None,
        inverse_temperature: Sequence[float] | Tensor,
        **options: Any,
    ) -> tuple[Tensor, ...]:
        """Route a whole map to classes; return poses ``[B, J, 4, 4]`` and activations ``[B, J]``.

        With ``wants_fit`` mass and description of the last iteration follow, the cost of a unit of data.
        """
        return route(tensors, coordinates, inverse_temperature, **ONE_WINDOW, **options)

    return conv_em_routing, class_em_routing


def schedule_tensor(inverse_temperature: Sequence[float] | Tensor, like: Tensor) -> Tensor:
    """The schedule as a tensor ``[T]`` of another's dtype, and on its device unless it is a tensor already."""
    if isinstance(inverse_temperature, Tensor):
        return inverse_temperature.to(like.dtype)
    if like.device.type == "cpu":
        return torch.tensor(inverse_temperature, dtype=like.dtype)
    # filled in on the device: a copy to it would not go into a CUDA graph
    return torch.stack([like.new_full((), value) for value in inverse_temperature])


def register_derivatives(
    forward: Any, backward: Any, name: str, batch_dimensions: Sequence[int]
) -> Callable[..., Sequence[Tensor]]:
    """Tie a forward operator to its backward operator, which has no derivative; return a function that calls it.

    That function, other than the operator itself, goes along with ``torch.func``.

    ``forward(*tensors, *options, keep_state)`` returns poses, activations and the parts of a state;
    ``backward(grad_poses, grad_activations, *state, *tensors, *options)`` the gradients of the tensors, something empty
    for the last one where that is None. ``name`` is the implementation's, for messages; ``batch_dimensions`` are
    explained in :func:`matcaps.routing.functional.make_functional`.
    """

    def setup_context(ctx, inputs, output) -> None:
        tensors, (*ctx.options, ctx.keep_state) = inputs[:-NUM_OPTIONS], inputs[-NUM_OPTIONS:]
        ctx.set_materialize_grads(False)
        ctx.num_tensors = len(tensors)
        ctx.save_for_backward(*tensors, *output)

    def differentiate(ctx, call_backward, grad_poses, grad_activations, *_):
        if not ctx.keep_state:
            raise RuntimeError(
                "matcaps: this routing ran without gradients and kept no state: call it (or trace it, for "
                "torch.jit.trace) with gradients on"
            )
        saved = ctx.saved_tensors  # once: activation checkpointing unpacks each tensor only once
        tensors, results = saved[: ctx.num_tensors], saved[ctx.num_tensors :]
        out_poses, out_activations, *state = results
        if grad_poses is None:
            grad_poses = torch.zeros_like(out_poses)
        if grad_activations is None:
            grad_activations = torch.zeros_like(out_activations)
        grads = call_backward(grad_poses, grad_activations, *state, *tensors, *ctx.options)
        if tensors[-1] is None:
            grads = [*grads[:-1], None]
        return *grads, *[None] * NUM_OPTIONS

    def refuse(what: str) -> NotImplementedError:
        return NotImplementedError(lacks(name, what))

    def refuse_second_order(ctx, *grads):
        raise refuse(SECOND_ORDER)

    forward.register_autograd(partial(_with_operator, differentiate, backward), setup_context=setup_context)
    backward.register_autograd(refuse_second_order)
    functional = make_functional(forward, backward, setup_context, differentiate, refuse, batch_dimensions)

    def call(*args: Any) -> Sequence[Tensor]:
        return forward(*args) if torch.compiler.is_compiling() else functional(*args)

    return call


def _with_operator(differentiate: Callable, backward: Any, ctx: Any, *grads: Tensor) -> Any:
    return differentiate(ctx, backward, *grads)


def lacks(name: str, what: str) -> str:
    """Say that an implementation cannot do something, and what can."""
    return (
        f"matcaps: implementation={name!r} has no {what}: use implementation='reference', an argument of "
        "matcaps.create_model, matcaps.from_pretrained, the layers and the routing functions"
    )
