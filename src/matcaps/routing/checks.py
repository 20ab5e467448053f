"""What the operator's public functions accept, and their error messages; inner code does not check again."""

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS, POSE_SIZE
from matcaps.routing.spec import RoutingInputs, is_positive

_TRANSFORMATIONS = ((POSE_SIZE, POSE_SIZE), (POSE_COMPONENTS, POSE_COMPONENTS))
"""Shapes of what maps a pose to a vote: of matrix poses, and of vector poses."""

_CONV_WEIGHT = "[K, K, I, J, 4, 4] or, for vector poses, [K, K, I, J, 16, 16]"
_CLASS_WEIGHT = "[I, J, 4, 4] or, for vector poses, [I, J, 16, 16]"


def prepare_votes(
    votes: Tensor, activations: Tensor, beta_use: Tensor, beta_activation: Tensor, inverse_temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Check the arguments of ``em_routing``; return them in one computing dtype."""
    tensors = {
        "votes": votes,
        "activations": activations,
        "beta_use": beta_use,
        "beta_activation": beta_activation,
    }
    _check_tensors(tensors)
    if votes.ndim < 3 or activations.shape != votes.shape[:-2]:
        advice = "votes carry one vote of each child for each parent, activations one number a child"
        if votes.ndim >= 5 and votes.shape[-2:] == (POSE_SIZE, POSE_SIZE) and activations.shape == votes.shape[:-3]:
            advice = "flatten the pose, votes.flatten(-2)"
        raise ValueError(
            f"votes must have shape [..., I, J, P] and activations [..., I]; "
            f"got votes {_shape(votes)} and activations {_shape(activations)}: {advice}"
        )
    _check_not_empty("votes", "[..., I, J, P]", votes, {"I": -3, "J": -2, "P": -1})
    _check_betas(beta_use, beta_activation, votes.shape[-2])
    _check_schedule(inverse_temperature, beta_use)
    dtype = _computing_dtype(tensors)
    return (
        votes.to(dtype),
        activations.to(dtype),
        beta_use.to(dtype),
        beta_activation.to(dtype),
        inverse_temperature.to(dtype),
    )


def prepare_conv(inputs: RoutingInputs) -> RoutingInputs:
    """Check the arguments of ``conv_em_routing``; return its tensors in one computing dtype."""
    poses, weight = inputs.poses, inputs.weight
    tensors = _check_capsules(inputs)
    if weight.ndim != 6 or weight.shape[0] != weight.shape[1] or weight.shape[-2:] not in _TRANSFORMATIONS:
        raise ValueError(
            f"weight must have shape {_CONV_WEIGHT}; got {_shape(weight)}: "
            "one transformation matrix for each place in the kernel, child type and parent type"
        )
    _check_not_empty("weight", _CONV_WEIGHT, weight, {"K": 0, "I": 2, "J": 3})
    _check_child_types(poses, weight, weight.shape[2])
    _check_betas(inputs.beta_use, inputs.beta_activation, weight.shape[3])
    kernel_size = weight.shape[0]
    if poses.shape[1] < kernel_size or poses.shape[2] < kernel_size:
        raise ValueError(
            f"poses must have at least as many rows and columns as the kernel, which is {kernel_size}×{kernel_size}; "
            f"got {poses.shape[1]}×{poses.shape[2]}: use a larger image, or a smaller kernel or stride before it"
        )
    _check_schedule(inputs.inverse_temperature, inputs.beta_use)
    return _converted(inputs, _computing_dtype(tensors))


def prepare_class(inputs: RoutingInputs) -> RoutingInputs:
    """Check the arguments of ``class_em_routing``; return its tensors in one computing dtype."""
    poses, weight, coordinates = inputs.poses, inputs.weight, inputs.coordinates
    tensors = _check_capsules(inputs)
    if weight.ndim != 4 or weight.shape[-2:] not in _TRANSFORMATIONS:
        raise ValueError(
            f"weight must have shape {_CLASS_WEIGHT}; got {_shape(weight)}: "
            "class capsules share one transformation matrix for each child type and class over all positions"
        )
    _check_not_empty("weight", _CLASS_WEIGHT, weight, {"I": 0, "J": 1})
    _check_not_empty("poses", "[B, H, W, I, 4, 4]", poses, {"H": 1, "W": 2})
    _check_child_types(poses, weight, weight.shape[0])
    _check_betas(inputs.beta_use, inputs.beta_activation, weight.shape[1])
    expected = [poses.shape[1], poses.shape[2], POSE_COMPONENTS]
    if coordinates is not None and list(coordinates.shape) != expected:
        raise ValueError(
            f"coordinates must have shape [H, W, P] = {expected}; got {_shape(coordinates)}: "
            "give what to add to each of the 16 components of the votes from each position"
        )
    _check_schedule(inputs.inverse_temperature, inputs.beta_use)
    return _converted(inputs, _computing_dtype(tensors))


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _check_tensors(tensors: dict[str, Any]) -> None:
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor; got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point; got {tensor.dtype}: convert it with .float()")
        if tensor.device != first.device:
            raise ValueError(
                f"{name} must be on the device of {first_name}, {first.device}; got {tensor.device}: "
                f"move it with .to({str(first.device)!r})"
            )


def _check_capsules(inputs: RoutingInputs) -> dict[str, Tensor]:
    """Check what both kinds of layer share; return the tensors that decide the computing dtype, by name."""
    poses, activations = inputs.poses, inputs.activations
    named = inputs._asdict()
    coordinates = named.pop("coordinates")
    del named["inverse_temperature"]
    _check_tensors(named if coordinates is None else {**named, "coordinates": coordinates})
    if poses.ndim != 6 or poses.shape[-2:] != (POSE_SIZE, POSE_SIZE):
        raise ValueError(
            f"poses must have shape [B, H, W, I, 4, 4]; got {_shape(poses)}: "
            "put the capsule types and their 4×4 matrices last"
        )
    if activations.shape != poses.shape[:-2]:
        raise ValueError(
            f"activations must have shape [B, H, W, I] = {list(poses.shape[:-2])}, as poses have; "
            f"got {_shape(activations)}"
        )
    return named


def _check_not_empty(name: str, form: str, tensor: Tensor, dimensions: dict[str, int]) -> None:
    for letter, dimension in dimensions.items():
        if tensor.shape[dimension] == 0:
            raise ValueError(f"{name} {form} must have at least one {letter}; got {_shape(tensor)}")


def _check_child_types(poses: Tensor, weight: Tensor, num_child_types: int) -> None:
    if poses.shape[3] != num_child_types:
        raise ValueError(
            f"poses and weight must agree on the number of child types I; got {poses.shape[3]} in poses "
            f"{_shape(poses)} and {num_child_types} in weight {_shape(weight)}"
        )


def _check_betas(beta_use: Tensor, beta_activation: Tensor, num_parents: int) -> None:
    for name, beta in (("beta_use", beta_use), ("beta_activation", beta_activation)):
        if list(beta.shape) != [num_parents]:
            raise ValueError(
                f"{name} must have shape [J] = [{num_parents}], one value a parent type; got {_shape(beta)}"
            )


def as_schedule(inverse_temperature: Sequence[float] | Tensor, beta: Tensor) -> Tensor:
    """Check a schedule of inverse temperatures; return it as a tensor ``[T]``, on the device of ``beta``."""
    schedule = inverse_temperature
    if isinstance(schedule, Tensor):
        return schedule
    if not isinstance(schedule, Sequence) or isinstance(schedule, str):
        advice = f"for one iteration write [{schedule!r}]" if isinstance(schedule, numbers.Real) else "make it a list"
        raise TypeError(
            f"inverse_temperature must be a sequence with one value an iteration; got {schedule!r}: {advice}"
        )
    if not all(is_positive(value) for value in schedule):
        raise ValueError(f"inverse_temperature must be positive and finite; got {list(schedule)}")
    device = beta.device if isinstance(beta, Tensor) else torch.device("cpu")
    if device.type == "cpu" or len(schedule) == 0:
        return torch.tensor(schedule, dtype=torch.float64, device=device)
    # filled in on the device: a copy to it would not go into a CUDA graph
    dtype = torch.float64 if device.type == "cuda" else torch.float32
    return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in schedule])


def _check_schedule(schedule: Tensor, beta: Tensor) -> None:
    if schedule.ndim != 1 or not schedule.is_floating_point() or schedule.device != beta.device:
        raise ValueError(
            "inverse_temperature, where it is a tensor, must be floating point, of shape [T] and on the device "
            f"of the votes; got {_shape(schedule)}, {schedule.dtype}, {schedule.device}"
        )
    if len(schedule) == 0:
        raise ValueError("inverse_temperature must have at least one value, one an iteration; got none")


def _computing_dtype(tensors: dict[str, Tensor]) -> torch.dtype:
    """The widest of their dtypes, and never less than float32."""
    dtype = torch.float32
    for tensor in tensors.values():
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _converted(inputs: RoutingInputs, dtype: torch.dtype) -> RoutingInputs:
    poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates = inputs
    return RoutingInputs(
        poses.to(dtype),
        activations.to(dtype),
        weight.to(dtype),
        beta_use.to(dtype),
        beta_activation.to(dtype),
        inverse_temperature.to(dtype),
        None if coordinates is None else coordinates.to(dtype),
    )
