"""The compiled CPU path: routing from poses to parents without the votes ever in memory, as operators of torch.

The work is done in ``native/``, which this file reaches through :mod:`matcaps.routing.native_library`; the derivation
of the backward pass is in this folder's README.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from matcaps.routing.boundary import check_gradients, check_routing, check_state, output_shape
from matcaps.routing.native_library import Library, Problem, load
from matcaps.routing.operators import call_operator, make_implementation, register_derivatives

DTYPES = (torch.float32, torch.float64)

_INPUTS = ("poses", "activations", "weight", "beta_use", "beta_activation", "inverse_temperature", "coordinates")

RECORD = 36  # kRecord in native/src/job.h
MEAN, SPREAD, MASS, DESCRIPTION, EVIDENCE = slice(0, 16), slice(16, 32), 32, 33, 34  # where a record has what; as there

LIBRARY: Library | None
"""The compiled core, where it could be loaded."""

MISSING: str | None
"""Why it could not."""

_loaded = load()
LIBRARY, MISSING = (None, _loaded) if isinstance(_loaded, str) else (_loaded, None)
_LANES = {} if LIBRARY is None else {dtype: LIBRARY.lanes(dtype) for dtype in DTYPES}


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
    library = _library()
    return _LANES[dtype] if torch.compiler.is_compiling() else library.lanes(dtype)  # which torch cannot compile


def _library() -> Library:
    if LIBRARY is None:
        raise RuntimeError(f"implementation='native' is not available: {MISSING}")
    return LIBRARY


def _state_size(poses: Tensor, weight: Tensor, stride: int, iterations: int) -> int:
    """The elements that the forward pass of one image leaves to the backward pass: the core says how many.

    Where torch compiles for maps of any size, these are symbols, and the core cannot be asked about them. Then it is
    asked about one window, or one place and two, and what it says grows with the windows, or with the places.
    """
    height, width = poses.shape[1:3]

    def ask(height: int, width: int) -> int:
        return _library().state_size(_sizes(height, width, poses.shape[3], weight, stride, iterations))

    if type(height) is int and type(width) is int:
        return ask(height, width)
    if weight.ndim == 4:
        one = ask(1, 1)
        return one + (height * width - 1) * (ask(1, 2) - one)
    _, rows, columns, _ = output_shape(poses, weight, stride)
    return rows * columns * ask(weight.shape[0], weight.shape[0])


def _sizes(height: int, width: int, child_types: int, weight: Tensor, stride: int, iterations: int) -> Problem:
    """The part of a problem that says how large its state is."""
    is_class = weight.ndim == 4
    return Problem(
        height=height,
        width=width,
        child_types=child_types,
        parent_types=weight.shape[-3],
        kernel_size=1 if is_class else weight.shape[0],
        stride=stride,
        iterations=iterations,
        one_window=is_class,
    )


def _problem(
    inputs: list[Tensor | None],
    stride: int,
    child_competition: bool,
    activation_rule: int,
    variance_floor: float,
    annealing: float,
) -> Problem:
    """Describe a routing to the core. The tensors have passed :func:`check_routing` and must outlive the call."""
    poses, _, weight, _, _, inverse_temperature, _ = inputs
    batch, height, width, child_types = poses.shape[:4]  # type: ignore[union-attr]
    problem = _sizes(height, width, child_types, weight, stride, len(inverse_temperature))  # type: ignore[arg-type]
    problem.batch = batch
    problem.child_competition = child_competition
    problem.activation_rule = activation_rule
    problem.double_precision = poses.dtype == torch.float64  # type: ignore[union-attr]
    problem.threads = torch.get_num_threads()
    problem.variance_floor = variance_floor
    problem.annealing = annealing
    for name, tensor in zip(_INPUTS, inputs, strict=True):
        if tensor is not None:
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
    activation_rule: int,
    variance_floor: float,
    annealing: float,
    keep_state: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = (poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    check_routing("native_routing", DTYPES, *tensors, stride, activation_rule)
    inputs = _contiguous(*tensors)
    problem = _problem(inputs, stride, child_competition, activation_rule, variance_floor, annealing)
    size = _library().state_size(problem) if keep_state else 0
    out_poses, out_activations, state = _empty_results(poses, weight, stride, size)
    problem.out_poses = out_poses.data_ptr()
    problem.out_activations = out_activations.data_ptr()
    problem.state = state.data_ptr() if keep_state else None
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
    activation_rule,
    variance_floor,
    annealing,
    keep_state,
):
    tensors = (poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    check_routing("native_routing", DTYPES, *tensors, stride, activation_rule)
    size = _state_size(poses, weight, stride, inverse_temperature.shape[0]) if keep_state else 0
    return _empty_results(poses, weight, stride, size)


def _empty_results(poses: Tensor, weight: Tensor, stride: int, state_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Poses, activations and the state ``[B, state_size]``, whose rows are empty if it is not kept."""
    shape = output_shape(poses, weight, stride)
    return poses.new_empty([*shape, 4, 4]), poses.new_empty(shape), poses.new_empty([poses.shape[0], state_size])


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
    activation_rule: int,
    variance_floor: float,
    annealing: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = (poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    check_routing("native_routing_backward", DTYPES, *tensors, stride, activation_rule)
    check_gradients("native_routing_backward", poses, weight, stride, grad_poses, grad_activations)
    inputs = _contiguous(*tensors)
    problem = _problem(inputs, stride, child_competition, activation_rule, variance_floor, annealing)
    shape = problem.batch, _library().state_size(problem)
    check_state("native_routing_backward", poses, [("state", state, shape)])
    grads = _empty_grads(*tensors)
    grad_poses, grad_activations = grad_poses.contiguous(), grad_activations.contiguous()
    problem.state = state.data_ptr()
    problem.grad_out_poses = grad_poses.data_ptr()
    problem.grad_out_activations = grad_activations.data_ptr()
    for name, grad, tensor in zip(_INPUTS, grads, inputs, strict=True):
        if tensor is not None:
            setattr(problem, f"grad_{name}", grad.data_ptr())
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
    activation_rule,
    variance_floor,
    annealing,
):
    tensors = (poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates)
    check_routing("native_routing_backward", DTYPES, *tensors, stride, activation_rule)
    check_gradients("native_routing_backward", poses, weight, stride, grad_poses, grad_activations)
    if all(type(size) is int for size in poses.shape):  # a symbol may have another name by now
        size = _state_size(poses, weight, stride, inverse_temperature.shape[0])
        check_state("native_routing_backward", poses, [("state", state, (poses.shape[0], size))])
    return _empty_grads(*tensors)


