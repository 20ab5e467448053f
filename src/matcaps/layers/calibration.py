"""Set a routed layer's scales and β from a first batch, so that it starts where gradients do not vanish."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matcaps.capsules import Capsules
from matcaps.layers.evidence import NormalisedRoutingParameters
from matcaps.layers.parameters import RoutingParameters
from matcaps.layers.routings import VoteRouting
from matcaps.routing import RoutingFit, RoutingIteration

CALIBRATIONS = ("none", "beta", "full")

_ROUNDS = 4
"""Assignments depend on the values being set, so they are set several times."""

_SLOW_ROUNDS = 24
"""Rounds that at most double the inverse temperature, where the few rounds above do not settle."""

_SETTLED = 1.15
"""The slow rounds end when the logits' deviation is right up to this factor."""

_TINY = 1e-6
"""Values that spread less than this (for example of blank images) keep their scale."""


class _State(NamedTuple):
    """The values of the last iteration that calibration uses, over a batch."""

    mean: Tensor
    variance: Tensor
    mass: Tensor
    cost: Tensor
    activation: Tensor


@torch.no_grad()
def calibrate_routing(
    weight: nn.Parameter,
    routing: RoutingParameters | VoteRouting,
    trace: Callable[[Capsules], list[RoutingIteration]],
    capsules: Capsules,
    coordinates: Tensor | None = None,
    *,
    calibration: str,
    gain: float,
) -> None:
    """Set ``routing`` (and for ``"full"`` also ``weight``) in place from the traced routing of one batch.

    Both kinds set the reward β_a of each parent type to its mean cost (to its mean standardised cost, under that rule),
    so that about half of its capsules are active. Without this, standardised costs distinguish types but not images:
    the tutorial's network stayed at chance (docs/log.md).
    ``"beta"`` also sets the cost of use β_u to minus the mean of ½ ln σ². Then a cost measures how much better or worse
    than usual the votes agree, not how many there are. ``"full"`` sets β_u to 0: at its scale of poses σ² is above 1,
    so data are a cost, and a parent with more data is less active. Where data were a reward, activations diverged
    within a hundred steps; so they did where data had no cost and matrices learned faster (docs/log.md). ``"full"``
    leaves matrix entries of 3 to 60: :func:`matcaps.training.parameter_groups` gives them a suitable learning rate.

    Args:
        weight: the layer's transformation matrices.
        routing: the layer's β and inverse temperature.
        trace: routes capsules with the layer in its present state.
        capsules: the batch.
        coordinates: what is added to the votes of class capsules, ``[H, W, 16]``.
        calibration: ``"none"``; ``"beta"``; or ``"full"``: before the β, the matrices are scaled so that each pose
            component leaves the layer with standard deviation 1 (over images, positions and types; without what
            coordinate addition adds to all of them), and the inverse temperature so that each type's logits have
            the standard deviation ``gain``; under the standardised rule, the logits of a window's types.
        gain: standard deviation of the activations' logits, for ``"full"``.

    Another routing than EM has its own :meth:`~matcaps.layers.routings.VoteRouting.calibrate`, the same for both kinds.

    If this leaves more than a quarter of the activations below 0.01 or above 0.99, ``"full"`` begins again and lets
    the inverse temperature grow slowly; if that does not help either, it warns.

    Raises:
        ValueError: ``calibration`` is not one of the three.
    """
    if calibration not in CALIBRATIONS:
        raise ValueError(f"calibration must be one of {CALIBRATIONS}; got {calibration!r}")
    if calibration == "none":
        return
    if isinstance(routing, VoteRouting):
        routing.calibrate(weight, capsules, coordinates)
        return
    if isinstance(routing, NormalisedRoutingParameters):
        _settle_statistics(weight, routing, trace, capsules)
        return
    before = _copy_of(routing)
    for _ in range(_ROUNDS):
        if calibration == "full":
            _scale_poses(weight, trace, capsules)
        _set_beta(routing, _last_state(trace, capsules), gain if calibration == "full" else None)
    if calibration == "full" and _is_saturated(_last_state(trace, capsules)):
        routing.load_state_dict(before)
        _settle(weight, routing, trace, capsules, gain)
        if _is_saturated(_last_state(trace, capsules)):
            warnings.warn(
                "after calibration a quarter of a capsule layer's activations or more are below 0.01 or above 0.99, "
                "where almost nothing is learned: calibrate on other images, or with calibration beta",
                stacklevel=2,
            )


