"""The GPU path: routing from poses to parents with no votes in device memory, by Triton, as operators of torch.

The kernels are in ``triton_kernels/``, imported with Triton itself when a routing first asks for them; the derivation
of the backward pass, and what the kernels cost, are in this folder's README. Without a GPU they run in Triton's
interpreter, very slowly, where ``TRITON_INTERPRET=1`` is set: for tests.
"""

import contextlib
import importlib.util
import os
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from matcaps.routing.boundary import check_gradients, check_routing, check_state, output_shape
from matcaps.routing.operators import call_operator, make_implementation, register_derivatives

DTYPES = (torch.float32,)

RECORD = 36
"""Numbers of one iteration's record of a window and a parent; as in ``triton_kernels/votes.py``."""

_STATE = ("records", "logits", "partitions")

MEAN, SPREAD, MASS, DESCRIPTION, EVIDENCE, LOG_ACTIVATION = slice(0, 16), slice(16, 32), 32, 33, 34, 35

MISSING: str | None
"""Why Triton cannot be used, where it cannot."""

MISSING = None if importlib.util.find_spec("triton") else "Triton is not installed: pip install triton (Linux only)"


def is_interpreted() -> bool:
    """Whether Triton runs kernels on the CPU, in its interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this device and dtype can be routed by the kernels, if Triton is there."""
    return dtype in DTYPES and (device.type == "cuda" or (device.type == "cpu" and is_interpreted()))


