"""The compiled CPU path: routing from poses to parents without the votes ever in memory, as operators of torch.

The work is done in ``native/``, which this file reaches through :mod:`matcaps.routing.native_library`; the derivation
of the backward pass is in this folder's README.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from matcaps.routing.boundary import check_gradients, check_routing, check_state
from matcaps.routing.native_library import Library, Problem, load
from matcaps.routing.operators import (
    OperatorOptions,
    RoutingFit,
    make_route,
    register_derivatives,
    register_operators,
)
from matcaps.routing.record import DESCRIPTION, MASS, RECORD
from matcaps.routing.spec import RoutingInputs, output_shape

DTYPES = (torch.float32, torch.float64)

_OPERATOR = "native_routing"

LIBRARY: Library | None
"""The compiled core, where it could be loaded."""

MISSING: str | None
"""Why the compiled core could not be loaded; None where it was."""

_loaded = load()
LIBRARY, MISSING = (None, _loaded) if isinstance(_loaded, str) else (_loaded, None)
_LANES = {} if LIBRARY is None else {dtype: LIBRARY.lanes(dtype) for dtype in DTYPES}


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this device and dtype can be routed by the compiled core, if it is installed."""
    return device.type == "cpu" and dtype in DTYPES


def describe() -> str:
    """Describe in one line what is loaded (instruction set, threads and file), or why nothing is."""
    if LIBRARY is None:
        return f"not available: {MISSING}"
    return f"{LIBRARY.target} code on {LIBRARY.threading}, from {LIBRARY.path}"


def lanes(dtype: torch.dtype) -> int:
    """How many parents stand side by side in a state of this dtype."""
    library = _library()
    return _LANES[dtype] if torch.compiler.is_compiling() else library.lanes(dtype)  # torch cannot compile this call


def _library() -> Library:
    if LIBRARY is None:
        raise RuntimeError(f"implementation='native' is not available: {MISSING}")
    return LIBRARY


def _state_size(poses: Tensor, weight: Tensor, stride: int, iterations: int) -> int:
    """How many elements the forward pass of one image keeps for the backward pass; the core computes it.

    Where torch compiles for maps of any size, the sizes are symbols, which the core cannot take. Then it is
    asked for one window, or for one place and for two, and the result is scaled by the windows, or the places.
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
    """The part of a problem that determines the size of its state."""
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


def _problem(inputs: RoutingInputs, options: OperatorOptions) -> Problem:
    """Describe a routing to the core. The tensors have passed :func:`check_routing` and must outlive the call."""
    poses = inputs.poses
    batch, height, width, child_types = poses.shape[:4]
    problem = _sizes(height, width, child_types, inputs.weight, options.stride, len(inputs.inverse_temperature))
    problem.batch = batch
    problem.child_competition = options.child_competition
    problem.activation_rule = options.activation_rule
    problem.double_precision = poses.dtype == torch.float64
    problem.threads = torch.get_num_threads()
    problem.variance_floor = options.variance_floor
    problem.annealing = options.annealing
    for name, tensor in inputs._asdict().items():
        if tensor is not None:
            setattr(problem, name, tensor.data_ptr())
    return problem


def _forward_pass(inputs: RoutingInputs, options: OperatorOptions, keep_state: bool) -> tuple[Tensor, ...]:
    check_routing(_OPERATOR, DTYPES, inputs, options.stride, options.activation_rule)
    contiguous = _contiguous(inputs)
    problem = _problem(contiguous, options)
    size = _library().state_size(problem) if keep_state else 0
    out_poses, out_activations, state = _empty_results(inputs, options, size)
    problem.out_poses = out_poses.data_ptr()
    problem.out_activations = out_activations.data_ptr()
    problem.state = state.data_ptr() if keep_state else None
    if problem.batch > 0:
        _library().forward(problem)
    return out_poses, out_activations, state


def _fake_forward_pass(inputs: RoutingInputs, options: OperatorOptions, keep_state: bool) -> tuple[Tensor, ...]:
    check_routing(_OPERATOR, DTYPES, inputs, options.stride, options.activation_rule)
    return _empty_results(inputs, options, _size_for(inputs, options) if keep_state else 0)


def _size_for(inputs: RoutingInputs, options: OperatorOptions) -> int:
    return _state_size(inputs.poses, inputs.weight, options.stride, inputs.inverse_temperature.shape[0])


def _empty_results(inputs: RoutingInputs, options: OperatorOptions, state_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Poses, activations and the state ``[B, state_size]``, whose rows are empty if it is not kept."""
    poses = inputs.poses
    shape = output_shape(poses, inputs.weight, options.stride)
    return poses.new_empty([*shape, 4, 4]), poses.new_empty(shape), poses.new_empty([poses.shape[0], state_size])


