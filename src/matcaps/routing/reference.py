"""Procedure 1 of Hinton, Sabour and Frosst (2018), step by step in plain PyTorch: the oracle.

Every other implementation is held against this one, so it stays close to the equations: ordinary autograd, no
clever reshapes, the votes written out in memory. The equations and the choices are in this folder's README.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from matcaps.capsules import POSE_COMPONENTS

EMPTY_MASS = 1e-20
"""A parent whose mass (sum of assignment times activation) does not exceed this has no data."""

STANDARD_DEVIATION_OFFSET = 1e-9
"""Added to the standard deviation of the costs by the standardised rule, as in the tutorial."""


class RoutingIteration(NamedTuple):
    """The state of one routing after one M-step.

    Attributes:
        assignment: ``[..., I, J]``, what share of each child the M-step gave to each parent.
        mean: ``[..., J, P]``, each parent's mean vote.
        variance: ``[..., J, P]``, the votes' variance about it, floor included.
        mass: ``[..., J]``, how much data each parent has: assignment times the child's activation, summed.
        cost: ``[..., J]``, the cost of describing the parent's data, in nats.
        activation: ``[..., J]``, in [0, 1].
    """

    assignment: Tensor
    mean: Tensor
    variance: Tensor
    mass: Tensor
    cost: Tensor
    activation: Tensor


def em_routing(
    votes: Tensor,
    activations: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    inverse_temperature: Sequence[float] | Tensor,
    activation_rule: str,
    variance_floor: float,
    annealing: float,
) -> Iterator[RoutingIteration]:
    """Yield every iteration of one routing in which the ``J`` parents compete for each child.

    ``votes [..., I, J, P]``, ``activations [..., I]``, ``beta_use [J]``, ``beta_activation [J]``.
    """
    num_parents = votes.shape[-2]
    uniform = torch.full_like(votes[..., 0], 1 / num_parents)
    return _iterate(
        votes,
        activations,
        beta_use,
        beta_activation,
        uniform,
        lambda logit: logit.logsumexp(dim=-1, keepdim=True),
        inverse_temperature,
        activation_rule,
        variance_floor,
        annealing,
    )


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
    activation_rule: str,
    variance_floor: float,
    annealing: float,
) -> Iterator[RoutingIteration]:
    """Yield every iteration of a convolutional routing; the children of a window are ordered (row, column, type).

    ``poses [B, H, W, I, 4, 4]``, ``activations [B, H, W, I]``, betas ``[J]``, ``weight [K, K, I, J, 4, 4]`` or, for
    vector poses, ``[K, K, I, J, 16, 16]``. The states have leading dimensions ``[B, H', W']`` and ``K·K·I`` children.
    """
    windows = _Windows(poses.shape[1], poses.shape[2], weight.shape[0], stride)
    num_parents = weight.shape[3]
    # every window's own copy of its children, and a vote from each of them for each parent type
    votes_BHWIJP = _votes(windows.gather(poses), weight).flatten(3, 5)
    activations_BHWI = windows.gather(activations).flatten(3)
    if competition == "window":
        return em_routing(
            votes_BHWIJP,
            activations_BHWI,
            beta_use,
            beta_activation,
            inverse_temperature=inverse_temperature,
            activation_rule=activation_rule,
            variance_floor=variance_floor,
            annealing=annealing,
        )
    # a child's parents are those of every window that covers it
    ones = torch.ones_like(activations)
    num_windows = windows.gather(windows.scatter_sum(windows.gather(ones)))
    uniform = (1 / (num_parents * num_windows)).flatten(3).unsqueeze(-1).expand(votes_BHWIJP.shape[:-1])

    def log_partition(logit: Tensor) -> Tensor:
        window_BHWKKI = logit.logsumexp(dim=-1).unflatten(3, weight.shape[:3])
        peak_BHWKKI = windows.gather(windows.scatter_max(window_BHWKKI.detach()))
        total_BHWKKI = windows.gather(windows.scatter_sum((window_BHWKKI - peak_BHWKKI).exp()))
        return (total_BHWKKI.log() + peak_BHWKKI).flatten(3).unsqueeze(-1)

    return _iterate(
        votes_BHWIJP,
        activations_BHWI,
        beta_use,
        beta_activation,
        uniform,
        log_partition,
        inverse_temperature,
        activation_rule,
        variance_floor,
        annealing,
    )


def class_em_routing(
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    coordinates: Tensor | None,
    inverse_temperature: Sequence[float] | Tensor,
    activation_rule: str,
    variance_floor: float,
    annealing: float,
) -> Iterator[RoutingIteration]:
    """Yield every iteration of the one routing over all ``H·W·I`` children, ordered (row, column, type).

    ``poses [B, H, W, I, 4, 4]``, ``activations [B, H, W, I]``, ``weight [I, J, 4, 4]`` or, for vector poses,
    ``[I, J, 16, 16]``, betas ``[J]``, ``coordinates [H, W, P]``, added to every vote of that position.
    """
    votes_BHWIJP = _votes(poses, weight)
    if coordinates is not None:
        votes_BHWIJP = votes_BHWIJP + coordinates[:, :, None, None, :]
    return em_routing(
        votes_BHWIJP.flatten(1, 3),
        activations.flatten(1),
        beta_use,
        beta_activation,
        inverse_temperature=inverse_temperature,
        activation_rule=activation_rule,
        variance_floor=variance_floor,
        annealing=annealing,
    )


def _votes(poses: Tensor, weight: Tensor) -> Tensor:
    """Every child's vote for every parent: ``[B, H, W, ..., 4, 4]`` through ``[..., J, 4, 4]`` is
    ``[B, H, W, ..., J, P]``. Through ``[..., J, 16, 16]`` the pose is a vector, its matrix row by row.
    """
    if weight.shape[-1] == POSE_COMPONENTS:
        # a sum rather than @, which would write out the weights for every position, 16 times as much as the votes
        return torch.einsum("bhw...p,...jpq->bhw...jq", poses.flatten(-2), weight)
    return (poses.unsqueeze(-3) @ weight).flatten(-2)


def _iterate(
    votes: Tensor,
    activations: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    assignment: Tensor,
    log_partition: Callable[[Tensor], Tensor],
    inverse_temperature: Sequence[float] | Tensor,
    activation_rule: str,
    variance_floor: float,
    annealing: float,
) -> Iterator[RoutingIteration]:
    """The EM loop. ``log_partition`` maps logits ``[..., I, J]`` to the log-sum-exp over the parents that compete."""
    num_iterations = len(inverse_temperature)
    for iteration in range(num_iterations):
        mean, variance, mass, cost = _m_step(votes, activations, assignment, beta_use, variance_floor)
        if activation_rule == "relative":
            cost = _beside_the_usual(mass, cost)
        activation_logit = inverse_temperature[iteration] * _evidence(cost, beta_activation, activation_rule)
        yield RoutingIteration(assignment, mean, variance, mass, cost, activation_logit.sigmoid())
        if iteration + 1 < num_iterations:
            logit = logsigmoid(activation_logit).unsqueeze(-2) + annealing * _log_density(votes, mean, variance)
            assignment = (logit - log_partition(logit)).exp()


def _m_step(
    votes: Tensor, activations: Tensor, assignment: Tensor, beta_use: Tensor, variance_floor: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fit each parent's Gaussian: mean and variance ``[..., J, P]``, mass and cost ``[..., J]``."""
    data = assignment * activations.unsqueeze(-1)
    mass = data.sum(dim=-2)
    # A parent with no data keeps mean 0, variance at the floor and cost 0, and passes no gradient: 0 / 0 never occurs.
    has_data = mass > EMPTY_MASS
    divisor = torch.where(has_data, mass, 1).unsqueeze(-2)
    share = torch.where(has_data.unsqueeze(-2), data / divisor, 0).unsqueeze(-1)
    mean = (share * votes).sum(dim=-3)
    variance = (share * (votes - mean.unsqueeze(-3)) ** 2).sum(dim=-3) + variance_floor
    cost = mass * (beta_use.unsqueeze(-1) + variance.log() / 2).sum(dim=-1)
    return mean, variance, mass, cost