@torch.library.custom_op("matcaps::triton_routing", mutates_args=(), device_types=("cpu", "cuda"))
def _forward(
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    inverse_temperature: Tensor,
    coordinates: Tensor | None,
    stride: int,
    child_competition: bool,
    activation_rule: int,
    variance_floor: float,
    annealing: float,
    keep_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = (poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    check_routing("triton_routing", DTYPES, *tensors, stride, activation_rule)
    from matcaps.routing.triton_kernels import launch

    results = _empty_results(poses, weight, inverse_temperature, stride, child_competition, True, keep_state)
    inputs = _contiguous(poses, activations, weight, beta_use, beta_activation, inverse_temperature)
    if len(poses) > 0:
        plan = launch.plan_for(poses, weight, inverse_temperature, stride, child_competition, coordinates is not None)
        with _on(poses.device):
            launch.forward(
                plan, inputs, None if coordinates is None else coordinates.contiguous(), activation_rule,
                variance_floor, annealing, results, launch.launch,
            )  # fmt: skip
    if keep_state:
        return results
    nothing = [part.new_empty([0, *part.shape[1:]]) for part in results[2:]]
    return results[0], results[1], nothing[0], nothing[1], nothing[2]


@_forward.register_fake
def _(
    poses,
    activations,
    weight,
    beta_use,
    beta_activation,
    inverse_temperature,
    coordinates,
    stride,
    child_competition,
    activation_rule,
    variance_floor,
    annealing,
    keep_state,
):
    tensors = (poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    check_routing("triton_routing", DTYPES, *tensors, stride, activation_rule)
    return _empty_results(poses, weight, inverse_temperature, stride, child_competition, False, keep_state)


def _empty_results(
    poses: Tensor,
    weight: Tensor,
    inverse_temperature: Tensor,
    stride: int,
    child_competition: bool,
    for_work: bool,
    keep_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Poses, activations and the state, whose parts have no iterations if it is not kept; or, while kernels are at
    work, as many as they need."""
    shape = output_shape(poses, weight, stride)
    parts = _state_shapes(poses, weight, inverse_temperature, stride, child_competition)
    iterations, kept = parts[0][0], parts[1][0]
    if not keep_state:
        kept = min(kept, 2) if for_work else 0
        iterations = iterations if for_work else 0
    records, logits, partitions = (
        poses.new_empty([count, *part[1:]]) for count, part in zip((iterations, kept, kept), parts, strict=True)
    )
    return poses.new_empty([*shape, 4, 4]), poses.new_empty(shape), records, logits, partitions


def _state_shapes(
    poses: Tensor, weight: Tensor, inverse_temperature: Tensor, stride: int, child_competition: bool
) -> tuple[tuple[int, ...], ...]:
    """The shapes of a state that is kept: the records ``[T, RECORD, windows, J]``, log-densities
    ``[T-1, windows, children, J]``, and of each child the largest logit and the inverse of the sum of
    ``exp(logit - largest)``: ``[T-1, children, 2]``, children of all maps, or with window competition of all windows.
    """
    batch, *windows, parents = output_shape(poses, weight, stride)
    _, height, width, types = poses.shape[:4]
    iterations = inverse_temperature.shape[0]
    is_class = weight.ndim == 4
    num_windows = batch if is_class else batch * windows[0] * windows[1]
    children = types * (height * width if is_class else weight.shape[0] * weight.shape[1])
    is_shared = child_competition and not is_class
    competitors = batch * height * width * types if is_shared else num_windows * children
    return (
        (iterations, RECORD, num_windows, parents),
        (iterations - 1, num_windows, children, parents),
        (iterations - 1, competitors, 2),
    )


def _contiguous(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def _on(device: torch.device) -> contextlib.AbstractContextManager:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@torch.library.custom_op("matcaps::triton_routing_backward", mutates_args=(), device_types=("cpu", "cuda"))
def _backward(
    grad_poses: Tensor,
    grad_activations: Tensor,
    records: Tensor,
    logits: Tensor,
    partitions: Tensor,
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    inverse_temperature: Tensor,
    coordinates: Tensor | None,
    stride: int,
    child_competition: bool,
    activation_rule: int,
    variance_floor: float,
    annealing: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = (poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    check_routing("triton_routing_backward", DTYPES, *tensors, stride, activation_rule)
    check_gradients("triton_routing_backward", poses, weight, stride, grad_poses, grad_activations)
    state = (records, logits, partitions)
    shapes = _state_shapes(poses, weight, inverse_temperature, stride, child_competition)
    check_state("triton_routing_backward", poses, list(zip(_STATE, state, shapes, strict=True)))
    from matcaps.routing.triton_kernels import launch

    inputs = _contiguous(*tensors[:-1])  # type: ignore[arg-type]
    nothing = [] if coordinates is not None else [poses.new_empty(0)]
    if len(poses) == 0:
        inputs = inputs if coordinates is None else [*inputs, coordinates]
        zeros = [torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs]
        return tuple(zeros + nothing)  # type: ignore[return-value]
    plan = launch.plan_for(poses, weight, inverse_temperature, stride, child_competition, coordinates is not None)
    with _on(poses.device):
        grads = launch.backward(
            plan, inputs, None if coordinates is None else coordinates.contiguous(), activation_rule,
            variance_floor, annealing, state,
            (grad_poses.contiguous(), grad_activations.contiguous()), launch.launch,
        )  # fmt: skip
    return (*grads, *nothing)  # type: ignore[return-value]


@_backward.register_fake
def _(
    grad_poses,
    grad_activations,
    records,
    logits,
    partitions,
    poses,
    activations,
    weight,
    beta_use,
    beta_activation,
    inverse_temperature,
    coordinates,
    stride,
    child_competition,
    activation_rule,
    variance_floor,
    annealing,
):
    tensors = (poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    check_routing("triton_routing_backward", DTYPES, *tensors, stride, activation_rule)
    check_gradients("triton_routing_backward", poses, weight, stride, grad_poses, grad_activations)
    if all(type(size) is int for size in poses.shape):  # a symbol may have another name by now
        shapes = _state_shapes(poses, weight, inverse_temperature, stride, child_competition)
        state = zip(_STATE, (records, logits, partitions), shapes, strict=True)
        check_state("triton_routing_backward", poses, list(state))
    return tuple(poses.new_empty(0 if tensor is None else tensor.shape) for tensor in tensors)


def _read_fit(
    state: Sequence[Tensor], poses: Tensor, weight: Tensor, shape: torch.Size, iterations: int
) -> tuple[Tensor, Tensor]:
    """Mass and description of the last iteration, from its records."""
    last = state[0][iterations - 1]
    return last[MASS].reshape(shape), last[DESCRIPTION].reshape(shape)


_call = register_derivatives(_forward, _backward, "triton", batch_dimensions=(0, 0, 2, 1, 1))
forward = partial(call_operator, _call)
conv_em_routing, class_em_routing = make_implementation(_call, _read_fit)
