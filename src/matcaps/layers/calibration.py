"""Set a routed layer's numbers from a first batch, so that it starts where gradients are alive."""

from collections.abc import Callable

import torch
from torch import nn

from matcaps.layers.parameters import RoutingParameters
from matcaps.routing import RoutingIteration

CALIBRATIONS = ("none", "beta", "full")

_ROUNDS = 3
"""Assignments depend on what is being set, so it is set a few times over; changes after the third are under 1 %."""


@torch.no_grad()
def calibrate_routing(
    weight: nn.Parameter,
    routing: RoutingParameters,
    trace: Callable[[], list[RoutingIteration]],
    *,
    calibration: str,
    gain: float,
) -> None:
    """Set ``routing`` (and for ``"full"`` also ``weight``) in place from the traced routing of one batch.

    Args:
        weight: the layer's transformation matrices.
        routing: the layer's β and inverse temperature.
        trace: routes the batch with the layer as it stands.
        calibration: ``"none"``; ``"beta"``: the reward β_a of each parent type becomes its mean cost, so that about
            half of its capsules are active; ``"full"``: before that, the matrices are scaled so that poses leave the
            layer with standard deviation 1, and the inverse temperature so that the logits' standard deviation is
            ``gain``.
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
            weight.div_(trace()[-1].mean.std().clamp_min(1e-6))
            if routing.activation_rule == "paper":
                deviation = trace()[-1].cost.std().clamp_min(1e-6)
                routing.inverse_temperature *= gain / (deviation * routing.inverse_temperature[-1])
        if routing.activation_rule == "paper":
            cost = trace()[-1].cost
            mean_cost = cost.mean(dim=tuple(range(cost.ndim - 1)))
            routing.beta_activation.copy_(routing.inverse_temperature[-1] * mean_cost)
        else:
            routing.beta_activation.zero_()  # standardised costs have mean 0 over the parents already
