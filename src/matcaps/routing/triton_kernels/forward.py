"""Forward: the M-step with the log-densities that follow from it, activations, and competition."""

import triton
import triton.language as tl

from matcaps.routing.triton_kernels.votes import (
    DESCRIPTION,
    EMPTY_MASS,
    EVIDENCE,
    LOG_ACTIVATION,
    MASS,
    MEAN,
    SPREAD,
    first_child,
    inside,
    load_planes,
    moments,
    sum_children,
    votes_of,
    zeros_16,
)

LOG_ZERO = tl.constexpr(float("-inf"))

DEVIATION_OFFSET = tl.constexpr(1e-9)
"""Added to the standard deviation of the costs; as in the reference."""


@triton.jit
def fit(
    poses, activations, weight, coordinates, beta_use, logit, log_activation, partition, last_record,
    record, density, out_poses, floor, annealing, PAIRS,
    FIRST: tl.constexpr, LAST: tl.constexpr, SHAPE: tl.constexpr, S: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """Q pairs of a window and a parent: mean, spread and cost of the data, then the children's log-densities."""
    pair = tl.program_id(0) * Q + tl.arange(0, Q)
    is_pair = pair < PAIRS
    pair = tl.minimum(pair, PAIRS - 1)
    if FIRST:
        mass, first, second = moments(
            poses, activations, weight, coordinates, logit, log_activation, partition, logit, partition,
            pair, zeros_16(1, Q), SHAPE.sample_step, FIRST, False, SHAPE, S, Q,
        )  # fmt: skip
        mass = tl.sum(mass, 0)[None, :]
        first = sum_children(first)
        centre = ()
        for h in tl.static_range(16):
            centre = centre + (tl.where(mass > 0, first[h] / tl.where(mass > 0, mass, 1.0), 0.0),)
    else:
        centre = load_planes(last_record + pair, MEAN, PAIRS)
    mass = tl.full((1, Q), 0.0, tl.float32)
    inverse = mass
    first = zeros_16(1, Q)
    second = zeros_16(1, Q)
    # A centre further from the mean than a standard deviation costs digits of the spread: once more, about the mean.
    # As a loop: written out twice, the visit would take Triton three times as long to compile.
    visits = tl.full((), 2, tl.int32)
    while visits > 0:
        mass, first, second = moments(
            poses, activations, weight, coordinates, logit, log_activation, partition, logit, partition,
            pair, centre, 1, FIRST, False, SHAPE, S, Q,
        )  # fmt: skip
        mass = tl.sum(mass, 0)[None, :]
        first = sum_children(first)
        second = sum_children(second)
        inverse = tl.where(mass > EMPTY_MASS, 1.0 / tl.where(mass > EMPTY_MASS, mass, 1.0), 0.0)
        is_far = tl.full((1, Q), 0, tl.int32)
        for h in tl.static_range(16):
            rest = first[h] * inverse
            is_far |= (rest * rest > second[h] * inverse - rest * rest + floor).to(tl.int32)
        visits = tl.where(tl.max(tl.max(is_far, 1), 0) > 0, visits - 1, 0)
        moved = ()
        for h in tl.static_range(16):
            moved = moved + (tl.where(visits > 0, centre[h] + first[h] * inverse, centre[h]),)
        centre = moved

    has_data = mass > EMPTY_MASS
    mean = ()
    scale = ()
    log_sum = ()
    for h in tl.static_range(16):
        rest = first[h] * inverse
        spread = second[h] * inverse - rest * rest
        spread = tl.where(spread < 0, 0.0, spread)  # NaN stays NaN
        middle = tl.where(
            has_data, centre[h] + rest, 0.0 * first[h]
        )  # NaN in the votes comes through without data, too
        variance = spread + floor
        log_sum = log_sum + (tl.log(variance),)
        mean = mean + (middle,)
        scale = scale + (-0.5 * annealing / variance,)
        tl.store(record + (MEAN + h) * PAIRS + pair[None, :], middle, mask=is_pair[None, :])
        tl.store(record + (SPREAD + h) * PAIRS + pair[None, :], spread, mask=is_pair[None, :])
        if LAST:
            tl.store(out_poses + pair[None, :].to(tl.int64) * 16 + h, middle, mask=is_pair[None, :])
    # four sums of four: shorter sums round less
    log_determinant = log_sum[0] + log_sum[1] + log_sum[2] + log_sum[3]
    for row in tl.static_range(1, 4):
        log_determinant += log_sum[4 * row] + log_sum[4 * row + 1] + log_sum[4 * row + 2] + log_sum[4 * row + 3]
    parent = (pair % SHAPE.parents)[None, :]
    use = tl.load(beta_use + parent)
    tl.store(record + MASS * PAIRS + pair[None, :], mass, mask=is_pair[None, :])
    tl.store(record + DESCRIPTION * PAIRS + pair[None, :], 16.0 * use + 0.5 * log_determinant, mask=is_pair[None, :])
    if not LAST:
        constant = -0.5 * annealing * log_determinant
        start = first_child((pair // SHAPE.parents)[None, :], SHAPE).to(tl.int64)
        out = density + (pair // SHAPE.parents)[None, :].to(tl.int64) * (SHAPE.children * SHAPE.parents) + parent
        for begin in range(0, SHAPE.children, S):
            beyond = begin + tl.arange(0, S)[:, None]
            n = inside(beyond, S, SHAPE)
            votes = votes_of(poses, weight, coordinates, start, n, parent, SHAPE)
            total = tl.full((S, Q), 0.0, tl.float32)
            for row in tl.static_range(4):  # apart from the constant, and each row apart: shorter sums round less
                part = tl.full((S, Q), 0.0, tl.float32)
                for column in tl.static_range(4):
                    deviation = votes[4 * row + column] - mean[4 * row + column]
                    part += deviation * deviation * scale[4 * row + column]
                total += part
            tl.store(out + n * SHAPE.parents, total + constant, mask=(beyond == n) & is_pair[None, :])


@triton.jit
def log_sigmoid(z):
    """ln(1 / (1 + exp(-z))), and 1 / (1 + exp(-z))."""
    small = tl.exp(-tl.abs(z))
    one_plus = small + 1.0
    # the error of 1 + u is made good to first order
    log1p = tl.log(one_plus) + (small - (one_plus - 1.0)) / one_plus
    log = tl.where(z > 0, 0.0, z) - log1p
    return log, tl.where(z > 0, 1.0, small) / one_plus


@triton.jit
def activate(
    record, beta_activation, inverse_temperature, out_activations, t, PAIRS, WINDOWS,
    LAST: tl.constexpr, RULE: tl.constexpr, SHAPE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Evidence and log-activation of the parents of ROWS windows."""
    window = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    parent = tl.arange(0, SHAPE.block)[None, :]
    is_real = (window < WINDOWS) & (parent < SHAPE.parents)
    at = window * SHAPE.parents + parent
    mass = tl.load(record + MASS * PAIRS + at, mask=is_real, other=0.0)
    description = tl.load(record + DESCRIPTION * PAIRS + at, mask=is_real, other=0.0)
    if RULE == 2:  # relative: less what a unit of the window's data costs on average
        data = tl.sum(mass, 1)[:, None]
        usual = tl.sum(mass * description, 1)[:, None] / tl.where(data > 0, data, 1.0)
        description -= usual
        tl.store(record + DESCRIPTION * PAIRS + at, description, mask=is_real)
    cost = mass * description
    evidence = tl.load(beta_activation + parent, mask=parent < SHAPE.parents, other=0.0)
    if RULE == 1:  # standardised
        centred = tl.sum(cost, 1)[:, None] / SHAPE.parents - cost
        square = tl.where(is_real, centred * centred, 0.0)
        deviation = tl.sqrt_rn(tl.sum(square, 1)[:, None] / SHAPE.parents)
        evidence += centred / (deviation + DEVIATION_OFFSET)
    else:
        evidence -= cost
    log, sigmoid = log_sigmoid(tl.load(inverse_temperature + t) * evidence)
    tl.store(record + EVIDENCE * PAIRS + at, evidence, mask=is_real)
    tl.store(record + LOG_ACTIVATION * PAIRS + at, log, mask=is_real)
    if LAST:
        tl.store(out_activations + at, sigmoid, mask=is_real)


@triton.jit
def cover(child, down, across, SHAPE: tl.constexpr):
    """One of the windows that cover a child (or do not: the last result), and which of its children it is.

    Under window competition a "child" is a child of one window, and has that window alone.
    """
    if SHAPE.is_child_competition:
        type_ = child % SHAPE.types
        column = child // SHAPE.types % SHAPE.width
        row = child // (SHAPE.types * SHAPE.width) % SHAPE.height
        image = child // (SHAPE.types * SHAPE.width * SHAPE.height)
        y = tl.minimum(row // SHAPE.stride, SHAPE.rows - 1) - down
        x = tl.minimum(column // SHAPE.stride, SHAPE.columns - 1) - across
        k = row - y * SHAPE.stride
        l = column - x * SHAPE.stride  # noqa: E741
        covered = (y >= 0) & (x >= 0) & (k < SHAPE.kernel_height) & (l < SHAPE.kernel_width)
        window = (image * SHAPE.rows + y) * SHAPE.columns + x
        return window, (k * SHAPE.kernel_width + l) * SHAPE.types + type_, covered
    else:
        return child // SHAPE.children, child % SHAPE.children, child >= 0


@triton.jit
def compete(logit, log_activation, partition, CHILDREN, SHAPE: tl.constexpr, ROWS: tl.constexpr):
    """The largest logit of each of ROWS children, over all parents of all windows that cover it, and the inverse of
    the sum of ``exp(logit - largest)``."""
    child = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    parent = tl.arange(0, SHAPE.block)[None, :]
    HIGH: tl.constexpr = SHAPE.covers_high if SHAPE.is_child_competition else 1
    WIDE: tl.constexpr = SHAPE.covers_wide if SHAPE.is_child_competition else 1
    peak = tl.full((ROWS,), LOG_ZERO, tl.float32)
    for at in range(0, HIGH * WIDE):
        value = logits_of(logit, log_activation, child, at, CHILDREN, parent, SHAPE)
        peak = tl.maximum(peak, tl.max(value, 1))
    peak = tl.where(peak > LOG_ZERO, peak, 0.0)  # no window covers the child; or NaN, which comes through below
    total = tl.full((ROWS,), 0.0, tl.float32)
    for at in range(0, HIGH * WIDE):
        value = logits_of(logit, log_activation, child, at, CHILDREN, parent, SHAPE)
        total += tl.sum(tl.exp(value - peak[:, None]), 1)
    tl.store(partition + child * 2, peak, mask=child < CHILDREN)
    tl.store(partition + child * 2 + 1, 1.0 / tl.where(total == 0, 1.0, total), mask=child < CHILDREN)


@triton.jit
def logits_of(logit, log_activation, child, at, CHILDREN, parent, SHAPE: tl.constexpr):
    """What the parents of one of the windows that cover a child bid for it, ``[children, J]``, or -inf."""
    window, n, covered = cover(child, at // SHAPE.covers_wide, at % SHAPE.covers_wide, SHAPE)
    is_real = (covered & (child < CHILDREN))[:, None] & (parent < SHAPE.parents)
    start = window.to(tl.int64) * (SHAPE.children * SHAPE.parents) + n * SHAPE.parents
    value = tl.load(logit + start[:, None] + parent, mask=is_real, other=LOG_ZERO)
    return value + tl.load(log_activation + window[:, None] * SHAPE.parents + parent, mask=is_real, other=0.0)