def _empty_grads(
    poses: Tensor, *others: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One for each input; that of coordinates has no elements where there are none."""
    return tuple(poses.new_empty(0 if tensor is None else tensor.shape) for tensor in (poses, *others))  # type: ignore


def _read_fit(
    state: Sequence[Tensor], poses: Tensor, weight: Tensor, shape: torch.Size, iterations: int
) -> tuple[Tensor, Tensor]:
    """Mass and description of the last iteration; its records are read, and no more of the state."""
    batch, parents, windows = shape[0], shape[-1], shape[1:-1].numel()
    children = (poses.shape[1:4] if weight.ndim == 4 else weight.shape[:3]).numel()
    width = lanes(poses.dtype)
    blocks = (parents + width - 1) // width
    records = windows * blocks * width * RECORD
    begin = (iterations - 1) * (windows * blocks * width * children + records)
    record = state[0][:, begin : begin + records].reshape(batch, windows, blocks, RECORD, width)
    mass, description = (
        record[:, :, :, field].flatten(2)[..., :parents].reshape(shape) for field in (MASS, DESCRIPTION)
    )
    return mass, description


_call = register_derivatives(_forward, _backward, "native", batch_dimensions=(0, 0, 0))
forward = partial(call_operator, _call)
conv_em_routing, class_em_routing = make_implementation(_call, _read_fit)
