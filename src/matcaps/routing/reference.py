"""Procedure 1 of Hinton, Sabour and Frosst (2018), step by step in plain PyTorch.

Every other implementation is tested against this one, so it stays close to the equations: ordinary autograd, no
clever reshapes, all votes in memory. The equations and the choices are in this folder's README.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from matcaps.capsules import POSE_COMPONENTS, RoutingIteration
from matcaps.routing.spec import RoutingInputs, RoutingSpec, covered

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
    windows = Windows(poses.shape[1], poses.shape[2], weight.shape[0], spec.stride, poses.device)
    # every window's own copy of its children, and a vote from each of them for each parent type
    votes_BHWIJP = votes_of(windows.gather(poses), weight).flatten(3, 5)
    activations_BHWI = windows.gather(activations).flatten(3)
    if not spec.child_competition:
        return em_routing(votes_BHWIJP, activations_BHWI, beta_use, beta_activation, inverse_temperature, spec)
    uniform, log_partition = child_competition(windows, activations_BHWI, weight)
    return _iterate(
        votes_BHWIJP, activations_BHWI, beta_use, beta_activation, inverse_temperature, spec, uniform, log_partition
    )


def child_competition(
    windows: "Windows", activations_BHWI: Tensor, weight: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A child's parents are those of every window that covers it: the first assignment, and the log-sum-exp over them.

    Args:
        windows: of the map.
        activations_BHWI: of every window's copies of its children.
        weight: ``[K, K, I, J, ...]``.
    """
    kinds, num_parents = weight.shape[:3], weight.shape[3]
    ones = torch.ones_like(activations_BHWI[:1]).unflatten(3, kinds)
    num_windows = windows.gather(windows.scatter_sum(ones))
    uniform = (1 / (num_parents * num_windows)).flatten(3).unsqueeze(-1)

    def log_partition(logit: Tensor) -> Tensor:
        window_BHWKKI = logit.logsumexp(dim=-1).unflatten(3, kinds)
        peak_BHWKKI = windows.gather(windows.scatter_max(window_BHWKKI.detach()))
        total_BHWKKI = windows.gather(windows.scatter_sum((window_BHWKKI - peak_BHWKKI).exp()))
        return (total_BHWKKI.log() + peak_BHWKKI).flatten(3).unsqueeze(-1)

    return uniform.expand(*activations_BHWI.shape, num_parents), log_partition


def _route_classes(inputs: RoutingInputs, spec: RoutingSpec) -> Iterator[RoutingIteration]:
    """Coordinates are added to every vote of their position."""
    votes_BHWIJP = votes_of(inputs.poses, inputs.weight)
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


def votes_of(poses: Tensor, weight: Tensor) -> Tensor:
    """Every child's vote for every parent: ``[B, H, W, ..., 4, 4]`` through ``[..., J, 4, 4]`` is
    ``[B, H, W, ..., J, P]``. Through ``[..., J, 16, 16]`` the pose is a vector, its matrix row by row.

    A sum rather than ``@``, which would write out the weights for every position.
    """
    if weight.shape[-1] == POSE_COMPONENTS:
        return torch.einsum("bhw...p,...jpq->bhw...jq", poses.flatten(-2), weight)
    return torch.einsum("bhw...xy,...jyz->bhw...jxz", poses, weight).flatten(-2)


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


class Windows:
    """The windows that a K×K kernel cuts out of a map of children, without padding.

    Two tables say which child stands at each place of each window, and where each child's copies stand: gathering is
    one step, and scattering another. Nothing is written into: what is, ``torch.func.linearize`` loses.
    """

    def __init__(self, height: int, width: int, kernel_size: int, stride: int, device: torch.device):
        rows, columns = ((size - kernel_size) // stride + 1 for size in (height, width))
        row_HK, column_WK = (covered(windows, kernel_size, stride, device) for windows in (rows, columns))
        self._child_of_place = (row_HK[:, None, :, None] * width + column_WK[None, :, None, :]).flatten()
        row, column = (
            _copies(size, windows, kernel_size, stride, device) for size, windows in ((height, rows), (width, columns))
        )
        window_HWCC = row.window[:, None, :, None] * columns + column.window[None, :, None, :]
        place_HWCC = row.place[:, None, :, None] * kernel_size + column.place[None, :, None, :]
        is_one_HWCC = row.is_one[:, None, :, None] & column.is_one[None, :, None, :]
        blank = rows * columns * kernel_size**2  # the number of places: what stands behind the last one
        places = torch.where(is_one_HWCC, window_HWCC * kernel_size**2 + place_HWCC, blank)
        self._places_of_child = places.flatten()
        self._size, self._shape = (height, width), (rows, columns, kernel_size, kernel_size)

    def gather(self, children: Tensor) -> Tensor:
        """``[B, H, W, ...]`` to ``[B, H', W', K, K, ...]``: each window's copy of its children."""
        return children.flatten(1, 2).index_select(1, self._child_of_place).unflatten(1, self._shape)

    def scatter_sum(self, windows: Tensor) -> Tensor:
        """``[B, H', W', K, K, ...]`` to ``[B, H, W, ...]``: each child's sum over its copies."""
        return self._copies_of_child(windows, 0.0).sum(dim=3)

    def scatter_max(self, windows: Tensor) -> Tensor:
        """``[B, H', W', K, K, ...]`` to ``[B, H, W, ...]``: each child's largest copy; no gradient."""
        return self._copies_of_child(windows, -torch.inf).amax(dim=3)

    def _copies_of_child(self, windows: Tensor, blank: float) -> Tensor:
        """``[B, H, W, copies, ...]``, with ``blank`` in place of a copy where fewer windows cover a child."""
        places = windows.flatten(1, 4)
        places = torch.cat([places, torch.full_like(places[:, :1], blank)], dim=1)
        return places.index_select(1, self._places_of_child).unflatten(1, (*self._size, -1))


class _Copies(NamedTuple):
    """Where the copies of each child of a row (or column) may stand, ``[size, copies]`` each.

    Attributes:
        window: the window.
        place: the child's place in that window.
        is_one: whether there is such a window and such a place.
    """

    window: Tensor
    place: Tensor
    is_one: Tensor


def _copies(size: int, windows: int, kernel_size: int, stride: int, device: torch.device) -> _Copies:
    child = torch.arange(size, device=device)[:, None]
    last = child.div(stride, rounding_mode="floor")
    window = last - torch.arange((kernel_size + stride - 1) // stride, device=device)
    place = child - window * stride
    return _Copies(window, place, (window >= 0) & (window < windows) & (place < kernel_size))
