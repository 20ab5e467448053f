"""Losses on class activations, the spread loss's margin schedules, and the reconstruction loss.

All take ``activations [B, classes]`` in [0, 1] and ``targets [B]``, int64, and return a scalar.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_MARGIN, LARGEST_MARGIN = 0.2, 0.9


def spread_loss(activations: Tensor, targets: Tensor, margin: float | Tensor, reduction: str = "mean") -> Tensor:
    """Penalise each wrong class whose activation comes within ``margin`` of the true class's.

    ``Σ_{i≠t} max(0, margin − (a_t − a_i))²`` (Hinton et al. 2018, eq. 3).

    Args:
        activations: ``[B, classes]``, in [0, 1].
        targets: ``[B]``, int64.
        margin: in [0, 1]; see :func:`tutorial_margin` and :func:`authors_margin`. A scalar tensor is taken as it is,
            so that nothing waits for the device that it is on.
        reduction: over the batch, ``"mean"`` (the paper) or ``"sum"`` (the tutorial).

    Raises:
        ValueError: shapes, margin or reduction do not fit.

    Example:
        >>> spread_loss(torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([0]), margin=0.6)
        tensor(0.0400)
    """
    _check(activations, targets, reduction)
    if not isinstance(margin, Tensor) and not 0 <= margin <= 1:
        raise ValueError(f"margin must lie in [0, 1]; got {margin}")
    true = activations.gather(1, targets.unsqueeze(1))
    shortfall = (margin - (true - activations)).clamp_min(0) ** 2
    wrong = torch.ones_like(shortfall).scatter(1, targets.unsqueeze(1), 0)
    return _reduce((shortfall * wrong).sum(dim=1), reduction)


def tutorial_margin(step: int, steps_per_epoch: int) -> float:
    """The tutorial's margin: 0.2 in the first epoch, 0.1 more in each that follows, up to 0.9.

    Args:
        step: optimiser steps taken, from 0.
        steps_per_epoch: optimiser steps in one epoch.

    Example:
        >>> [tutorial_margin(epoch * 100, 100) for epoch in (0, 1, 9)]
        [0.2, 0.3, 0.9]
    """
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1; got {steps_per_epoch}")
    return round(min(LARGEST_MARGIN, SMALLEST_MARGIN + 0.1 * (step // steps_per_epoch)), 10)


def authors_margin(step: int, scale: float = 50_000) -> float:
    """The margin of the authors' code, ``0.2 + 0.79·σ(min(10, step/scale − 4))``: half way at ``4·scale`` steps.

    Args:
        step: optimiser steps taken, from 0.
        scale: 50,000 in the authors' code, whose runs take up to two million steps; scale it to yours, for instance
            a fortieth of all steps.

    Example:
        >>> round(authors_margin(200_000), 3)
        0.595
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive; got {scale}")
    return 0.2 + 0.79 / (1 + math.exp(-min(10.0, step / scale - 4)))


def margin_loss(
    activations: Tensor,
    targets: Tensor,
    *,
    present: float = 0.9,
    absent: float = 0.1,
    absent_weight: float = 0.5,
    reduction: str = "mean",
) -> Tensor:
    """The margin loss of Sabour, Frosst and Hinton (2017), eq. 4: each class wants to be on or off by itself.

    Args:
        activations: ``[B, classes]``, in [0, 1].
        targets: ``[B]``, int64.
        present: what the true class's activation should reach.
        absent: what the others' should stay under.
        absent_weight: weight of the others.
        reduction: ``"mean"`` or ``"sum"`` over the batch.

    Raises:
        ValueError: shapes or reduction do not fit.
    """
    _check(activations, targets, reduction)
    true = F.one_hot(targets, activations.shape[1]).to(activations.dtype)
    too_low = true * (present - activations).clamp_min(0) ** 2
    too_high = (1 - true) * (activations - absent).clamp_min(0) ** 2
    return _reduce((too_low + absent_weight * too_high).sum(dim=1), reduction)


def cross_entropy_loss(activations: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the activations taken as unnormalised probabilities, ``−ln(a_t / Σ_i a_i)``.

    The paper does not say how it made probabilities of activations. Normalising them lets the loss reach 0, which a
    softmax over numbers in [0, 1] does not. For a network that gives logits use ``torch.nn.functional.cross_entropy``.

    Args:
        activations: ``[B, classes]``, in [0, 1]; clamped to at least 1e-8.
        targets: ``[B]``, int64.
        reduction: ``"mean"`` or ``"sum"`` over the batch.

    Raises:
        ValueError: shapes or reduction do not fit.
    """
    _check(activations, targets, reduction)
    log_activations = activations.clamp_min(1e-8).log()
    return F.cross_entropy(log_activations, targets, reduction=reduction)


def reconstruction_loss(reconstructions: Tensor, images: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error summed over an image's pixels (Sabour, Frosst and Hinton 2017, section 4.1).

    Sabour et al. weigh it by 0.0005 so that it does not rule the training.

    Args:
        reconstructions: ``[B, C, H, W]``, from :class:`matcaps.models.PoseDecoder`.
        images: ``[B, C, H, W]``, as the network saw them.
        reduction: ``"mean"`` or ``"sum"`` over the batch.

    Raises:
        ValueError: the shapes differ, or an unknown reduction.
    """
    if reconstructions.shape != images.shape:
        raise ValueError(
            f"reconstructions must have the images' shape {list(images.shape)}; got {list(reconstructions.shape)}"
        )
    return _reduce(((reconstructions - images) ** 2).flatten(1).sum(dim=1), reduction)


def _check(activations: Tensor, targets: Tensor, reduction: str) -> None:
    if activations.ndim != 2 or list(targets.shape) != [activations.shape[0]]:
        raise ValueError(
            f"activations must have shape [B, classes] and targets [B]; "
            f"got {list(activations.shape)} and {list(targets.shape)}"
        )
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64 class indices; got {targets.dtype}")
    _check_reduction(reduction)


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction must be "mean" or "sum"; got {reduction!r}')


def _reduce(values: Tensor, reduction: str) -> Tensor:
    _check_reduction(reduction)
    return values.mean() if reduction == "mean" else values.sum()