def _contiguous(inputs: RoutingInputs) -> RoutingInputs:
    return RoutingInputs(*(None if tensor is None else tensor.contiguous() for tensor in inputs))  # type: ignore


def _check_backward(
    grads: Sequence[Tensor], state: Sequence[Tensor], inputs: RoutingInputs, options: OperatorOptions
) -> None:
    operator = f"{_OPERATOR}_backward"
    check_routing(operator, DTYPES, inputs, options.stride, options.activation_rule)
    check_gradients(operator, inputs, options.stride, *grads)
    poses = inputs.poses
    if all(type(size) is int for size in poses.shape):  # a symbol may have another name by now
        check_state(operator, poses, [("state", state[0], (poses.shape[0], _size_for(inputs, options)))])


def _backward_pass(
    grads: Sequence[Tensor], state: Sequence[Tensor], inputs: RoutingInputs, options: OperatorOptions
) -> tuple[Tensor, ...]:
    _check_backward(grads, state, inputs, options)
    contiguous = _contiguous(inputs)
    problem = _problem(contiguous, options)
    results = _empty_grads(inputs)
    grad_poses, grad_activations = (grad.contiguous() for grad in grads)
    problem.state = state[0].data_ptr()
    problem.grad_out_poses = grad_poses.data_ptr()
    problem.grad_out_activations = grad_activations.data_ptr()
    for name, grad, tensor in zip(inputs._fields, results, inputs, strict=True):
        if tensor is not None:
            setattr(problem, f"grad_{name}", grad.data_ptr())
    if problem.batch > 0:
        _library().backward(problem)
    else:
        for grad in results:
            grad.zero_()
    return results


def _fake_backward_pass(
    grads: Sequence[Tensor], state: Sequence[Tensor], inputs: RoutingInputs, options: OperatorOptions
) -> tuple[Tensor, ...]:
    _check_backward(grads, state, inputs, options)
    return _empty_grads(inputs)


def _empty_grads(inputs: RoutingInputs) -> tuple[Tensor, ...]:
    """One for each input; that of coordinates has no elements where there are none."""
    return tuple(inputs.poses.new_empty(0 if tensor is None else tensor.shape) for tensor in inputs)  # type: ignore


def _read_fit(state: Sequence[Tensor], inputs: RoutingInputs, shape: torch.Size) -> RoutingFit:
    """Mass and cost of the last iteration; only its records are read from the state."""
    poses, weight, iterations = inputs.poses, inputs.weight, len(inputs.inverse_temperature)
    batch, parents, windows = shape[0], shape[-1], shape[1:-1].numel()
    children = (poses.shape[1:4] if inputs.is_class else weight.shape[:3]).numel()
    width = lanes(poses.dtype)
    blocks = (parents + width - 1) // width
    records = windows * blocks * width * RECORD
    begin = (iterations - 1) * (windows * blocks * width * children + records)
    record = state[0][:, begin : begin + records].view(batch, windows, blocks, RECORD, width)
    mass, description = (
        record[:, :, :, field].flatten(2)[..., :parents].reshape(shape) for field in (MASS, DESCRIPTION)
    )
    return RoutingFit(mass, mass * description)


_forward, _backward = register_operators(
    _OPERATOR,
    ("state",),
    "cpu",
    forward=_forward_pass,
    fake_forward=_fake_forward_pass,
    backward=_backward_pass,
    fake_backward=_fake_backward_pass,
)
forward = register_derivatives(_forward, _backward, "native", batch_dimensions=(0, 0, 0))
route = make_route(forward, _read_fit)
