"""Every iteration's state as the compiled CPU core keeps it for its backward pass: no votes, and no gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from matcaps.routing import native
from matcaps.routing.operators import ONE_WINDOW, schedule_tensor

State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""The fields of a ``RoutingIteration``, in its order."""


def conv_em_routing(
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    stride: int,
    inverse_temperature: Sequence[float] | Tensor,
    competition: str,
    **options: Any,
) -> list[State]:
    """The states of a routing through a kernel, with leading dimensions ``[B, H', W']``."""
    schedule = schedule_tensor(inverse_temperature, poses)
    tensors = (poses, activations, weight, beta_use, beta_activation)
    _, _, state = native.forward(
        tensors, None, schedule, stride=stride, competition=competition, keep_state=True, **options
    )
    kernel_size, num_types, num_parents = weight.shape[0], weight.shape[2], weight.shape[3]
    rows, columns = ((size - kernel_size) // stride + 1 for size in poses.shape[1:3])
    rivals = torch.full((rows, columns, kernel_size, kernel_size), num_parents, dtype=poses.dtype)
    if competition == "child":
        rivals *= _covers(rows, kernel_size, stride, poses)[:, None, :, None]
        rivals *= _covers(columns, kernel_size, stride, poses)[None, :, None, :]
    first = (1 / rivals).reshape(1, rows * columns, -1, 1).repeat_interleave(num_types, dim=2)
    states = _read(state, first, num_parents, schedule, options["variance_floor"])
    return [tuple(field.unflatten(1, (rows, columns)) for field in fields) for fields in states]  # type: ignore[misc]


def class_em_routing(
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    coordinates: Tensor | None,
    inverse_temperature: Sequence[float] | Tensor,
    **options: Any,
) -> list[State]:
    """The states of a routing of a whole map, with leading dimension ``[B]``."""
    schedule = schedule_tensor(inverse_temperature, poses)
    tensors = (poses, activations, weight, beta_use, beta_activation)
    _, _, state = native.forward(tensors, coordinates, schedule, keep_state=True, **ONE_WINDOW, **options)
    num_parents = weight.shape[1]
    first = poses.new_full((1, 1, poses.shape[1:4].numel(), 1), 1 / num_parents)
    states = _read(state, first, num_parents, schedule, options["variance_floor"])
    return [tuple(field.squeeze(1) for field in fields) for fields in states]  # type: ignore[misc]


def _covers(windows: int, kernel_size: int, stride: int, like: Tensor) -> Tensor:
    """How many windows cover the child at each place of each window, along one axis: ``[windows, K]``."""
    starts = torch.arange(windows) * stride
    child = starts[:, None] + torch.arange(kernel_size)
    inside = (child[..., None] >= starts) & (child[..., None] < starts + kernel_size)
    return inside.sum(dim=-1).to(like.dtype)


def _read(state: Tensor, first: Tensor, num_parents: int, schedule: Tensor, variance_floor: float) -> list[State]:
    """Take the state apart: assignments of all iterations but the first, then one record an iteration and parent."""
    batch, num_iterations = len(state), len(schedule)
    num_windows, num_children = first.shape[1], first.shape[2]
    lanes = native.lanes(state.dtype)
    blocks = (num_parents + lanes - 1) // lanes
    whole = num_windows * blocks * lanes

    def take(begin: int, iterations: int, rows: int) -> Tensor:
        """``[B, iterations, windows, rows, J]``"""
        part = state[:, begin : begin + iterations * whole * rows]
        part = part.reshape(batch, iterations, num_windows, blocks, rows, lanes).transpose(3, 4)
        return part.flatten(4)[..., :num_parents]

    assignments = take(0, num_iterations - 1, num_children)
    records = take((num_iterations - 1) * whole * num_children, num_iterations, native.RECORD)
    states = []
    for t in range(num_iterations):
        assignment = assignments[:, t - 1] if t else first.expand(batch, -1, -1, num_parents)
        record = records[:, t]
        mass = record[:, :, native.MASS]
        states.append(
            (
                assignment,
                record[:, :, native.MEAN].transpose(2, 3),
                record[:, :, native.SPREAD].transpose(2, 3) + variance_floor,
                mass,
                mass * record[:, :, native.DESCRIPTION],
                (schedule[t] * record[:, :, native.EVIDENCE]).sigmoid(),
            )
        )
    return states
