"""Makes operators of torch, and an implementation, from a forward and a backward function; knows no kernel."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matcaps.capsules import Capsules
from matcaps.routing.functional import make_functional
from matcaps.routing.spec import RoutingInputs, RoutingSpec
from matcaps.routing.transforms import SECOND_ORDER, is_transformed

_INPUTS = (
    "Tensor poses, Tensor activations, Tensor weight, Tensor beta_use, Tensor beta_activation, "
    "Tensor inverse_temperature, Tensor? coordinates"
)
_OPTIONS = "SymInt stride, bool child_competition, SymInt activation_rule, float variance_floor, float annealing"


class OperatorOptions(NamedTuple):
    """A :class:`RoutingSpec` as a registered operator takes it: numbers, which may be symbols where torch compiles."""

    stride: int
    child_competition: bool
    activation_rule: int
    variance_floor: float
    annealing: float


_NUM_INPUTS, _NUM_OPTIONS = len(RoutingInputs._fields), len(OperatorOptions._fields)


def operator_options(spec: RoutingSpec) -> OperatorOptions:
    """Convert a spec to the options that operators take."""
    return OperatorOptions(
        spec.stride, spec.child_competition, spec.rule, float(spec.variance_floor), float(spec.annealing)
    )


def split_arguments(arguments: Sequence[Any]) -> tuple[RoutingInputs, OperatorOptions, Sequence[Any]]:
    """Split the arguments of a forward operator into inputs, options, and what follows them."""
    end = _NUM_INPUTS + _NUM_OPTIONS
    return (
        RoutingInputs(*arguments[:_NUM_INPUTS]),
        OperatorOptions(*arguments[_NUM_INPUTS:end]),
        arguments[end:],
    )


Forward = Callable[[RoutingInputs, OperatorOptions, bool], tuple[Tensor, ...]]
"""From inputs, options and whether the state is kept to poses, activations and the parts of the state."""

Backward = Callable[[Sequence[Tensor], Sequence[Tensor], RoutingInputs, OperatorOptions], tuple[Tensor, ...]]
"""From two gradients, the parts of the state, inputs and options to one gradient an input, empty where it is None."""


def register_operators(
    name: str,
    state: Sequence[str],
    device_types: str | Sequence[str],
    *,
    forward: Forward,
    fake_forward: Forward,
    backward: Backward,
    fake_backward: Backward,
) -> tuple[Any, Any]:
    """Register ``matcaps::NAME`` and ``matcaps::NAME_backward``; return the two operators.

    Args:
        name: of the forward operator.
        state: names of the parts of the state that a backward pass needs.
        device_types: where they run.
        forward: computes.
        fake_forward: makes results of the right shape for torch's compiler, and refuses what ``forward`` refuses.
        backward: computes gradients.
        fake_backward: the same for it.
    """
    parts = len(state)

    def call_forward(compute: Forward) -> Callable[..., tuple[Tensor, ...]]:
        def call(*arguments: Any) -> tuple[Tensor, ...]:
            inputs, options, (keep_state,) = split_arguments(arguments)
            return compute(inputs, options, keep_state)

        return call

    def call_backward(compute: Backward) -> Callable[..., tuple[Tensor, ...]]:
        def call(*arguments: Any) -> tuple[Tensor, ...]:
            inputs, options, _ = split_arguments(arguments[2 + parts :])
            return compute(arguments[:2], arguments[2 : 2 + parts], inputs, options)

        return call

    states = "".join(f"Tensor {part}, " for part in state)
    forward_operator = torch.library.custom_op(
        f"matcaps::{name}",
        call_forward(forward),
        mutates_args=(),
        device_types=device_types,
        schema=f"({_INPUTS}, {_OPTIONS}, bool keep_state) -> ({', '.join(['Tensor'] * (2 + parts))})",
    )
    backward_operator = torch.library.custom_op(
        f"matcaps::{name}_backward",
        call_backward(backward),
        mutates_args=(),
        device_types=device_types,
        schema=f"(Tensor grad_poses, Tensor grad_activations, {states}{_INPUTS}, {_OPTIONS}) "
        f"-> ({', '.join(['Tensor'] * _NUM_INPUTS)})",
    )
    forward_operator.register_fake(call_forward(fake_forward))
    backward_operator.register_fake(call_backward(fake_backward))
    return forward_operator, backward_operator


class RoutingFit(NamedTuple):
    """How the Gaussians of the last iteration fit their data, without a gradient: what a layer's statistics need.

    Attributes:
        mass: ``[..., J]``, how much data each parent has.
        cost: ``[..., J]``, the cost of these data in nats, as the activation rule defines it.
    """

    mass: Tensor
    cost: Tensor


Route = Callable[[RoutingInputs, RoutingSpec, bool], tuple[Capsules, RoutingFit | None]]
"""From inputs, a spec and whether the fit is wanted to the parents, and the fit or None."""

ReadFit = Callable[[Sequence[Tensor], RoutingInputs, torch.Size], RoutingFit]
"""From the parts of a state, the inputs and the shape of the parents' activations to the last iteration's fit."""


def make_route(operator: Callable[..., Sequence[Tensor]], read_fit: ReadFit) -> Route:
    """Make the ``route`` function, which every implementation has, from a forward operator."""

    def route(inputs: RoutingInputs, spec: RoutingSpec, wants_fit: bool) -> tuple[Capsules, RoutingFit | None]:
        # A mapped or wrapped tensor does not show whether an outer transform wants a gradient; and torch.jit.trace,
        # which records the results, runs the call again without gradients and expects the same results.
        wants_grad = is_transformed() or any(tensor.requires_grad for tensor in inputs.tensors())
        keep_state = wants_grad and (torch.is_grad_enabled() or torch.jit.is_tracing())  # type: ignore
        poses, activations, *state = operator(*inputs, *operator_options(spec), keep_state or wants_fit)
        if not wants_fit:
            return Capsules(poses, activations), None
        with torch.no_grad():
            fit = read_fit([part.detach() for part in state], inputs, activations.shape)
        return Capsules(poses, activations), fit

    return route


def register_derivatives(
    forward: Any, backward: Any, name: str, batch_dimensions: Sequence[int]
) -> Callable[..., Sequence[Tensor]]:
    """Register the backward operator as the gradient of the forward operator; return a function that calls the latter.

    The backward operator has no derivative. Unlike the operator itself, the function also works under ``torch.func``.

    ``forward(*inputs, *options, keep_state)`` returns poses, activations and the parts of a state;
    ``backward(grad_poses, grad_activations, *state, *inputs, *options)`` the gradients of the tensors, an empty tensor
    for the last one where it is None. ``name`` is the implementation's, for messages; ``batch_dimensions`` are
    explained in :func:`matcaps.routing.functional.make_functional`.
    """

    def setup_context(ctx, inputs, output) -> None:
        tensors, ctx.options, (ctx.keep_state,) = split_arguments(inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output)

    def differentiate(ctx, call_backward, grad_poses, grad_activations, *_):
        if not ctx.keep_state:
            raise RuntimeError(
                "matcaps: this routing ran without gradients and kept no state: call it (or trace it, for "
                "torch.jit.trace) with gradients on"
            )
        saved = ctx.saved_tensors  # once: activation checkpointing unpacks each tensor only once
        inputs, (out_poses, out_activations, *state) = RoutingInputs(*saved[:_NUM_INPUTS]), saved[_NUM_INPUTS:]
        if grad_poses is None:
            grad_poses = torch.zeros_like(out_poses)
        if grad_activations is None:
            grad_activations = torch.zeros_like(out_activations)
        grads = call_backward(grad_poses, grad_activations, *state, *inputs, *ctx.options)
        if inputs.coordinates is None:
            grads = [*grads[:-1], None]
        return *grads, *[None] * (_NUM_OPTIONS + 1)

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
    """The message that an implementation cannot do something, and which one can."""
    return (
        f"matcaps: implementation={name!r} does not support {what}: use implementation='reference', an argument of "
        "matcaps.create_model, matcaps.from_pretrained, the layers and the routing functions"
    )
