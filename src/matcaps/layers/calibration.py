"""Set a routed layer's numbers from a first batch, so that it starts where gradients are alive."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matcaps.capsules import Capsules
from matcaps.layers.parameters import RoutingParameters
from matcaps.routing import RoutingIteration

CALIBRATIONS = ("none", "beta", "full")

_ROUNDS = 4
"""Assignments depend on what is being set, so it is set a few times over."""

_TINY = 1e-6
"""Where values spread less than this (blank images, say), their scale is left as it is."""


@torch.no_grad()
def calibrate_routing(
    weight: nn.Parameter,
    routing: RoutingParameters,
    trace: Callable[[Capsules], list[RoutingIteration]],
    capsules: Capsules,
    *,
    calibration: str,
    gain: float,
) -> None:
    """Set ``routing`` (and for ``"full"`` also ``weight``) in place from the traced routing of one batch.

    Both kinds set the reward β_a of each parent type to its mean cost (to its mean standardised cost, under that rule),
    so that about half of its capsules are active. Without that, standardised costs tell types apart and not images:
    the tutorial's network stayed at chance (docs/log.md).
    ``"beta"`` also sets the cost of use β_u to minus the mean of ½ ln σ², so that a cost says how much better or worse
    than usual votes agree, not how many there are. ``"full"`` sets β_u to 0: at its scale of poses σ² is above 1 and
    data are a cost, so that a parent which takes more wakes less. Where data were a reward, activations ran away
    within a hundred steps, and where they were free, with faster matrices, too (docs/log.md). ``"full"`` leaves
    matrices of 3 to 60: :func:`matcaps.training.parameter_groups` gives them a learning rate to match.

    Args:
        weight: the layer's transformation matrices.
        routing: the layer's β and inverse temperature.
        trace: routes capsules with the layer as it stands.
        capsules: the batch.
        calibration: ``"none"``; ``"beta"``; or ``"full"``: before the β, the matrices are scaled so that each pose
            component leaves the layer with standard deviation 1 (over images, positions and types; what coordinate
            addition adds to all of them does not count), and the inverse temperature so that each type's logits have
            the standard deviation ``gain``; under the standardised rule, the logits of a window's types.
        gain: standard deviation of the activations' logits, for ``"full"``.

    Raises:
        ValueError: ``calibration`` is not one of the three.
    """
    if calibration not in CALIBRATIONS:
        raise ValueError(f"calibration must be one of {CALIBRATIONS}; got {calibration!r}")
    if calibration == "none":
        return
    for _ in range(_ROUNDS):
        if calibration == "full":
            poses = _last_state(trace, capsules).mean.flatten(0, -2)
            deviation = poses.var(dim=0, correction=0).mean().sqrt()
            if deviation > _TINY:
                weight.div_(deviation)
        _set_beta(routing, _last_state(trace, capsules), gain if calibration == "full" else None)


class _State(NamedTuple):
    """What calibration reads of the last iteration, over a batch."""

    mean: Tensor
    variance: Tensor
    mass: Tensor


def _last_state(trace: Callable[[Capsules], list[RoutingIteration]], capsules: Capsules) -> _State:
    """Route image by image: a trace holds all votes, and those of a whole batch can take gigabytes."""
    states = [trace(Capsules(*one))[-1] for one in zip(*(part.split(1) for part in capsules), strict=True)]
    return _State(*(torch.cat([getattr(state, name) for state in states]) for name in _State._fields))


def _set_beta(routing: RoutingParameters, state: _State, gain: float | None) -> None:
    """Set both β, and the inverse temperature if a gain is wanted, from the state of the last iteration."""
    half_log_variance = state.variance.log().sum(dim=-1) / 2
    components = state.variance.shape[-1]
    use = torch.zeros_like(routing.beta_use)
    if gain is None:
        use -= half_log_variance.mean() / components
    cost = state.mass * (components * use + half_log_variance)
    data = components * state.mass.mean()
    but_types = tuple(range(cost.ndim - 1))
    if routing.activation_rule == "standardised":  # what counts is a cost beside those of the window's other parents
        centred = cost - cost.mean(dim=-1, keepdim=True)
        deviation = centred.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(_TINY)
        cost, data, scale = centred / deviation, data / deviation.mean(), 1.0
    else:
        scale = (cost - cost.mean(dim=but_types)).std(correction=0)
    if gain is not None and scale > _TINY:
        routing.scale_temperature(gain / (scale * routing.inverse_temperature[-1]))
    routing.set_beta(use, cost.mean(dim=but_types), data=data)
