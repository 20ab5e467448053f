"""The log-loss: a measure, in nats, that is comparable between networks trained with different losses.

An error counts an image as right or wrong; the log-loss also measures by how much, so that it distinguishes two
networks with fewer images.

Scores become probabilities in two steps. A score a, an activation or a softmax, is clamped to at least 1e-8; then
``p_i = a_i^k / Σ_j a_j^k``. With k = 1 that is the class's share of the scores, the probability of which
:func:`matcaps.losses.cross_entropy_loss` is the loss. But the spread loss only demands a lead of 0.9, and so
leaves shares that are low for a network trained with cross-entropy, though both may rank the classes alike. So one
exponent k is fitted for all images of a test, as in temperature scaling (Guo et al. 2017): the one
with the smallest mean loss. It is fitted on these images themselves, one number for all of them, which favours
all networks equally.
"""

import torch
from torch import Tensor

SMALLEST_SCORE = 1e-8
"""As in :func:`matcaps.losses.cross_entropy_loss`: no image costs more than 18.4 nats with exponent 1."""

_LOWEST, _HIGHEST = 2.0**-7, 2.0**7
_STEPS = 50


def log_losses(scores: Tensor, labels: Tensor, exponent: float = 1.0) -> Tensor:
    """The negative logarithm of each image's probability of its true class: ``[N]``, float64, in nats.

    Args:
        scores: ``[N, classes]``, at least 0: activations, or probabilities.
        labels: ``[N]``, int64.
        exponent: the scores are raised to it before they are normalised; 1 leaves them unchanged.

    Example:
        >>> log_losses(torch.tensor([[0.3, 0.1]]), torch.tensor([0])).exp()
        tensor([1.3333], dtype=torch.float64)
    """
    logs = exponent * scores.double().clamp_min(SMALLEST_SCORE).log()
    return logs.logsumexp(dim=1) - logs.gather(1, labels.unsqueeze(1)).squeeze(1)


def best_exponent(scores: Tensor, labels: Tensor) -> float:
    """The exponent from 1/128 to 128 with the smallest mean of :func:`log_losses`.

    The mean is convex in the exponent, so that a golden-section search finds it.

    Args:
        scores: ``[N, classes]``, at least 0.
        labels: ``[N]``, int64.
    """
    golden = (5**0.5 - 1) / 2

    def mean_at(power: float) -> float:
        return float(log_losses(scores, labels, 2.0**power).mean())

    low, high = (float(torch.tensor(one).log2()) for one in (_LOWEST, _HIGHEST))
    inner, outer = high - golden * (high - low), low + golden * (high - low)
    at_inner, at_outer = mean_at(inner), mean_at(outer)
    for _ in range(_STEPS):
        if at_inner <= at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - golden * (high - low)
            at_inner = mean_at(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + golden * (high - low)
            at_outer = mean_at(outer)
    return 2.0 ** ((low + high) / 2)
