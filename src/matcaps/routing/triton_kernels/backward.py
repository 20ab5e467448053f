"""Backward, from the last iteration to the first: the gradients of records, of data and of logits. See the README.

The logits' gradients are not stored: whoever reads them makes them of the data's, ``G = R·a (g(d) - Σ R g(d))``.
"""

import triton
import triton.language as tl

from matcaps.routing.triton_kernels.forward import DEVIATION_OFFSET, cover, log_sigmoid, logits_of
from matcaps.routing.triton_kernels.votes import (
    DESCRIPTION,
    EMPTY_MASS,
    EVIDENCE,
    GRAD_COST,
    GRAD_MEAN,
    GRAD_VARIANCE,
    LOG_ACTIVATION,
    LOGIT_SUM,
    MASS,
    MEAN,
    SPREAD,
    first_child,
    inside,
    load_planes,
    moments,
    votes_of,
)


@triton.jit
def fit_backward(
    poses, activations, weight, coordinates, logit, partition, record, grad_data, total, grad_record,
    floor, annealing, PAIRS, SHAPE: tl.constexpr, S: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """What the log-densities of an iteration send to its means and variances, and the sum of the logits' gradients."""
    pair = tl.program_id(0) * Q + tl.arange(0, Q)
    is_pair = pair < PAIRS
    pair = tl.minimum(pair, PAIRS - 1)
    mean = load_planes(record + pair, MEAN, PAIRS)
    mass, first, second = moments(
        poses, activations, weight, coordinates, logit, record + LOG_ACTIVATION * PAIRS, partition, grad_data, total,
        pair, mean, 1, False, True, SHAPE, S, Q,
    )  # fmt: skip
    logit_sum = tl.sum(mass, 0)
    out = grad_record + pair
    tl.store(out + LOGIT_SUM * PAIRS, logit_sum, mask=is_pair)
    for h in tl.static_range(16):
        spread = tl.load(record + (SPREAD + h) * PAIRS + pair)
        precision = annealing / (spread + floor)
        plain = 1.0 / (spread + floor)
        tl.store(out + (GRAD_MEAN + h) * PAIRS, precision * tl.sum(first[h], 0), mask=is_pair)
        grad_variance = 0.5 * precision * (tl.sum(second[h], 0) * plain - logit_sum)
        tl.store(out + (GRAD_VARIANCE + h) * PAIRS, grad_variance, mask=is_pair)


@triton.jit
def activate_backward(
    record, grad_record, grad_out_activations, inverse_temperature, sums, t, PAIRS, WINDOWS,
    LAST: tl.constexpr, RULE: tl.constexpr, SHAPE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """From the gradients of activations to those of costs; the parameters' gradients as three planes to be summed."""
    window = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    parent = tl.arange(0, SHAPE.block)[None, :]
    is_real = (window < WINDOWS) & (parent < SHAPE.parents)
    at = window * SHAPE.parents + parent
    temperature = tl.load(inverse_temperature + t)
    evidence = tl.load(record + EVIDENCE * PAIRS + at, mask=is_real, other=0.0)
    mass = tl.load(record + MASS * PAIRS + at, mask=is_real, other=0.0)
    _, active = log_sigmoid(temperature * evidence)
    _, silent = log_sigmoid(-temperature * evidence)
    if LAST:
        grad_logit = tl.load(grad_out_activations + at, mask=is_real, other=0.0) * (active * silent)
    else:
        grad_logit = tl.load(grad_record + LOGIT_SUM * PAIRS + at, mask=is_real, other=0.0) * silent
    grad_evidence = temperature * grad_logit
    if RULE == 1:
        # standardised_j = x_j / divisor with x_j = mean cost - cost_j; the deviation depends on every x
        cost = mass * tl.load(record + DESCRIPTION * PAIRS + at, mask=is_real, other=0.0)
        centred = tl.where(is_real, tl.sum(cost, 1)[:, None] / SHAPE.parents - cost, 0.0)
        variance = tl.sum(centred * centred, 1)[:, None] / SHAPE.parents
        deviation = tl.sqrt_rn(variance)
        divisor = deviation + DEVIATION_OFFSET
        projection = tl.sum(grad_evidence * centred, 1)[:, None]
        differs = variance > 0
        slope = projection / tl.where(differs, divisor * divisor * deviation * SHAPE.parents, 1.0)
        grad_centred = grad_evidence / divisor - tl.where(differs, slope, 0.0) * centred
        grad_cost = tl.sum(tl.where(is_real, grad_centred, 0.0), 1)[:, None] / SHAPE.parents - grad_centred
    elif RULE == 2:
        # relative: the record's description is less the usual, which depends on every parent's data
        data = tl.sum(mass, 1)[:, None]
        grad_cost = tl.sum(mass * grad_evidence, 1)[:, None] / tl.where(data > 0, data, 1.0) - grad_evidence
    else:
        grad_cost = -grad_evidence
    tl.store(grad_record + GRAD_COST * PAIRS + at, grad_cost, mask=is_real)
    tl.store(sums + at, grad_logit * evidence, mask=is_real)
    tl.store(sums + PAIRS + at, grad_evidence, mask=is_real)
    tl.store(sums + 2 * PAIRS + at, 16.0 * mass * grad_cost, mask=is_real)


@triton.jit
def data_backward(
    poses, weight, coordinates, record, grad_record, grad_out_poses, grad_data, floor, PAIRS,
    LAST: tl.constexpr, SHAPE: tl.constexpr, S: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """The gradient of the children's data R·a, ``Σ_h D (g(µ) + g(σ²) D) / m + constant``."""
    pair = tl.program_id(0) * Q + tl.arange(0, Q)
    is_pair = pair < PAIRS
    pair = tl.minimum(pair, PAIRS - 1)
    window = (pair // SHAPE.parents)[None, :]
    parent = (pair % SHAPE.parents)[None, :]
    mean = load_planes(record + pair, MEAN, PAIRS)
    mass = tl.load(record + MASS * PAIRS + pair)[None, :]
    grad_cost = tl.load(grad_record + GRAD_COST * PAIRS + pair)[None, :]
    has_data = mass > EMPTY_MASS
    inverse_mass = tl.where(has_data, 1.0 / tl.where(has_data, mass, 1.0), 0.0)
    linear = ()
    square = ()
    constant = tl.full((1, Q), 0.0, tl.float32)
    for h in tl.static_range(16):
        spread = tl.load(record + (SPREAD + h) * PAIRS + pair)[None, :]
        grad_variance = 0.5 * grad_cost * mass / (spread + floor)
        if LAST:
            grad_mean = tl.load(grad_out_poses + pair.to(tl.int64) * 16 + h)[None, :]
        else:
            grad_mean = tl.load(grad_record + (GRAD_MEAN + h) * PAIRS + pair)[None, :]
            grad_variance += tl.load(grad_record + (GRAD_VARIANCE + h) * PAIRS + pair)[None, :]
        constant -= grad_variance * spread
        linear = linear + (grad_mean * inverse_mass,)
        square = square + (grad_variance * inverse_mass,)
    description = tl.load(record + DESCRIPTION * PAIRS + pair)[None, :]
    constant = constant * inverse_mass + grad_cost * description
    start = first_child(window, SHAPE).to(tl.int64)
    out = grad_data + window.to(tl.int64) * (SHAPE.children * SHAPE.parents) + parent
    for begin in range(0, SHAPE.children, S):
        beyond = begin + tl.arange(0, S)[:, None]
        n = inside(beyond, S, SHAPE)
        votes = votes_of(poses, weight, coordinates, start, n, parent, SHAPE)
        result = tl.full((S, Q), 0.0, tl.float32)
        for row in tl.static_range(4):
            part = tl.full((S, Q), 0.0, tl.float32)
            for column in tl.static_range(4):
                deviation = votes[4 * row + column] - mean[4 * row + column]
                part += deviation * (linear[4 * row + column] + square[4 * row + column] * deviation)
            result += part
        tl.store(out + n * SHAPE.parents, result + constant, mask=(beyond == n) & is_pair[None, :])


@triton.jit
def compete_backward(
    logit, log_activation, partition, grad_data, total, CHILDREN, SHAPE: tl.constexpr, ROWS: tl.constexpr
):
    """``Σ R g(d)`` of ROWS children over all parents of all windows that cover them."""
    child = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    parent = tl.arange(0, SHAPE.block)[None, :]
    peak = tl.load(partition + child * 2, mask=child < CHILDREN, other=0.0)[:, None]
    HIGH: tl.constexpr = SHAPE.covers_high if SHAPE.is_child_competition else 1
    WIDE: tl.constexpr = SHAPE.covers_wide if SHAPE.is_child_competition else 1
    result = tl.full((ROWS,), 0.0, tl.float32)
    for at in range(0, HIGH * WIDE):
        window, n, covered = cover(child, at // WIDE, at % WIDE, SHAPE)
        value = logits_of(logit, log_activation, child, at, CHILDREN, parent, SHAPE)
        is_real = (covered & (child < CHILDREN))[:, None] & (parent < SHAPE.parents)
        start = window.to(tl.int64) * (SHAPE.children * SHAPE.parents) + n * SHAPE.parents
        grad = tl.load(grad_data + start[:, None] + parent, mask=is_real, other=0.0)
        result += tl.sum(tl.exp(value - peak) * grad, 1)
    result *= tl.load(partition + child * 2 + 1, mask=child < CHILDREN, other=0.0)
    tl.store(total + child, result, mask=child < CHILDREN)
