"""The GPU path: routing from poses to parents with no votes in device memory, in CUDA C++, as operators of torch.

The kernels are in ``cuda_kernels/``; :mod:`matcaps.routing.cuda_launch` says what a pass launches, and
:mod:`matcaps.routing.cuda_program` compiles and launches it, imported when a routing first asks for it. The
derivation of the backward pass, and what the kernels cost, are in this folder's README.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from matcaps.routing import cuda_launch
from matcaps.routing.boundary import check_gradients, check_routing, check_state
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

_OPERATOR = "cuda_routing"
_STATE = ("records", "logits", "partitions")


OLDEST = (8, 0)
"""The compute capability that the kernels need: they copy to shared memory beside other work."""


def _find_missing() -> str | None:
    try:
        if importlib.util.find_spec("cuda.bindings.nvrtc") and importlib.util.find_spec("cuda.bindings.driver"):
            return None
    except ModuleNotFoundError:
        pass
    except ImportError as error:
        return f"cuda-bindings cannot be imported ({_first_line(error)}): pip install 'matcaps[cuda]'"
    return "cuda-bindings is not installed: pip install 'matcaps[cuda]'"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


MISSING: str | None = _find_missing()
"""Why kernels cannot be compiled, as far as one can say without loading anything."""


def why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on a CUDA device; None: they can, as far as this machine can tell."""
    if MISSING is not None:
        return MISSING
    if not torch.cuda.is_available():
        return why_no_compiler()
    return why_no_compiler() or _too_old(torch.cuda.current_device() if device.index is None else device.index)


@lru_cache(maxsize=1)
def why_no_compiler() -> str | None:
    """Why NVRTC cannot be used, once it has been asked for its version; None: it can."""
    try:
        from matcaps.routing import cuda_program

        cuda_program.nvrtc_version()
    except Exception as error:  # the package is there, and its library is not, or is another system's
        return (
            f"NVRTC cannot be loaded ({_first_line(error)}): pip install 'matcaps[cuda]', or for a torch of CUDA 12 "
            "pip install 'cuda-bindings<13' nvidia-cuda-nvrtc-cu12"
        )
    return None


@lru_cache(maxsize=64)
def _too_old(index: int) -> str | None:
    capability = torch.cuda.get_device_capability(index)
    if capability >= OLDEST:
        return None
    name = torch.cuda.get_device_name(index)
    return f"the kernels need compute capability 8.0 or newer; {name} has {capability[0]}.{capability[1]}"


