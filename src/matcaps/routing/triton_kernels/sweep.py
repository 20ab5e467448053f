"""The last sweep over the votes: their gradient from all iterations at once, and from it those of poses and matrices.

A vote's gradient is ``(Σ_t d_t A_t - G_t C_t) D + Σ_t d_t B_t - G_t E_t``, with D = vote - last mean and d_t = R_t·a.
"""

import triton
import triton.language as tl

from matcaps.routing.triton_kernels.forward import cover
from matcaps.routing.triton_kernels.votes import (
    DESCRIPTION,
    EMPTY_MASS,
    GRAD_COST,
    GRAD_MEAN,
    GRAD_RECORD,
    GRAD_VARIANCE,
    LOG_ACTIVATION,
    MASS,
    MEAN,
    RECORD,
    SPREAD,
    child_offset,
    competitor,
    first_assignment,
    first_child,
    inside,
    load_16,
    zeros_16,
)


@triton.jit
def prepare(
    records, grad_records, grad_out_poses, factors, floor, annealing, PAIRS,
    T: tl.constexpr, SHAPE: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """A, B of every iteration, C, E of all but the last, the last mean, and the constant of the first one's g(d).

    They lie as ``[windows, 64 T - 15, J]``: 16 planes A, 16 B, 16 C, 16 E an iteration, where the last has its mean
    instead of C and the constant instead of E.
    """
    pair = tl.program_id(0) * Q + tl.arange(0, Q)
    is_pair = pair < PAIRS
    pair = tl.minimum(pair, PAIRS - 1)
    out = factors + (pair // SHAPE.parents).to(tl.int64) * ((64 * T - 15) * SHAPE.parents) + pair % SHAPE.parents
    last = records + (T - 1) * RECORD * tl.cast(PAIRS, tl.int64) + pair
    for t in tl.static_range(T):
        record = records + t * RECORD * tl.cast(PAIRS, tl.int64) + pair
        grad = grad_records + t * GRAD_RECORD * tl.cast(PAIRS, tl.int64) + pair
        mass = tl.load(record + MASS * PAIRS)
        grad_cost = tl.load(grad + GRAD_COST * PAIRS)
        has_data = mass > EMPTY_MASS
        inverse_mass = tl.where(has_data, 1.0 / tl.where(has_data, mass, 1.0), 0.0)
        constant = tl.full((Q,), 0.0, tl.float32)
        shifted = tl.full((Q,), 0.0, tl.float32)
        for h in tl.static_range(16):
            spread = tl.load(record + (SPREAD + h) * PAIRS)
            mean = tl.load(record + (MEAN + h) * PAIRS)
            last_mean = tl.load(last + (MEAN + h) * PAIRS)
            grad_variance = 0.5 * grad_cost * mass / (spread + floor)
            if t + 1 == T:
                grad_mean = tl.load(grad_out_poses + pair.to(tl.int64) * 16 + h)
            else:
                grad_mean = tl.load(grad + (GRAD_MEAN + h) * PAIRS)
                grad_variance += tl.load(grad + (GRAD_VARIANCE + h) * PAIRS)
            shift = last_mean - mean
            linear = grad_mean * inverse_mass
            square = grad_variance * inverse_mass
            twice = 2.0 * square
            tl.store(out + (64 * t + h) * SHAPE.parents, twice, mask=is_pair)
            tl.store(out + (64 * t + 16 + h) * SHAPE.parents, linear + twice * shift, mask=is_pair)
            if t + 1 == T:
                tl.store(out + (64 * t + 32 + h) * SHAPE.parents, last_mean, mask=is_pair)
            else:
                precision = annealing / (spread + floor)
                tl.store(out + (64 * t + 32 + h) * SHAPE.parents, precision, mask=is_pair)
                tl.store(out + (64 * t + 48 + h) * SHAPE.parents, precision * shift, mask=is_pair)
            constant -= grad_variance * spread
            shifted += shift * (linear + square * shift)
        if t == 0:
            description = tl.load(record + DESCRIPTION * PAIRS)
            constant = constant * inverse_mass + grad_cost * description + shifted
            tl.store(out + (64 * T - 16) * SHAPE.parents, constant, mask=is_pair)


@triton.jit
def sweep(
    poses, activations, weight, coordinates, records, logits, partitions, grad_data, totals, factors,
    grad_weight, grad_coordinates, pose_copies, active_copies, PAIRS, WINDOWS, COMPETITORS, STEP,
    T: tl.constexpr, NEEDS_COORDINATES: tl.constexpr, SHAPE: tl.constexpr,
    BLOCK: tl.constexpr, N: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """N children and BLOCK parents over STEP windows, M at a time: their part of the weights' gradients, added up, and
    each window's copy of the gradients of its children."""
    ROWS: tl.constexpr = M * N
    n = tl.program_id(0) * N + tl.arange(0, ROWS) % N
    block = tl.program_id(1)
    parent = (block * BLOCK + tl.arange(0, BLOCK))[None, :]
    # what is beyond the last child or parent takes the last one's place: loads need no mask, only data and stores do
    is_n, is_parent = n < SHAPE.children, parent < SHAPE.parents
    n = inside(n, N, SHAPE)
    if SHAPE.parents % BLOCK != 0:
        parent = tl.minimum(parent, SHAPE.parents - 1)
    matrix = load_16(weight + (n % SHAPE.period * (16 * SHAPE.parents))[:, None] + parent, SHAPE.parents)
    matrix_sum = zeros_16(ROWS, BLOCK)
    vote_sum = zeros_16(ROWS, BLOCK)
    size = tl.cast(WINDOWS, tl.int64) * (SHAPE.children * SHAPE.parents)
    first = tl.program_id(2) * STEP
    end = tl.minimum(first + STEP, WINDOWS)
    for begin in range(first, end, M):
        if M == 1:
            window = begin + tl.arange(0, 1)  # one row of factors, whatever the child
            is_child = is_n
        else:
            window = begin + tl.arange(0, ROWS) // N
            is_child = is_n & (window < end)
            window = tl.minimum(window, end - 1)
        child = (first_child(window, SHAPE) + child_offset(n, SHAPE)).to(tl.int64)
        active = tl.load(activations + child)
        if M > 1 or SHAPE.children % N != 0:
            active = tl.where(is_child, active, 0.0)
        uniform = first_assignment(window, n, SHAPE)
        factor = factors + (window.to(tl.int64) * ((64 * T - 15) * SHAPE.parents))[:, None] + parent
        at = (window.to(tl.int64) * (SHAPE.children * SHAPE.parents) + n * SHAPE.parents)[:, None] + parent
        data = (only(is_parent, (uniform * active)[:, None], BLOCK, SHAPE),)
        grads = ()
        rival = competitor(window, n, SHAPE)
        for t in tl.static_range(T - 1):
            record = records + (t * RECORD + LOG_ACTIVATION) * tl.cast(PAIRS, tl.int64)
            value = tl.load(logits + t * size + at) + tl.load(record + (window * SHAPE.parents)[:, None] + parent)
            partition = partitions + (t * tl.cast(COMPETITORS, tl.int64) + rival) * 2
            inverse = tl.load(partition + 1) * active
            later = tl.exp(value - tl.load(partition)[:, None]) * inverse[:, None]
            later = only(is_parent, later, BLOCK, SHAPE)
            total = tl.load(totals + t * tl.cast(COMPETITORS, tl.int64) + rival)
            data = data + (later,)
            grads = grads + (later * (tl.load(grad_data + t * size + at) - total[:, None]),)
        grad_first = tl.load(factor + (64 * T - 16) * SHAPE.parents)
        grad_poses = ()
        sums = ()
        offsets = ()
        for row in tl.static_range(4):
            pose = ()
            for k in tl.static_range(4):
                part = tl.load(poses + child * 16 + 4 * row + k)
                pose = pose + (part[:, None],)
            grad = ()
            for column in tl.static_range(4):
                vote = pose[0] * matrix[column]
                for k in tl.static_range(1, 4):
                    vote += pose[k] * matrix[4 * k + column]
                if SHAPE.has_coordinates:
                    offset = tl.load(coordinates + n // SHAPE.period * 16 + 4 * row + column)
                    vote += offset[:, None]
                deviation = vote - tl.load(factor + (64 * T - 32 + 4 * row + column) * SHAPE.parents)
                a = tl.load(factor + (4 * row + column) * SHAPE.parents)
                b = tl.load(factor + (16 + 4 * row + column) * SHAPE.parents)
                grad_first += deviation * (b + 0.5 * a * deviation)
                slope = data[0] * a
                rest = data[0] * b
                for t in tl.static_range(1, T):
                    c = tl.load(factor + (64 * t - 32 + 4 * row + column) * SHAPE.parents)
                    e = tl.load(factor + (64 * t - 16 + 4 * row + column) * SHAPE.parents)
                    slope -= grads[t - 1] * c
                    rest -= grads[t - 1] * e
                    a = tl.load(factor + (64 * t + 4 * row + column) * SHAPE.parents)
                    b = tl.load(factor + (64 * t + 16 + 4 * row + column) * SHAPE.parents)
                    slope += data[t] * a
                    rest += data[t] * b
                grad = grad + (slope * deviation + rest,)
            added = ()
            for k in tl.static_range(4):
                grad_pose = grad[0] * matrix[4 * k]
                for column in tl.static_range(1, 4):
                    grad_pose += grad[column] * matrix[4 * k + column]
                grad_poses = grad_poses + (tl.sum(grad_pose, 1),)
                for column in tl.static_range(4):
                    if row == 0:
                        added = added + (matrix_sum[4 * k + column] + pose[k] * grad[column],)
                    else:
                        added = added + (sums[4 * k + column] + pose[k] * grad[column],)
            sums = added
            if NEEDS_COORDINATES:
                for column in tl.static_range(4):
                    offsets = offsets + (vote_sum[4 * row + column] + grad[column],)
        matrix_sum = sums
        if NEEDS_COORDINATES:
            vote_sum = offsets
        # the first assignment is constant: the gradient of its R·a goes to the activation alone
        grad_active = uniform * tl.sum(only(is_parent, grad_first, BLOCK, SHAPE), 1)
        copy = tl.cast(block * WINDOWS + window, tl.int64) * SHAPE.children + n
        tl.store(active_copies + copy, grad_active, mask=is_child)
        out = pose_copies + copy[:, None] * 16 + tl.arange(0, 16)[None, :]
        tl.store(out, tl.reshape(side_by_side(grad_poses), (ROWS, 16)), mask=is_child[:, None])
    n = tl.program_id(0) * N + tl.arange(0, N)
    at = (tl.program_id(2) * SHAPE.children + n).to(tl.int64) * (16 * SHAPE.parents)
    at = at[:, None] + parent
    is_real = (n < SHAPE.children)[:, None] & is_parent
    for h in tl.static_range(16):
        tl.store(grad_weight + at + h * SHAPE.parents, over_windows(matrix_sum[h], M, N, BLOCK), mask=is_real)
        if NEEDS_COORDINATES:
            tl.store(grad_coordinates + at + h * SHAPE.parents, over_windows(vote_sum[h], M, N, BLOCK), mask=is_real)


@triton.jit
def only(is_parent, values, BLOCK: tl.constexpr, SHAPE: tl.constexpr):
    """0 in the place of parents that are not there."""
    if SHAPE.parents % BLOCK == 0:
        return values
    else:
        return tl.where(is_parent, values, 0.0)


@triton.jit
def side_by_side(parts):
    """16 vectors as one tensor, ``[..., 2, 2, 2, 2]``: written at once, they cross the processor's threads once."""
    for _ in tl.static_range(4):
        parts = joined_halves(parts)
    return parts[0]


@triton.jit
def joined_halves(parts):
    half: tl.constexpr = len(parts) // 2
    joined = ()
    for at in tl.static_range(half):
        joined = joined + (tl.join(parts[at], parts[half + at]),)
    return joined


@triton.jit
def over_windows(rows, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr):
    """``[M·N, BLOCK]`` to ``[N, BLOCK]``."""
    if M == 1:
        return rows
    else:
        return tl.sum(tl.reshape(rows, (M, N, BLOCK)), 0)


@triton.jit
def gather(
    pose_copies, active_copies, totals, grad_poses, grad_activations, CHILDREN, WINDOWS, COMPETITORS,
    LATER: tl.constexpr, BLOCKS: tl.constexpr, SHAPE: tl.constexpr, GEOMETRY: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Every child's sum over the windows that cover it, and over LATER iterations; GEOMETRY is SHAPE with covers."""
    child = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    component = tl.arange(0, 16)[None, :]
    pose = tl.zeros((ROWS, 16), tl.float32)
    active = tl.zeros((ROWS,), tl.float32)
    if SHAPE.is_child_competition:
        for t in tl.static_range(LATER):
            total = tl.load(totals + t * tl.cast(COMPETITORS, tl.int64) + child, mask=child < CHILDREN, other=0.0)
            active += total
    for down in range(0, GEOMETRY.covers_high):
        for across in range(0, GEOMETRY.covers_wide):
            window, n, covered = cover(child, down, across, GEOMETRY)
            covered &= child < CHILDREN
            if not SHAPE.is_child_competition:
                for t in tl.static_range(LATER):
                    at = t * tl.cast(COMPETITORS, tl.int64) + window * SHAPE.children + n
                    active += tl.load(totals + at, mask=covered, other=0.0)
            for block in tl.static_range(BLOCKS):
                at = tl.cast(block * WINDOWS + window, tl.int64) * SHAPE.children + n
                pose += tl.load(pose_copies + at[:, None] * 16 + component, mask=covered[:, None], other=0.0)
                active += tl.load(active_copies + at, mask=covered, other=0.0)
    tl.store(grad_poses + child[:, None].to(tl.int64) * 16 + component, pose, mask=(child < CHILDREN)[:, None])
    tl.store(grad_activations + child, active, mask=child < CHILDREN)
