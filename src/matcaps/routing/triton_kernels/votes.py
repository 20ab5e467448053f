"""What all kernels share: where a window's children are, their votes, and sums over the votes.

A tile is ``[S, Q]``: Q pairs of a window and a parent, a pair to a lane, and S children at a time. The 16 components of
a vote are a tuple of 16 tiles, so that they live in registers and a vote is 64 multiply-adds.
"""

from typing import NamedTuple

import triton
import triton.language as tl

EMPTY_MASS = tl.constexpr(1e-20)
"""A parent whose mass does not exceed this has no data; as in the reference."""

MEAN, SPREAD, MASS, DESCRIPTION, EVIDENCE, LOG_ACTIVATION = (tl.constexpr(at) for at in (0, 16, 32, 33, 34, 35))
RECORD = tl.constexpr(36)
"""Planes ``[windows, J]`` of one iteration's record."""

GRAD_MEAN, GRAD_VARIANCE, LOGIT_SUM, GRAD_COST = (tl.constexpr(at) for at in (0, 16, 32, 33))
GRAD_RECORD = tl.constexpr(34)
"""Planes of the gradients of a record. The cost's part of a variance's gradient is added where it is read."""


class Shape(NamedTuple):
    """A routing's geometry, known when a kernel is compiled; class capsules are one window as large as the map."""

    height: int
    width: int
    types: int
    parents: int
    kernel_height: int
    kernel_width: int
    stride: int
    rows: int
    columns: int
    children: int
    period: int
    """Children of a window after which the weights repeat."""
    is_child_competition: bool
    has_coordinates: bool
    block: int
    """The parents, rounded up to a power of two."""
    covers_high: int
    """Windows that can cover a child, along the rows; ``covers_wide`` along the columns."""
    covers_wide: int
    sample_step: int
    """From one child to the next of those whose mean vote is the first iteration's centre."""


@triton.jit
def first_child(window, SHAPE: tl.constexpr):
    """The index in the batch of a window's upper left child of type 0."""
    place = window % (SHAPE.rows * SHAPE.columns)
    image = window // (SHAPE.rows * SHAPE.columns)
    row = place // SHAPE.columns * SHAPE.stride
    column = place % SHAPE.columns * SHAPE.stride
    return ((image * SHAPE.height + row) * SHAPE.width + column) * SHAPE.types


@triton.jit
def child_offset(n, SHAPE: tl.constexpr):
    """How far a window's child n lies from its first one."""
    width: tl.constexpr = SHAPE.kernel_width * SHAPE.types
    return n // width * (SHAPE.width * SHAPE.types) + n % width


