"""What the registered operators accept. They pass addresses to compiled code that does not check them, so every call is
checked here, whoever makes it.

The checks of the public functions (:mod:`matcaps.routing.checks`) tell a user what to do; these only tell what is
wrong. Shapes may be symbolic, where torch compiles.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS, POSE_SIZE
from matcaps.routing.spec import ACTIVATION_RULES, RoutingInputs, output_shape


def check_routing(operator: str, dtypes: Sequence[torch.dtype], inputs: RoutingInputs, stride: int, rule: int) -> None:
    """Refuse the inputs of a routing that do not fit one another.

    Raises:
        ValueError: a shape, a device, the stride or the rule does not fit.
        TypeError: a dtype does not.
    """
    poses, activations, weight, beta_use, beta_activation, inverse_temperature, coordinates = inputs
    if not 0 <= rule < len(ACTIVATION_RULES):
        raise ValueError(
            f"matcaps::{operator}: activation_rule must be a place in {ACTIVATION_RULES}, from 0; got {rule}"
        )
    if poses.ndim != 6 or weight.ndim not in (4, 6) or inverse_temperature.ndim != 1:
        raise ValueError(
            f"matcaps::{operator}: poses must have 6 dimensions, weight 6 or 4 and inverse_temperature 1; got "
            f"{list(poses.shape)}, {list(weight.shape)} and {list(inverse_temperature.shape)}"
        )
    if poses.dtype not in dtypes:
        raise TypeError(f"matcaps::{operator}: poses must be of {' or '.join(map(str, dtypes))}; got {poses.dtype}")
    batch, height, width, types = poses.shape[:4]
    kernel, parents = weight.shape[: weight.ndim - 4], weight.shape[-3]
    iterations = inverse_temperature.shape[0]
    rows, columns = kernel or (1, 1)
    if min(stride, types, parents, iterations, rows) < 1 or rows != columns or height < rows or width < rows:
        raise ValueError(
            f"matcaps::{operator}: stride, types, parents, iterations and the kernel's size must be at least 1, and "
            f"the map no smaller than the kernel, which is square; got stride {stride}, poses {list(poses.shape)}, "
            f"weight {list(weight.shape)} and {iterations} iterations"
        )
    square = (POSE_SIZE, POSE_SIZE)
    expected = [
        ("poses", poses, (batch, height, width, types, *square)),
        ("activations", activations, (batch, height, width, types)),
        ("weight", weight, (*kernel, types, parents, *square)),
        ("beta_use", beta_use, (parents,)),
        ("beta_activation", beta_activation, (parents,)),
        ("inverse_temperature", inverse_temperature, (iterations,)),
    ]
    if coordinates is not None:
        if kernel:
            raise ValueError(f"matcaps::{operator}: coordinates are for class capsules, whose weight has no kernel")
        expected.append(("coordinates", coordinates, (height, width, POSE_COMPONENTS)))
    check_tensors(operator, poses, expected)


def check_gradients(
    operator: str, inputs: RoutingInputs, stride: int, grad_poses: Tensor, grad_activations: Tensor
) -> None:
    """Refuse gradients of the results that do not have their shape; the inputs have passed :func:`check_routing`."""
    poses = inputs.poses
    shape = output_shape(poses, inputs.weight, stride)
    expected = [
        ("grad_poses", grad_poses, (*shape, POSE_SIZE, POSE_SIZE)),
        ("grad_activations", grad_activations, shape),
    ]
    check_tensors(operator, poses, expected)


def check_tensors(operator: str, like: Tensor, expected: Sequence[tuple[str, Tensor, Sequence[Any]]]) -> None:
    """Refuse a tensor without its expected shape, or without the dtype and the device of ``like``."""
    dtype, device = like.dtype, like.device
    for name, tensor, shape in expected:
        if tensor.shape != shape or tensor.device != device:
            raise ValueError(
                f"matcaps::{operator}: {name} must have shape {list(shape)}, on {device}; got {list(tensor.shape)}, on "
                f"{tensor.device}"
            )
        if tensor.dtype != dtype:
            raise TypeError(f"matcaps::{operator}: {name} must be of {dtype}, as poses are; got {tensor.dtype}")


def check_state(operator: str, like: Tensor, expected: Sequence[tuple[str, Tensor, Sequence[Any]]]) -> None:
    """Refuse a state unless it has the shapes that a forward pass of these inputs returns, and is contiguous."""
    for name, tensor, shape in expected:
        if tensor.shape != shape:
            raise ValueError(
                f"matcaps::{operator}: {name} must have shape {list(shape)}, as a forward pass of these inputs with "
                f"keep_state leaves it; got {list(tensor.shape)}"
            )
        if not tensor.is_contiguous():
            raise ValueError(f"matcaps::{operator}: {name} must be contiguous, as the forward pass leaves it")
    check_tensors(operator, like, expected)
