"""Procedure 1 of Hinton, Sabour and Frosst (2018), step by step in plain PyTorch.

Every other implementation is tested against this one, so it stays close to the equations: ordinary autograd, no
clever reshapes, all votes in memory. The equations and the choices are in this folder's README.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from matcaps.capsules import POSE_COMPONENTS, RoutingIteration
from matcaps.routing.spec import RoutingInputs, RoutingSpec

EMPTY_MASS = 1e-20
"""A parent whose mass (sum of assignment times activation) does not exceed this has no data."""

STANDARD_DEVIATION_OFFSET = 1e-9
"""Added to the standard deviation of the costs by the standardised rule, as in the tutorial."""


def em_routing(
    votes: Tensor,
    activations: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    inverse_temperature: Tensor,
    spec: RoutingSpec,
) -> Iterator[RoutingIteration]:
    """Yield every iteration of one routing in which the ``J`` parents compete for each child.

    ``votes [..., I, J, P]``, ``activations [..., I]``, ``beta_use [J]``, ``beta_activation [J]``.
    """
    uniform = torch.full_like(votes[..., 0], 1 / votes.shape[-2])

    def log_partition(logit: Tensor) -> Tensor:
        return logit.logsumexp(dim=-1, keepdim=True)

    return _iterate(votes, activations, beta_use, beta_activation, inverse_temperature, spec, uniform, log_partition)


def route(inputs: RoutingInputs, spec: RoutingSpec) -> Iterator[RoutingIteration]:
    """Yield every iteration of a routing through a kernel, or of the one routing of class capsules.

    Children are ordered (row, column, type). The states of a routing through a kernel have leading dimensions
    ``[B, H', W']`` and a window's ``K·K·I`` children, those of class capsules ``[B]`` and all ``H·W·I`` children.
    """
    return _route_classes(inputs, spec) if inputs.is_class else _route_windows(inputs, spec)


def _route_windows(inputs: RoutingInputs, spec: RoutingSpec) -> Iterator[RoutingIteration]:
    poses, activations, weight, beta_use, beta_activation, inverse_temperature, _ = inputs
    windows = _Windows(poses.shape[1], poses.shape[2], weight.shape[0], spec.stride)
    # every window's own copy of its children, and a vote from each of them for each parent type
    votes_BHWIJP = _votes(windows.gather(poses), weight).flatten(3, 5)
    activations_BHWI = windows.gather(activations).flatten(3)
    if not spec.child_competition:
        return em_routing(votes_BHWIJP, activations_BHWI, beta_use, beta_activation, inverse_temperature, spec)
    # a child's parents are those of every window that covers it
    ones = torch.ones_like(activations)
    num_windows = windows.gather(windows.scatter_sum(windows.gather(ones)))
    uniform = (1 / (weight.shape[3] * num_windows)).flatten(3).unsqueeze(-1).expand(votes_BHWIJP.shape[:-1])

    def log_partition(logit: Tensor) -> Tensor:
        window_BHWKKI = logit.logsumexp(dim=-1).unflatten(3, weight.shape[:3])
        peak_BHWKKI = windows.gather(windows.scatter_max(window_BHWKKI.detach()))
        total_BHWKKI = windows.gather(windows.scatter_sum((window_BHWKKI - peak_BHWKKI).exp()))
        return (total_BHWKKI.log() + peak_BHWKKI).flatten(3).unsqueeze(-1)

    return _iterate(
        votes_BHWIJP, activations_BHWI, beta_use, beta_activation, inverse_temperature, spec, uniform, log_partition
    )


def _route_classes(inputs: RoutingInputs, spec: RoutingSpec) -> Iterator[RoutingIteration]:
    """Coordinates are added to every vote of their position."""
    votes_BHWIJP = _votes(inputs.poses, inputs.weight)
    if inputs.coordinates is not None:
        votes_BHWIJP = votes_BHWIJP + inputs.coordinates[:, :, None, None, :]
    return em_routing(
        votes_BHWIJP.flatten(1, 3),
        inputs.activations.flatten(1),
        inputs.beta_use,
        inputs.beta_activation,
        inputs.inverse_temperature,
        spec,
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
    inverse_temperature: Tensor,
    spec: RoutingSpec,
    assignment: Tensor,
    log_partition: Callable[[Tensor], Tensor],
) -> Iterator[RoutingIteration]:
    """The EM loop. ``log_partition`` maps logits ``[..., I, J]`` to the log-sum-exp over the parents that compete."""
    num_iterations = len(inverse_temperature)
    for iteration in range(num_iterations):
        mean, variance, mass, cost = _m_step(votes, activations, assignment, beta_use, spec.variance_floor)
        if spec.activation_rule == "relative":
            cost = _relative_cost(mass, cost)
        activation_logit = inverse_temperature[iteration] * _evidence(cost, beta_activation, spec.activation_rule)
        yield RoutingIteration(assignment, mean, variance, mass, cost, activation_logit.sigmoid())
        if iteration + 1 < num_iterations:
            logit = logsigmoid(activation_logit).unsqueeze(-2) + spec.annealing * _log_density(votes, mean, variance)
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


def _relative_cost(mass: Tensor, cost: Tensor) -> Tensor:
    """Each parent's cost less the average cost of as much data in its window, ``[..., J]``; sums to 0."""
    data = mass.sum(dim=-1, keepdim=True)
    has_data = data > 0
    average = torch.where(has_data, cost.sum(dim=-1, keepdim=True) / torch.where(has_data, data, 1), 0)
    return cost - mass * average


def _evidence(cost: Tensor, beta_activation: Tensor, activation_rule: str) -> Tensor:
    """How far a parent's reward exceeds its cost, ``[..., J]``; the inverse temperature multiplies it."""
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
        # The children at place (k, l) of their window, for all windows at once.
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

        No tensor is changed in place: ``torch.func.linearize`` would lose such a change.
        """
        for k, row in enumerate(self._slices):
            for l, place in enumerate(row):  # noqa: E741
                _, rows, columns = place
                of_rows = children[:, rows]
                joined = join(of_rows[:, :, columns], windows[:, :, :, k, l])
                of_rows = of_rows.slice_scatter(joined, 2, columns.start, columns.stop, columns.step)
                children = children.slice_scatter(of_rows, 1, rows.start, rows.stop, rows.step)
        return children
