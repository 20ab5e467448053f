"""The compiled CPU path: routing from poses to parents without the votes ever in memory, as operators of torch.

The work is done in ``native/``, which this file reaches through :mod:`matcaps.routing.native_library`; the derivation
of the backward pass is in this folder's README.
"""

from functools import partial

import torch
from torch import Tensor

from matcaps.routing.native_library import Library, Problem, load
from matcaps.routing.operators import call_operator, make_implementation, register_gradients

DTYPES = (torch.float32, torch.float64)

_INPUTS = ("poses", "activations", "weight", "beta_use", "beta_activation", "inverse_temperature", "coordinates")

RECORD = 36  # kRecord in native/src/job.h
_STATE_PARENTS = 16  # kLanesOfState in native/src/driver.cpp


LIBRARY: Library | None
"""The compiled core, where it could be loaded."""

MISSING: str | None
"""Why it could not."""

_loaded = load()
LIBRARY, MISSING = (None, _loaded) if isinstance(_loaded, str) else (_loaded, None)


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this device and dtype can be routed by the compiled core, if it is there."""
    return device.type == "cpu" and dtype in DTYPES


def describe() -> str:
    """Say in one line what is loaded: instruction set, threads and file; or why nothing is."""
    if LIBRARY is None:
        return f"not available: {MISSING}"
    return f"{LIBRARY.target} code on {LIBRARY.threading}, from {LIBRARY.path}"


def lanes(dtype: torch.dtype) -> int:
    """How many parents stand side by side in a state of this dtype."""
    return _library().lanes(dtype)


def _library() -> Library:
    if LIBRARY is None:
        raise RuntimeError(f"implementation='native' is not available: {MISSING}")
    return LIBRARY


def _out_shape(poses: Tensor, weight: Tensor, stride: int) -> list[int]:
    """``[B, H', W', J]``, or ``[B, J]`` for class capsules, whose weights have no places in a kernel."""
    if weight.ndim == 4:
        return [poses.shape[0], weight.shape[1]]
    rows, columns = ((size - weight.shape[0]) // stride + 1 for size in poses.shape[1:3])
    return [poses.shape[0], rows, columns, weight.shape[3]]


def _state_size(poses: Tensor, weight: Tensor, stride: int, num_iterations: int) -> int:
    """The elements that the forward pass of one image leaves to the backward pass, as ``state_size`` in the core."""
    _, *windows, num_parents = _out_shape(poses, weight, stride)
    num_windows = windows[0] * windows[1] if windows else 1
    places = poses.shape[1] * poses.shape[2] if weight.ndim == 4 else weight.shape[0] * weight.shape[1]
    num_children = places * poses.shape[3]
    padded = (num_parents + _STATE_PARENTS - 1) // _STATE_PARENTS * _STATE_PARENTS
    return num_windows * padded * ((num_iterations - 1) * num_children + num_iterations * RECORD)


def _problem(
    inputs: list[Tensor | None],
    stride: int,
    child_competition: bool,
    standardised: bool,
    variance_floor: float,
    annealing: float,
    **results: Tensor | None,
) -> Problem:
    """Describe a routing to the core; the tensors must be contiguous and outlive the call."""
    tensors = {**dict(zip(_INPUTS, inputs, strict=True)), **results}
    poses, weight, inverse_temperature = inputs[0], inputs[2], inputs[5]
    assert poses is not None
    assert weight is not None
    assert inverse_temperature is not None
    assert weight.shape[-2:] == poses.shape[-2:], "vector poses"
    is_class = weight.ndim == 4
    problem = Problem(
        batch=poses.shape[0],
        height=poses.shape[1],
        width=poses.shape[2],
        child_types=poses.shape[3],
        parent_types=weight.shape[-3],
        kernel_size=1 if is_class else weight.shape[0],
        stride=stride,
        iterations=inverse_temperature.shape[0],
        one_window=is_class,
        child_competition=child_competition,
        standardised=standardised,
        double_precision=poses.dtype == torch.float64,
        threads=torch.get_num_threads(),
        variance_floor=variance_floor,
        annealing=annealing,
    )
    for name, tensor in tensors.items():
        if tensor is not None:
            assert tensor.is_contiguous(), name
            assert tensor.dtype == poses.dtype, name
            setattr(problem, name, tensor.data_ptr())
    return problem


@torch.library.custom_op("matcaps::native_routing", mutates_args=(), device_types="cpu")
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
    standardised: bool,
    variance_floor: float,
    annealing: float,
    keep_state: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    out_poses, out_activations, state = _empty_results(poses, weight, inverse_temperature, stride, keep_state)
    inputs = _contiguous(poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    problem = _problem(
        inputs,
        stride,
        child_competition,
        standardised,
        variance_floor,
        annealing,
        out_poses=out_poses,
        out_activations=out_activations,
        state=state if keep_state else None,
    )
    if problem.batch > 0:
        _library().forward(problem)
    return out_poses, out_activations, state


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
    standardised,
    variance_floor,
    annealing,
    keep_state,
):
    return _empty_results(poses, weight, inverse_temperature, stride, keep_state)


def _empty_results(
    poses: Tensor, weight: Tensor, inverse_temperature: Tensor, stride: int, keep_state: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Poses, activations and the state ``[B, ...]``, whose rows are empty if it is not kept."""
    shape = _out_shape(poses, weight, stride)
    size = _state_size(poses, weight, stride, inverse_temperature.shape[0]) if keep_state else 0
    return poses.new_empty([*shape, 4, 4]), poses.new_empty(shape), poses.new_empty([poses.shape[0], size])


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


@torch.library.custom_op("matcaps::native_routing_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad_poses: Tensor,
    grad_activations: Tensor,
    state: Tensor,
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    inverse_temperature: Tensor,
    coordinates: Tensor | None,
    stride: int,
    child_competition: bool,
    standardised: bool,
    variance_floor: float,
    annealing: float,
) -> list[Tensor]:
    inputs = _contiguous(poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    grads = _empty_grads(*inputs)
    grad_poses, grad_activations = grad_poses.contiguous(), grad_activations.contiguous()
    problem = _problem(
        inputs,
        stride,
        child_competition,
        standardised,
        variance_floor,
        annealing,
        state=state,
        grad_out_poses=grad_poses,
        grad_out_activations=grad_activations,
        **{f"grad_{name}": grad for name, grad in zip(_INPUTS, grads, strict=False)},
    )
    if problem.batch > 0:
        _library().backward(problem)
    else:
        for grad in grads:
            grad.zero_()
    return grads


@_backward.register_fake
def _(
    grad_poses,
    grad_activations,
    state,
    poses,
    activations,
    weight,
    beta_use,
    beta_activation,
    inverse_temperature,
    coordinates,
    stride,
    child_competition,
    standardised,
    variance_floor,
    annealing,
):
    return _empty_grads(poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)


def _empty_grads(*inputs: Tensor | None) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in inputs if tensor is not None]


register_gradients(_forward, _backward, "native")
forward = partial(call_operator, _forward)
conv_em_routing, class_em_routing = make_implementation(_forward)