EMULATOR: Callable[[cuda_launch.Shape, cuda_launch.Cut], Any] | None = None
"""For tests: what stands in for a GPU, for tensors on the CPU."""


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this device and dtype can be routed by the kernels, if they can be compiled."""
    return dtype in DTYPES and (device.type == "cuda" or (device.type == "cpu" and EMULATOR is not None))


def _plan(inputs: RoutingInputs, options: OperatorOptions, wants_backward: bool) -> cuda_launch.Plan:
    limit = cuda_launch.SHARED_LIMIT
    if inputs.poses.device.type == "cuda":
        from matcaps.routing import cuda_program

        limit = cuda_program.shared_limit(inputs.poses.device)
    return cuda_launch.plan_for(inputs, options, limit, wants_backward=wants_backward)


def _launcher(plan: cuda_launch.Plan, device: torch.device, wants_backward: bool = False) -> cuda_launch.Launch:
    if device.type == "cpu":
        if EMULATOR is None:
            raise ValueError("matcaps::cuda_routing: tensors must be on a CUDA device; got cpu")
        return EMULATOR(plan.shape, plan.cut).launch
    from matcaps.routing import cuda_program

    program = cuda_program.program_for(plan.shape, plan.cut, device)
    if wants_backward:  # it is compiled while the forward passes of this layer and others are
        program.prepare("backward")
    return program.launch


def _forward_pass(inputs: RoutingInputs, options: OperatorOptions, keep_state: bool) -> tuple[Tensor, ...]:
    check_routing(_OPERATOR, DTYPES, inputs, options.stride, options.activation_rule)
    results = _empty_results(inputs, options, True, keep_state)
    if len(inputs.poses) > 0:
        names = ("out_poses", "out_activations", *_STATE)
        buffers = _readable(inputs) | dict(zip(names, results, strict=True))
        with _on(inputs.poses.device):
            plan = _plan(inputs, options, keep_state)
            launch = _launcher(plan, inputs.poses.device, keep_state)
            cuda_launch.forward(plan, buffers, launch)
    if keep_state:
        return results
    return *results[:2], *(part.new_empty([0, *part.shape[1:]]) for part in results[2:])


def _fake_forward_pass(inputs: RoutingInputs, options: OperatorOptions, keep_state: bool) -> tuple[Tensor, ...]:
    check_routing(_OPERATOR, DTYPES, inputs, options.stride, options.activation_rule)
    return _empty_results(inputs, options, False, keep_state)


def _empty_results(
    inputs: RoutingInputs, options: OperatorOptions, for_work: bool, keep_state: bool
) -> tuple[Tensor, ...]:
    """Poses, activations and the state, whose parts have no iterations if it is not kept; or, while kernels are at
    work, as many as they need."""
    poses = inputs.poses
    shape = output_shape(poses, inputs.weight, options.stride)
    parts = _state_shapes(inputs, options)
    iterations, kept = parts[0][0], parts[1][0]
    if not keep_state:
        kept = min(kept, 2) if for_work else 0
        iterations = iterations if for_work else 0
    state = (poses.new_empty([count, *part[1:]]) for count, part in zip((iterations, kept, kept), parts, strict=True))
    return poses.new_empty([*shape, 4, 4]), poses.new_empty(shape), *state


def _state_shapes(inputs: RoutingInputs, options: OperatorOptions) -> tuple[tuple[int, ...], ...]:
    """The shapes of a state that is kept: the records ``[T, RECORD, windows, J]``, logits
    ``[T-1, windows, children, J]``, and of each child the largest logit and the inverse of the sum of
    ``exp(logit - largest)``: ``[T-1, children, 2]``, children of all maps, or with window competition of all windows.
    """
    poses, weight = inputs.poses, inputs.weight
    batch, *windows, parents = output_shape(poses, weight, options.stride)
    _, height, width, types = poses.shape[:4]
    iterations = inputs.inverse_temperature.shape[0]
    num_windows = batch if inputs.is_class else batch * windows[0] * windows[1]
    children = types * (height * width if inputs.is_class else weight.shape[0] * weight.shape[1])
    is_shared = options.child_competition and not inputs.is_class
    competitors = batch * height * width * types if is_shared else num_windows * children
    return (
        (iterations, RECORD, num_windows, parents),
        (iterations - 1, num_windows, children, parents),
        (iterations - 1, competitors, 2),
    )


def _readable(inputs: RoutingInputs) -> dict[str, Tensor | None]:
    """Inputs as the kernels read them: contiguous, and from addresses that are multiples of 16 bytes."""
    return {name: None if tensor is None else _aligned(tensor) for name, tensor in inputs._asdict().items()}


def _aligned(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _on(device: torch.device) -> contextlib.AbstractContextManager:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _check_backward(
    grads: Sequence[Tensor], state: Sequence[Tensor], inputs: RoutingInputs, options: OperatorOptions
) -> None:
    operator = f"{_OPERATOR}_backward"
    check_routing(operator, DTYPES, inputs, options.stride, options.activation_rule)
    check_gradients(operator, inputs, options.stride, *grads)
    if all(type(size) is int for size in inputs.poses.shape):  # a symbol may have another name by now
        shapes = _state_shapes(inputs, options)
        check_state(operator, inputs.poses, list(zip(_STATE, state, shapes, strict=True)))


def _backward_pass(
    grads: Sequence[Tensor], state: Sequence[Tensor], inputs: RoutingInputs, options: OperatorOptions
) -> tuple[Tensor, ...]:
    _check_backward(grads, state, inputs, options)
    poses = inputs.poses
    nothing = [] if inputs.coordinates is not None else [poses.new_empty(0)]
    if len(poses) == 0:
        zeros = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in inputs if x is not None)
        return *zeros, *nothing
    buffers = _readable(inputs) | dict(zip(_STATE, map(_aligned, state), strict=True))
    buffers |= dict(zip(("grad_out_poses", "grad_out_activations"), map(_aligned, grads), strict=True))
    with _on(poses.device):
        plan = _plan(inputs, options, True)
        launch = _launcher(plan, poses.device)
        results = cuda_launch.backward(plan, buffers, launch)
    return *results, *nothing


def _fake_backward_pass(
    grads: Sequence[Tensor], state: Sequence[Tensor], inputs: RoutingInputs, options: OperatorOptions
) -> tuple[Tensor, ...]:
    _check_backward(grads, state, inputs, options)
    return tuple(inputs.poses.new_empty(0 if tensor is None else tensor.shape) for tensor in inputs)


def _read_fit(state: Sequence[Tensor], inputs: RoutingInputs, shape: torch.Size) -> RoutingFit:
    """Mass and cost of the last iteration, from its records."""
    last = state[0][len(inputs.inverse_temperature) - 1]
    mass = last[MASS].reshape(shape)
    return RoutingFit(mass, mass * last[DESCRIPTION].reshape(shape))


_forward, _backward = register_operators(
    _OPERATOR,
    _STATE,
    ("cpu", "cuda"),
    forward=_forward_pass,
    fake_forward=_fake_forward_pass,
    backward=_backward_pass,
    fake_backward=_fake_backward_pass,
)
forward = register_derivatives(_forward, _backward, "cuda", batch_dimensions=(0, 0, 2, 1, 1))
route = make_route(forward, _read_fit)
