"""Every iteration's state as the GPU path keeps it for its backward pass: no votes, and no gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from matcaps.routing import cuda
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
    _, _, *state = cuda.forward(
        tensors, None, schedule, stride=stride, competition=competition, keep_state=True, **options
    )
    kernel_size, types, parents = weight.shape[0], weight.shape[2], weight.shape[3]
    batch, height, width = poses.shape[:3]
    rows, columns = ((size - kernel_size) // stride + 1 for size in (height, width))
    row, column = (_covered(count, kernel_size, stride, poses.device) for count in (rows, columns))
    rivals = torch.full(
        (rows, columns, kernel_size, kernel_size, types), parents, dtype=poses.dtype, device=poses.device
    )
    of_child = None
    if competition == "child":
        rivals *= _covers(row)[:, None, :, None, None] * _covers(column)[None, :, None, :, None]
        # where each window's children stand among those of the image
        place = row[:, None, :, None, None] * width + column[None, :, None, :, None]
        child = place * types + torch.arange(types, device=poses.device)
        image = torch.arange(batch, device=poses.device)[:, None] * (height * width * types)
        of_child = (image + child.flatten()).reshape(batch * rows * columns, -1)
    first = (1 / rivals).reshape(rows * columns, -1, 1)
    states = _read(state, first.repeat(batch, 1, 1), of_child, schedule, options["variance_floor"])
    return [tuple(field.unflatten(0, (batch, rows, columns)) for field in fields) for fields in states]  # type: ignore[misc]


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
    _, _, *state = cuda.forward(tensors, coordinates, schedule, keep_state=True, **ONE_WINDOW, **options)
    first = poses.new_full((len(poses), poses.shape[1:4].numel(), 1), 1 / weight.shape[1])
    return _read(state, first, None, schedule, options["variance_floor"])


def _covered(windows: int, kernel_size: int, stride: int, device: torch.device) -> Tensor:
    """The row (or column) of each place in each window: ``[windows, K]``."""
    return torch.arange(windows, device=device)[:, None] * stride + torch.arange(kernel_size, device=device)


def _covers(place: Tensor) -> Tensor:
    """How many windows cover the child at each place of each window, along one axis: ``[windows, K]``."""
    starts = place[:, 0]
    inside = (place[..., None] >= starts) & (place[..., None] < starts + place.shape[1])
    return inside.sum(dim=-1)


def _read(
    state: Sequence[Tensor], first: Tensor, of_child: Tensor | None, schedule: Tensor, variance_floor: float
) -> list[State]:
    """Records and logits as states; ``first`` is the first assignment ``[windows, children, 1]``, ``of_child``
    says which competitor is which of them, and is None where they lie in the same order."""
    records, logits, partitions = state
    states = []
    for t, record in enumerate(records):
        mass = record[cuda.MASS]
        if t == 0:
            assignment = first.expand(-1, -1, record.shape[-1])
        else:
            partition = partitions[t - 1]
            partition = partition.reshape(*first.shape[:2], 2) if of_child is None else partition[of_child]
            peak, inverse = partition.unsqueeze(2).unbind(-1)
            assignment = (logits[t - 1] - peak).exp() * inverse
        states.append(
            (
                assignment,
                record[cuda.MEAN].permute(1, 2, 0),
                record[cuda.SPREAD].permute(1, 2, 0) + variance_floor,
                mass,
                mass * record[cuda.DESCRIPTION],
                (schedule[t] * record[cuda.EVIDENCE]).sigmoid(),
            )
        )
    return states
