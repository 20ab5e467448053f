"""From a forward and a backward operator of torch to an implementation like any other; it knows no kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

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
    rule = activation_rule == "standardised"
    options = stride, competition == "child", rule, variance_floor, annealing, keep_state
    return operator(*tensors, schedule, coordinates, *options)


def make_implementation(operator: Any) -> tuple[Callable[..., tuple[Tensor, Tensor]], ...]:
    """Make the two functions that every implementation has of its forward operator."""

    def route(
        tensors: Sequence[Tensor],
        coordinates: Tensor | None,
        inverse_temperature: Sequence[float] | Tensor,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        schedule = schedule_tensor(inverse_temperature, tensors[0])
        inputs = (*tensors, schedule) if coordinates is None else (*tensors, schedule, coordinates)
        keep_state = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        poses, activations, *_ = call_operator(
            operator, tensors, coordinates, schedule, keep_state=keep_state, **options
        )
        return poses, activations

    def conv_em_routing(
        *tensors: Tensor, inverse_temperature: Sequence[float] | Tensor, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Route through a kernel; return poses ``[B, H', W', J, 4, 4]`` and activations ``[B, H', W', J]``."""
        return route(tensors, None, inverse_temperature, **options)

    def class_em_routing(
        *tensors: Tensor,
        coordinates: Tensor | None,
        inverse_temperature: Sequence[float] | Tensor,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """Route a whole map to classes; return poses ``[B, J, 4, 4]`` and activations ``[B, J]``."""
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


def register_gradients(forward: Any, backward: Any, name: str) -> None:
    """Tie a forward operator to its backward operator, which has no derivative.

    ``forward(*tensors, *options, keep_state)`` returns poses, activations and the parts of a state;
    ``backward(grad_poses, grad_activations, *state, *tensors, *options)`` the gradients of the tensors that are there:
    the last tensor may be None. ``name`` is the implementation's, for messages.
    """

    def setup_context(ctx, inputs, output) -> None:
        tensors, (*ctx.options, ctx.keep_state) = inputs[:-NUM_OPTIONS], inputs[-NUM_OPTIONS:]
        ctx.set_materialize_grads(False)
        ctx.num_tensors = len(tensors)
        ctx.save_for_backward(*tensors, *output)

    def differentiate(ctx, grad_poses, grad_activations, *_):
        if not ctx.keep_state:
            raise RuntimeError("this routing ran without gradients and kept no state: call it with gradients on")
        saved = ctx.saved_tensors  # once: activation checkpointing unpacks each tensor only once
        tensors, results = saved[: ctx.num_tensors], saved[ctx.num_tensors :]
        out_poses, out_activations, *state = results
        if grad_poses is None:
            grad_poses = torch.zeros_like(out_poses)
        if grad_activations is None:
            grad_activations = torch.zeros_like(out_activations)
        grads = backward(grad_poses, grad_activations, *state, *tensors, *ctx.options)
        if tensors[-1] is None:
            grads = [*grads, None]
        return *grads, *[None] * NUM_OPTIONS

    def refuse_second_order(ctx, *grads):
        raise NotImplementedError(
            f"implementation={name!r} has no second-order gradients: use implementation='reference' for them"
        )

    forward.register_autograd(differentiate, setup_context=setup_context)
    backward.register_autograd(refuse_second_order)