def _beside_the_usual(mass: Tensor, cost: Tensor) -> Tensor:
    """What each parent's data cost more than as many of its window's data cost on average, ``[..., J]``; sums to 0."""
    data = mass.sum(dim=-1, keepdim=True)
    has_data = data > 0
    usual = torch.where(has_data, cost.sum(dim=-1, keepdim=True) / torch.where(has_data, data, 1), 0)
    return cost - mass * usual


def _evidence(cost: Tensor, beta_activation: Tensor, activation_rule: str) -> Tensor:
    """What the inverse temperature multiplies: how far a parent's reward exceeds its cost, ``[..., J]``."""
    if activation_rule != "standardised":
        return beta_activation - cost
    centred = cost.mean(dim=-1, keepdim=True) - cost
    variance = (centred**2).mean(dim=-1, keepdim=True)
    # sqrt has an infinite slope at 0, where it would multiply a zero into NaN
    differs = variance > 0
    deviation = torch.where(differs, torch.where(differs, variance, 1).sqrt(), 0)
    return beta_activation + centred / (deviation + STANDARD_DEVIATION_OFFSET)


def _log_density(votes: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log-density of each vote under its parent's Gaussian, without the constant, ``[..., I, J]``."""
    mean, variance = mean.unsqueeze(-3), variance.unsqueeze(-3)
    return -((votes - mean) ** 2 / variance + variance.log()).sum(dim=-1) / 2


class _Windows:
    """The windows that a K×K kernel cuts out of a map of children, without padding."""

    def __init__(self, height: int, width: int, kernel_size: int, stride: int):
        self.size = height, width
        rows, columns = (height - kernel_size) // stride + 1, (width - kernel_size) // stride + 1
        # The children that stand at place (k, l) of their window, for all windows at once.
        self._slices = [
            [
                (
                    slice(None),
                    slice(k, k + stride * (rows - 1) + 1, stride),
                    slice(l, l + stride * (columns - 1) + 1, stride),
                )
                for l in range(kernel_size)  # noqa: E741
            ]
            for k in range(kernel_size)
        ]

    def gather(self, children: Tensor) -> Tensor:
        """``[B, H, W, ...]`` to ``[B, H', W', K, K, ...]``: each window's copy of its children."""
        return torch.stack([torch.stack([children[place] for place in row], dim=3) for row in self._slices], dim=3)

    def scatter_sum(self, windows: Tensor) -> Tensor:
        """``[B, H', W', K, K, ...]`` to ``[B, H, W, ...]``: each child's sum over its copies."""
        children = windows.new_zeros(windows.shape[0], *self.size, *windows.shape[5:])
        return self._scatter(children, windows, torch.add)

    def scatter_max(self, windows: Tensor) -> Tensor:
        """``[B, H', W', K, K, ...]`` to ``[B, H, W, ...]``: each child's largest copy; no gradient."""
        children = windows.new_full((windows.shape[0], *self.size, *windows.shape[5:]), -torch.inf)
        return self._scatter(children, windows, torch.maximum)

    def _scatter(self, children: Tensor, windows: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Join every child with its copies, one place in the windows after the other.

        Nothing is written into: what is, ``torch.func.linearize`` loses.
        """
        for k, row in enumerate(self._slices):
            for l, place in enumerate(row):  # noqa: E741
                _, rows, columns = place
                of_rows = children[:, rows]
                joined = join(of_rows[:, :, columns], windows[:, :, :, k, l])
                of_rows = of_rows.slice_scatter(joined, 2, columns.start, columns.stop, columns.step)
                children = children.slice_scatter(of_rows, 1, rows.start, rows.stop, rows.step)
        return children
