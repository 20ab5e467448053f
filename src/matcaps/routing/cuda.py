"""The GPU path: routing from poses to parents with no votes in device memory, in CUDA C++, as operators of torch.

The kernels are in ``cuda_kernels/``; :mod:`matcaps.routing.cuda_launch` says what a pass launches, and
:mod:`matcaps.routing.cuda_program` compiles and launches it, imported when a routing first asks for it. The
derivation of the backward pass, and what the kernels cost, are in this folder's README.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from matcaps.routing import cuda_launch
from matcaps.routing.boundary import check_gradients, check_routing, check_state, output_shape
from matcaps.routing.operators import call_operator, make_implementation, register_derivatives

DTYPES = (torch.float32, torch.float64)

MEAN, SPREAD, MASS, DESCRIPTION, EVIDENCE = slice(0, 16), slice(16, 32), 32, 33, 34
"""Where a record has what; as in ``cuda_kernels/common.cuh``."""

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


def _plan(
    poses: Tensor,
    weight: Tensor,
    inverse_temperature: Tensor,
    coordinates: Tensor | None,
    stride: int,
    child_competition: bool,
    rule: int,
    wants_backward: bool,
) -> cuda_launch.Plan:
    limit = cuda_launch.SHARED_LIMIT
    if poses.device.type == "cuda":
        from matcaps.routing import cuda_program

        limit = cuda_program.shared_limit(poses.device)
    return cuda_launch.plan_for(
        poses,
        weight,
        len(inverse_temperature),
        stride,
        child_competition,
        coordinates is not None,
        rule,
        limit,
        wants_backward=wants_backward,
    )


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


@torch.library.custom_op("matcaps::cuda_routing", mutates_args=(), device_types=("cpu", "cuda"))
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
    check_routing("cuda_routing", DTYPES, *tensors, stride, activation_rule)
    results = _empty_results(poses, weight, inverse_temperature, stride, child_competition, True, keep_state)
    if len(poses) > 0:
        names = ("out_poses", "out_activations", *_STATE)
        buffers = _inputs(*tensors) | dict(zip(names, results, strict=True))
        with _on(poses.device):
            plan = _plan(
                poses, weight, inverse_temperature, coordinates, stride, child_competition, activation_rule, keep_state
            )
            cuda_launch.forward(plan, buffers, variance_floor, annealing, _launcher(plan, poses.device, keep_state))
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
    check_routing("cuda_routing", DTYPES, *tensors, stride, activation_rule)
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
    """The shapes of a state that is kept: the records ``[T, RECORD, windows, J]``, logits
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
        (iterations, cuda_launch.RECORD, num_windows, parents),
        (iterations - 1, num_windows, children, parents),
        (iterations - 1, competitors, 2),
    )


_NAMES = ("poses", "activations", "weight", "beta_use", "beta_activation", "inverse_temperature", "coordinates")


def _inputs(*tensors: Tensor | None) -> dict[str, Tensor | None]:
    """Inputs as the kernels read them: contiguous, and from addresses that are multiples of 16 bytes."""
    return {name: None if tensor is None else _aligned(tensor) for name, tensor in zip(_NAMES, tensors, strict=True)}


def _aligned(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _on(device: torch.device) -> contextlib.AbstractContextManager:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@torch.library.custom_op("matcaps::cuda_routing_backward", mutates_args=(), device_types=("cpu", "cuda"))
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
    check_routing("cuda_routing_backward", DTYPES, *tensors, stride, activation_rule)
    check_gradients("cuda_routing_backward", poses, weight, stride, grad_poses, grad_activations)
    state = (records, logits, partitions)
    shapes = _state_shapes(poses, weight, inverse_temperature, stride, child_competition)
    check_state("cuda_routing_backward", poses, list(zip(_STATE, state, shapes, strict=True)))
    nothing = [] if coordinates is not None else [poses.new_empty(0)]
    if len(poses) == 0:
        there = [tensor for tensor in tensors if tensor is not None]
        zeros = [torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in there]
        return tuple(zeros + nothing)  # type: ignore[return-value]
    buffers = _inputs(*tensors) | dict(zip(_STATE, map(_aligned, state), strict=True))
    buffers |= {"grad_out_poses": _aligned(grad_poses), "grad_out_activations": _aligned(grad_activations)}
    with _on(poses.device):
        plan = _plan(poses, weight, inverse_temperature, coordinates, stride, child_competition, activation_rule, True)
        grads = cuda_launch.backward(plan, buffers, variance_floor, annealing, _launcher(plan, poses.device))
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
    check_routing("cuda_routing_backward", DTYPES, *tensors, stride, activation_rule)
    check_gradients("cuda_routing_backward", poses, weight, stride, grad_poses, grad_activations)
    if all(type(size) is int for size in poses.shape):  # a symbol may have another name by now
        shapes = _state_shapes(poses, weight, inverse_temperature, stride, child_competition)
        state = zip(_STATE, (records, logits, partitions), shapes, strict=True)
        check_state("cuda_routing_backward", poses, list(state))
    return tuple(poses.new_empty(0 if tensor is None else tensor.shape) for tensor in tensors)


def _read_fit(
    state: Sequence[Tensor], poses: Tensor, weight: Tensor, shape: torch.Size, iterations: int
) -> tuple[Tensor, Tensor]:
    """Mass and description of the last iteration, from its records."""
    last = state[0][iterations - 1]
    return last[MASS].reshape(shape), last[DESCRIPTION].reshape(shape)


_call = register_derivatives(_forward, _backward, "cuda", batch_dimensions=(0, 0, 2, 1, 1))
forward = partial(call_operator, _call)
conv_em_routing, class_em_routing = make_implementation(_call, _read_fit)