def _settle_statistics(
    weight: nn.Parameter,
    routing: NormalisedRoutingParameters,
    trace: Callable[[Capsules], list[RoutingIteration]],
    capsules: Capsules,
) -> None:
    """Set a normalised routing's statistics and the size of its matrices from one batch."""
    for _ in range(_ROUNDS):
        deviation = _pose_deviation(_last_state(trace, capsules))
        if deviation > _TINY:
            routing.matrix_size.div_(deviation)
        state = _last_state(trace, capsules)
        routing.observe(RoutingFit(state.mass, state.cost), momentum=1.0)
    weight.copy_(routing.matrices(weight))


def _settle(
    weight: nn.Parameter,
    routing: RoutingParameters,
    trace: Callable[[Capsules], list[RoutingIteration]],
    capsules: Capsules,
    gain: float,
) -> None:
    """Do what full calibration does, but let the inverse temperature grow slowly from its present value.

    If images are alike (textures), a large inverse temperature gives one parent all data. This changes the costs
    that the inverse temperature was set by, and the next round sets a small one: the rounds oscillate. Growing
    slowly, they stop at the smallest one that gives the logits their deviation, or where activations would saturate.
    """
    for _ in range(_SLOW_ROUNDS):
        _scale_poses(weight, trace, capsules)
        before = _copy_of(routing)
        wanted = _set_beta(routing, _last_state(trace, capsules), gain, slowly=True)
        if _is_saturated(_last_state(trace, capsules)):
            routing.load_state_dict(before)
            return
        if 1 / _SETTLED < wanted < _SETTLED:
            return


def _copy_of(routing: RoutingParameters) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in routing.state_dict().items()}


def _scale_poses(weight: nn.Parameter, trace: Callable[[Capsules], list[RoutingIteration]], capsules: Capsules) -> None:
    """Scale the matrices so that each pose component leaves the layer with standard deviation 1."""
    deviation = _pose_deviation(_last_state(trace, capsules))
    if deviation > _TINY:
        weight.div_(deviation)


def _pose_deviation(state: _State) -> Tensor:
    return state.mean.flatten(0, -2).var(dim=0, correction=0).mean().sqrt()


def _is_saturated(state: _State) -> bool:
    """Whether more than a quarter of the activations are close to 0 or 1, where gradients nearly vanish."""
    return float(((state.activation < 0.01) | (state.activation > 0.99)).float().mean()) > 0.25


def _last_state(trace: Callable[[Capsules], list[RoutingIteration]], capsules: Capsules) -> _State:
    """Route image by image: a trace holds all votes, and those of a whole batch can take gigabytes."""
    states = [trace(Capsules(*one))[-1] for one in zip(*(part.split(1) for part in capsules), strict=True)]
    return _State(*(torch.cat([getattr(state, name) for state in states]) for name in _State._fields))


def _set_beta(routing: RoutingParameters, state: _State, gain: float | None, *, slowly: bool = False) -> float:
    """Set both β, and the inverse temperature if a gain is wanted, from the state of the last iteration.

    Returns:
        The factor for the inverse temperature; ``slowly`` applies at most 2, and the root of a factor below 1.
    """
    half_log_variance = state.variance.log().sum(dim=-1) / 2
    components = state.variance.shape[-1]
    use = torch.zeros_like(routing.beta_use)
    if gain is None:
        use -= half_log_variance.mean() / components
    cost = state.mass * (components * use + half_log_variance)
    if routing.activation_rule == "relative":  # a cost counts relative to the average cost of the window's data
        average = cost.sum(dim=-1, keepdim=True) / state.mass.sum(dim=-1, keepdim=True).clamp_min(_TINY)
        cost = cost - state.mass * average
    data = components * state.mass.mean()
    but_types = tuple(range(cost.ndim - 1))
    if routing.activation_rule == "standardised":  # a cost counts relative to the other parents' costs
        centred = cost - cost.mean(dim=-1, keepdim=True)
        deviation = centred.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(_TINY)
        cost, data, scale = centred / deviation, data / deviation.mean(), 1.0
    else:
        scale = (cost - cost.mean(dim=but_types)).std(correction=0)
    factor: Tensor | float = 1.0
    if gain is not None and scale > _TINY:
        factor = gain / (scale * routing.inverse_temperature[-1])
        allowed = factor
        if slowly:
            allowed = min(factor, 2.0) if factor > 1 else factor**0.5
        routing.scale_temperature(allowed)
    routing.set_beta(use, cost.mean(dim=but_types), data=data)
    return float(factor)