@triton.jit
def covers(at, STRIDE: tl.constexpr, KERNEL: tl.constexpr, WINDOWS: tl.constexpr):
    """How many windows cover this row (or column)."""
    last = tl.minimum(at // STRIDE, WINDOWS - 1)
    first = tl.maximum(at - KERNEL + STRIDE, 0) // STRIDE
    return last - first + 1


@triton.jit
def first_assignment(window, n, SHAPE: tl.constexpr):
    """1 / (parents that compete for child n of the window)."""
    if SHAPE.is_child_competition:
        place = window % (SHAPE.rows * SHAPE.columns)
        row = place // SHAPE.columns * SHAPE.stride + n // (SHAPE.kernel_width * SHAPE.types)
        column = place % SHAPE.columns * SHAPE.stride + n // SHAPE.types % SHAPE.kernel_width
        rivals = (
            covers(row, SHAPE.stride, SHAPE.kernel_height, SHAPE.rows)
            * covers(column, SHAPE.stride, SHAPE.kernel_width, SHAPE.columns)
            * SHAPE.parents
        )
        return 1.0 / tl.maximum(rivals, 1).to(tl.float32)  # none: n is beyond the window's children
    else:
        return tl.full(n.shape, 1.0 / SHAPE.parents, tl.float32)


@triton.jit
def competitor(window, n, SHAPE: tl.constexpr):
    """Where what belongs to a child in its competition is stored: by child, or by child of each window."""
    if SHAPE.is_child_competition:
        return first_child(window, SHAPE) + child_offset(n, SHAPE)
    else:
        return window * SHAPE.children + n


@triton.jit
def load_16(pointer, STEP: tl.constexpr):
    """16 components that lie STEP apart."""
    parts = ()
    for h in tl.static_range(16):
        parts = parts + (tl.load(pointer + h * STEP),)
    return parts


@triton.jit
def inside(n, S: tl.constexpr, SHAPE: tl.constexpr):
    """Child n, or a window's last one where n is beyond it: loads need no mask then, only weights and stores do."""
    if SHAPE.children % S == 0:
        return n
    else:
        return tl.minimum(n, SHAPE.children - 1)


@triton.jit
def zeros_16(S: tl.constexpr, Q: tl.constexpr):
    parts = ()
    for _ in tl.static_range(16):
        parts = parts + (tl.full((S, Q), 0.0, tl.float32),)
    return parts


@triton.jit
def load_planes(pointer, PLANE: tl.constexpr, step):
    """16 planes of a record from PLANE on, ``step`` apart, as ``[1, Q]``."""
    parts = ()
    for h in tl.static_range(16):
        parts = parts + (tl.load(pointer + (PLANE + h) * step)[None, :],)
    return parts


@triton.jit
def votes_of(poses, weight, coordinates, start, n, parent, SHAPE: tl.constexpr):
    """The 16 components ``[S, Q]`` of the votes of children n ``[S, 1]`` of windows whose first child is ``start``."""
    pose = load_16(poses + (start + child_offset(n, SHAPE)) * 16, 1)
    matrix = load_16(weight + n % SHAPE.period * (16 * SHAPE.parents) + parent, SHAPE.parents)
    votes = ()
    for row in tl.static_range(4):
        for column in tl.static_range(4):
            vote = pose[4 * row] * matrix[column]
            for k in tl.static_range(1, 4):
                vote += pose[4 * row + k] * matrix[4 * k + column]
            if SHAPE.has_coordinates:
                vote += tl.load(coordinates + n // SHAPE.period * 16 + 4 * row + column)
            votes = votes + (vote,)
    return votes


@triton.jit
def moments(
    poses, activations, weight, coordinates, logit, log_activation, partition, grad_data, total,
    pair, centre, STEP: tl.constexpr, FIRST: tl.constexpr, GRAD: tl.constexpr,
    SHAPE: tl.constexpr, S: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """Sums over every STEP-th child of x, x D and x D², with D = vote - centre, still ``[S, Q]``.

    x is the data R·a of the children, uniform if FIRST; or, if GRAD, the gradient of their logits.
    """
    window = (pair // SHAPE.parents)[None, :]
    parent = (pair % SHAPE.parents)[None, :]
    start = first_child(window, SHAPE).to(tl.int64)
    place = window.to(tl.int64) * (SHAPE.children * SHAPE.parents) + parent
    if not FIRST:
        log_active = tl.load(log_activation + pair)[None, :]
    mass = tl.full((S, Q), 0.0, tl.float32)
    first = zeros_16(S, Q)
    second = zeros_16(S, Q)
    for begin in range(0, SHAPE.children, S * STEP):
        beyond = begin + tl.arange(0, S)[:, None] * STEP
        n = inside(beyond, S * STEP, SHAPE)
        x = tl.load(activations + start + child_offset(n, SHAPE))
        if FIRST:
            x *= first_assignment(window, n, SHAPE)
        else:
            rival = competitor(window, n, SHAPE)
            # not exp(L - log-sum-exp), whose rounding, of the size of L, all assignments of a child would share
            value = tl.load(logit + place + n * SHAPE.parents) + log_active - tl.load(partition + rival * 2)
            x *= tl.exp(value) * tl.load(partition + rival * 2 + 1)
        if GRAD:
            x *= tl.load(grad_data + place + n * SHAPE.parents) - tl.load(total + rival)
        if SHAPE.children % (S * STEP) != 0:
            x = tl.where(beyond < SHAPE.children, x, 0.0)
        votes = votes_of(poses, weight, coordinates, start, n, parent, SHAPE)
        mass += x
        if (
            not GRAD
        ):  # NaN data make the mass NaN, and the window counts as one without data; NaN votes are another matter
            x = tl.where(x == x, x, 0.0)
        sums = ()
        squares = ()
        for h in tl.static_range(16):
            deviation = votes[h] - centre[h]
            weighted = x * deviation
            sums = sums + (first[h] + weighted,)
            squares = squares + (second[h] + weighted * deviation,)
        first = sums
        second = squares
    return mass, first, second


@triton.jit
def sum_children(parts):
    """``[S, Q]`` to ``[1, Q]``, of 16 components."""
    sums = ()
    for h in tl.static_range(16):
        sums = sums + (tl.sum(parts[h], 0)[None, :],)
    return sums
