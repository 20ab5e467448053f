"""Buffers, grids and tile sizes: what a forward and a backward pass launch, in order."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from matcaps.routing.triton_kernels import backward as back
from matcaps.routing.triton_kernels import forward as ahead
from matcaps.routing.triton_kernels import sweep as last
from matcaps.routing.triton_kernels.votes import GRAD_RECORD, LOG_ACTIVATION, RECORD, Shape

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run in Triton's interpreter, on the CPU. Triton reads the variable when it is imported."""


class Tiles(NamedTuple):
    """How the work is cut; every cut gives the same sums up to rounding, and the same one the same bits."""

    children: int
    """Children side by side in the kernels that hold a pair of a window and a parent in a lane."""
    pairs: int
    """Such pairs of one program."""
    rows: int
    """Children, or windows, of a program that holds all parents of each."""
    sweep_children: int
    sweep_parents: int
    sweep_windows: int
    """Windows over which a program of the last sweep adds up."""
    sweep_together: int = 1
    """How many of them it takes at a time."""
    warps: int = 4


def tiles_for(shape: Shape, windows: int) -> Tiles:
    """Tile sizes for a GPU, or for the interpreter, where a program costs much and a wide tile little."""
    pairs = windows * shape.parents
    if IS_INTERPRETED:
        wide = min(32, triton.next_power_of_2(shape.children))
        return Tiles(wide, min(64, triton.next_power_of_2(pairs)), 256, wide, min(32, shape.block), 64, 16)
    children = 1
    while children < 32 and children * 8 <= shape.children and children * pairs < _LANES:
        children *= 2
    parents = min(32, shape.block)
    sweep_children = min(triton.next_power_of_2(shape.children), max(1, 256 // parents))
    programs = triton.cdiv(shape.children, sweep_children) * triton.cdiv(shape.block, parents)
    splits = min(windows, max(1, triton.cdiv(_SWEEP_PROGRAMS, programs)))
    return Tiles(
        children=children,
        pairs=128 // children,
        rows=max(1, 256 // shape.block),
        sweep_children=sweep_children,
        sweep_parents=parents,
        sweep_windows=triton.cdiv(windows, splits),
    )


_LANES = 262144
"""Lanes that keep a large GPU busy, in four turns of its 67,584 at 128 registers each, so that a last turn that is half
empty costs little; with fewer pairs, the children of a pair are shared out too. Reasoned, not measured."""

_SWEEP_PROGRAMS = 1056
"""Programs of the last sweep: eight for each of the 132 processors of an H100."""


def shape_of(poses: Tensor, weight: Tensor, stride: int, is_child_competition: bool, has_coordinates: bool) -> Shape:
    """Geometry of poses ``[B, H, W, I, 4, 4]`` and weight ``[K, K, I, J, 4, 4]``, or ``[I, J, 4, 4]`` for classes."""
    height, width, types = poses.shape[1:4]
    is_class = weight.ndim == 4
    kernel = (height, width) if is_class else (weight.shape[0], weight.shape[1])
    rows, columns = (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
    children, parents = kernel[0] * kernel[1] * types, weight.shape[-3]
    return Shape(
        height, width, types, parents, *kernel, stride, rows, columns, children,
        period=types if is_class else children,
        is_child_competition=is_child_competition,
        has_coordinates=has_coordinates,
        block=triton.next_power_of_2(parents),
        covers_high=min(rows, triton.cdiv(kernel[0], stride)),
        covers_wide=min(columns, triton.cdiv(kernel[1], stride)),
        sample_step=triton.cdiv(children, 16),
    )  # fmt: skip


class Plan(NamedTuple):
    """Sizes that a batch adds to a shape."""

    shape: Shape
    batch: int
    iterations: int
    tiles: Tiles

    @property
    def windows(self) -> int:
        return self.batch * self.shape.rows * self.shape.columns

    @property
    def pairs(self) -> int:
        return self.windows * self.shape.parents

    @property
    def all_children(self) -> int:
        return self.batch * self.shape.height * self.shape.width * self.shape.types

    @property
    def competitors(self) -> int:
        """Children that divide themselves: those of the maps, or those of each window on its own."""
        return self.all_children if self.shape.is_child_competition else self.windows * self.shape.children


def plan_for(
    poses: Tensor, weight: Tensor, inverse_temperature: Tensor, stride: int, child_competition: bool, coordinates: bool
) -> Plan:
    shape = shape_of(poses, weight, stride, child_competition and weight.ndim == 6, coordinates)
    windows = len(poses) * shape.rows * shape.columns
    plan = Plan(shape, len(poses), len(inverse_temperature), tiles_for(shape, windows))
    # what kernels reckon in 32 bits: offsets in a record, in a partition, and children
    largest = max(RECORD.value * plan.pairs, 2 * plan.competitors, plan.all_children)
    if largest >= 2**31:
        raise ValueError(
            f"implementation='triton' counts to {2**31 - 1:,}; got {plan.windows:,} windows of {shape.children:,} "
            f"children and {shape.parents:,} parents, which need {largest:,}: split the batch"
        )
    return plan


def packed(weight: Tensor) -> Tensor:
    """Weights with the parents side by side: ``[children of one period, 16, J]``."""
    return weight.reshape(-1, weight.shape[-3], 16).transpose(1, 2).contiguous()


def forward(
    plan: Plan,
    inputs: list[Tensor],
    coordinates: Tensor | None,
    rule: int,
    floor: float,
    annealing: float,
    results: tuple[Tensor, ...],
    launch: Callable[..., None],
) -> None:
    """Fill ``results``: poses, activations, records ``[T, RECORD, windows, J]``, log-densities and partitions."""
    poses, activations, weight, beta_use, beta_activation, inverse_temperature = inputs
    out_poses, out_activations, records, logits, partitions = results
    shape, tiles, pairs = plan.shape, plan.tiles, plan.pairs
    weight = packed(weight)
    tile: dict[str, Any] = {"SHAPE": shape, "S": tiles.children, "Q": tiles.pairs, "num_warps": tiles.warps}
    rows: dict[str, Any] = {"SHAPE": shape, "ROWS": tiles.rows, "num_warps": tiles.warps}
    for t in range(plan.iterations):
        record, is_last = records[t], t + 1 == plan.iterations
        before = records[max(t - 1, 0)]
        density = out_poses if is_last else logits[t % len(logits)]
        launch(
            ahead.fit, triton.cdiv(pairs, tiles.pairs),
            poses, activations, weight, poses if coordinates is None else coordinates, beta_use,
            logits[(t - 1) % len(logits)] if t else poses, before[LOG_ACTIVATION.value],
            partitions[(t - 1) % len(partitions)] if t else poses, before,
            record, density, out_poses, floor, annealing, pairs, FIRST=t == 0, LAST=is_last, **tile,
        )  # fmt: skip
        launch(
            ahead.activate, triton.cdiv(plan.windows, tiles.rows),
            record, beta_activation, inverse_temperature, out_activations, t, pairs, plan.windows,
            LAST=is_last, RULE=rule, **rows,
        )  # fmt: skip
        if not is_last:
            launch(
                ahead.compete, triton.cdiv(plan.competitors, tiles.rows),
                density, record[LOG_ACTIVATION.value], partitions[t % len(partitions)], plan.competitors, **rows,
            )  # fmt: skip


def backward(
    plan: Plan,
    inputs: list[Tensor],
    coordinates: Tensor | None,
    rule: int,
    floor: float,
    annealing: float,
    state: tuple[Tensor, ...],
    grad_results: tuple[Tensor, Tensor],
    launch: Callable[..., None],
) -> list[Tensor]:
    """The gradients of the inputs, of ``coordinates`` too where there are some."""
    poses, activations, weight, _, _, inverse_temperature = inputs
    records, logits, partitions = state
    grad_poses, grad_activations = grad_results
    shape, tiles, pairs, windows, iterations = plan.shape, plan.tiles, plan.pairs, plan.windows, plan.iterations
    place = poses if coordinates is None else coordinates
    original, weight = weight, packed(weight)
    grad_records = poses.new_empty([iterations, GRAD_RECORD.value, pairs])
    sums = poses.new_empty([iterations, 3, windows, shape.parents])
    grad_data, totals = torch.empty_like(logits), poses.new_empty([len(logits), plan.competitors])
    tile: dict[str, Any] = {"SHAPE": shape, "S": tiles.children, "Q": tiles.pairs, "num_warps": tiles.warps}
    rows: dict[str, Any] = {"SHAPE": shape, "ROWS": tiles.rows, "num_warps": tiles.warps}
    grid = triton.cdiv(pairs, tiles.pairs)
    for t in reversed(range(iterations)):
        record, grad_record, is_last = records[t], grad_records[t], t + 1 == iterations
        if not is_last:
            launch(
                back.fit_backward, grid,
                poses, activations, weight, place, logits[t], partitions[t], record, grad_data[t], totals[t],
                grad_record, floor, annealing, pairs, **tile,
            )  # fmt: skip
        launch(
            back.activate_backward, triton.cdiv(windows, tiles.rows),
            record, grad_record, grad_activations, inverse_temperature, sums[t], t, pairs, windows,
            LAST=is_last, RULE=rule, **rows,
        )  # fmt: skip
        if t:
            launch(
                back.data_backward, grid,
                poses, weight, place, record, grad_record, grad_poses, grad_data[t - 1], floor, pairs,
                LAST=is_last, **tile,
            )  # fmt: skip
            launch(
                back.compete_backward, triton.cdiv(plan.competitors, tiles.rows),
                logits[t - 1], records[t - 1, LOG_ACTIVATION.value], partitions[t - 1], grad_data[t - 1],
                totals[t - 1], plan.competitors, **rows,
            )  # fmt: skip

    factors = poses.new_empty([windows, 64 * iterations - 15, shape.parents])
    lanes = tiles.children * tiles.pairs
    launch(
        last.prepare, triton.cdiv(pairs, lanes),
        records, grad_records, grad_poses, factors, floor, annealing, pairs,
        T=iterations, SHAPE=shape, Q=lanes, num_warps=tiles.warps,
    )  # fmt: skip
    blocks = triton.cdiv(shape.parents, tiles.sweep_parents)
    parts = triton.cdiv(windows, tiles.sweep_windows)
    pose_copies = poses.new_empty([blocks, windows, shape.children, 16])
    active_copies = poses.new_empty([blocks, windows, shape.children])
    weight_parts = poses.new_empty([parts, shape.children, 16, shape.parents])
    vote_parts = weight_parts if coordinates is None else torch.empty_like(weight_parts)
    launch(
        last.sweep, (triton.cdiv(shape.children, tiles.sweep_children), blocks, parts),
        poses, activations, weight, place, records, logits, partitions, grad_data, totals, factors,
        weight_parts, vote_parts, pose_copies, active_copies, pairs, windows, plan.competitors, tiles.sweep_windows,
        T=iterations, NEEDS_COORDINATES=coordinates is not None,
        SHAPE=shape, BLOCK=tiles.sweep_parents, N=tiles.sweep_children, M=tiles.sweep_together,
        num_warps=tiles.warps,
    )  # fmt: skip
    grad_in_poses, grad_in_activations = torch.empty_like(poses), torch.empty_like(activations)
    gather_rows = 256 if IS_INTERPRETED else 32
    launch(
        last.gather, triton.cdiv(plan.all_children, gather_rows),
        pose_copies, active_copies, totals, grad_in_poses, grad_in_activations,
        plan.all_children, windows, plan.competitors,
        LATER=iterations - 1, BLOCKS=blocks, SHAPE=shape, GEOMETRY=shape._replace(is_child_competition=True),
        ROWS=gather_rows, num_warps=tiles.warps,
    )  # fmt: skip
    parameters = sums.sum(dim=2)
    grad_weight = weight_parts.sum(dim=0).unflatten(0, (-1, shape.period)).sum(dim=0)
    grads = [
        grad_in_poses,
        grad_in_activations,
        grad_weight.transpose(1, 2).reshape(original.shape).contiguous(),
        parameters[:, 2].sum(dim=0),
        parameters[:, 1].sum(dim=0),
        parameters[:, 0].sum(dim=1),
    ]
    if coordinates is not None:
        by_place = vote_parts.sum(dim=(0, 3)).unflatten(0, (-1, shape.period)).sum(dim=1)
        grads.append(by_place.reshape(coordinates.shape).contiguous())
    return grads


def launch(kernel: Any, grid: int | tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Start a kernel; the interpreter knows no warps."""
    if IS_INTERPRETED:
        constants.pop("num_warps", None)
    kernel[grid if isinstance(grid, tuple) else (grid,)](*arguments, **constants)
