"""A routing whose evidence is normalised by running statistics, so that agreement stays rewarded while it is trained.

In the paper a parent is active by λ·(β_a − Σ_h (β_u + ln σ_h)·mass): by each unit of data that it describes better than
−β_u a pose component it gains. What is usual depends on the scale of poses, which training moves: 1 % of scale is 0.16
nats a unit of data. Here the statistics say what is usual, and β_u, β_a and λ follow from them; the equations stay the
paper's. The log (docs/log.md, "Agreement") has what was tried.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matcaps.capsules import POSE_COMPONENTS, Capsules
from matcaps.layers.parameters import RoutingParameters
from matcaps.routing.operators import Fit
from matcaps.routing.transforms import is_transformed

MOMENTUM = 0.05
"""Share of a new batch in the running statistics."""

_SMALLEST_DEVIATION = 1e-4
"""Costs that spread less than this (blank images, say) are not scaled up any further."""


class NormalisedRoutingParameters(RoutingParameters):
    """β and λ of a routing as they follow from running statistics of its last iteration, and from what is learned.

    A unit of data that is described as well as is usual for its parent type costs nothing, a better one is a reward:
    β_u = ``beta_use`` − ``log_deviation``, the mean of ln σ over a type's data. β_a is the mean cost under that β_u, so
    that half the capsules of a type are active but for ``beta_activation``; λ is ``exp(log_gain)`` over the deviation
    of the costs.

    Args:
        num_parents: parent types, ``J``.
        inverse_temperature: one positive value an iteration; what counts is each one's share of the last.
        matrix_size: root mean square at which each parent's matrices are held, column by column.
        gain: standard deviation of a new layer's logits.
        **settings: see :class:`RoutingParameters`; the activation rule must be the paper's.

    Attributes:
        beta_use: ``[J]``, in logits, as in :class:`RoutingParameters`: what β_u departs by from the usual.
        beta_activation: ``[J]``, in logits.
        log_gain: a parameter, ``[]``.
        log_deviation: a buffer, ``[J]``: mean of ln σ over pose components, each parent weighted by its data.
        cost: a buffer, ``[J]``, in nats: mean cost.
        cost_deviation: a buffer, ``[]``, in nats: standard deviation of the costs about their type's mean.
        data: a buffer, ``[]``: mean of a parent's data.
        matrix_size: a buffer, ``[]``.

    Raises:
        ValueError: the activation rule is another, or ``inverse_temperature`` no schedule.
    """

    log_deviation: Tensor
    cost: Tensor
    cost_deviation: Tensor
    data: Tensor
    matrix_size: Tensor

    def __init__(
        self,
        num_parents: int,
        *,
        inverse_temperature: Sequence[float],
        activation_rule: str,
        matrix_size: float,
        gain: float = 1.0,
        **settings: Any,
    ):
        if activation_rule != "paper":
            raise ValueError(
                f"activation_rule must be 'paper' where evidence is normalised; got {activation_rule!r}: the "
                "standardised rule does its own"
            )
        super().__init__(
            num_parents, inverse_temperature=inverse_temperature, activation_rule=activation_rule, **settings
        )
        self.momentum = MOMENTUM
        self.log_gain = nn.Parameter(torch.tensor(float(gain)).log())
        self.register_buffer("log_deviation", torch.zeros(num_parents))
        self.register_buffer("cost", torch.zeros(num_parents))
        self.register_buffer("cost_deviation", torch.tensor(1.0))
        self.register_buffer("data", torch.tensor(1.0))
        self.register_buffer("matrix_size", torch.tensor(float(matrix_size)))

    def matrices(self, weight: Tensor) -> Tensor:
        """The transformation matrices at the size at which they are held: each column of each parent's has the same.

        Otherwise a parent type is described better, and better, by matrices that shrink.
        """
        dimensions = (*range(weight.ndim - 3), weight.ndim - 2)
        size = weight.square().mean(dim=dimensions, keepdim=True).clamp_min(1e-20).sqrt()
        return weight * (self.matrix_size / size)

    @property
    def wants_fit(self) -> bool:
        """Whether a forward pass is to say how its Gaussians fit: in training, and not where the layer is frozen."""
        return self.training and self.beta_use.requires_grad

    def finish(self, parents: Capsules, fit: Fit | None) -> Capsules:
        """What follows the routing: in training, the statistics move, and the gradient takes them for the batch's."""
        if fit is None:
            return parents
        activations = parents.activations
        if torch.is_grad_enabled():
            activations = self.through_batch(activations)
        self.observe(fit)
        return Capsules(parents.poses, activations)

    def is_untouched(self) -> bool:
        """Whether it is a new layer's: neither calibrated, nor trained, nor loaded."""
        return super().is_untouched() and not self.log_deviation.any()

    def paper_inverse_temperature(self) -> Tensor:
        """λ of every iteration, ``[T]``; the gain is the last one's alone."""
        shape = self.inverse_temperature / self.inverse_temperature[-1]
        return torch.cat([self.inner_gain * shape[:-1], self.gain().reshape(1)]) / self._now("cost_deviation")

    def paper_beta_use(self) -> Tensor:
        """β_u in the paper's units, ``[J]``."""
        of_a_logit = self._now("cost_deviation") / (POSE_COMPONENTS * self._now("data"))
        return self.beta_use * of_a_logit - self._now("log_deviation")

    def paper_beta_activation(self) -> Tensor:
        """β_a in the paper's units, ``[J]``."""
        return self._now("cost") + self.beta_activation * self._now("cost_deviation") / self.gain()

    def _now(self, statistic: str) -> Tensor:
        """A copy: the statistics move before the backward pass that wants what they were."""
        return getattr(self, statistic).clone()

    @torch.no_grad()
    def observe(self, fit: Fit, momentum: float | None = None) -> None:
        """Move the statistics towards those of a batch by a share, ``self.momentum`` if None; 1 takes the batch's."""
        momentum = self.momentum if momentum is None else momentum
        if is_transformed():  # torch.func maps over what must not be written to
            return
        mass, log_deviation = (values.flatten(0, -2).float() for values in fit)
        usual = (mass * log_deviation).sum(dim=0) / mass.sum(dim=0).clamp_min(1e-6)
        self.log_deviation.lerp_(usual, momentum)
        self.data.lerp_(mass.mean().clamp_min(1e-6), momentum)
        cost = mass * POSE_COMPONENTS * (self.paper_beta_use() + log_deviation)
        self.cost.lerp_(cost.mean(dim=0), momentum)
        deviation = (cost - cost.mean(dim=0)).square().mean().sqrt()
        self.cost_deviation.lerp_(deviation.clamp_min(_SMALLEST_DEVIATION), momentum)

    def gain(self) -> Tensor:
        """The standard deviation of the logits, ``[]``."""
        return self.log_gain.clamp(max=self.max_log_gain).exp()

    def through_batch(self, activations: Tensor) -> Tensor:
        """Return activations as normalising their logits by this batch gives them, statistics and gradient."""
        logit = _logit(activations)
        mean = logit.mean(dim=tuple(range(logit.ndim - 1)), keepdim=True)
        deviation = (logit - mean).square().mean().add(1e-4).sqrt()
        if self.batch_values:
            return (self.gain() * (logit - mean) / deviation + self.beta_activation).sigmoid()
        normalised = (logit - mean) / deviation * deviation.detach() + mean.detach()
        shift, gain = self.beta_activation, self.gain().log()
        moved = (
            normalised + (shift - shift.detach()) + (gain - gain.detach()) * (normalised.detach() - shift.detach())
        ).sigmoid()
        return activations.detach() + (moved - moved.detach())

    batch_values = True
    inner_gain = 1.0
    max_log_gain = 1e9


def _logit(activations: Tensor) -> Tensor:
    inside = activations.clamp(1e-6, 1 - 1e-6)
    return inside.log() - (-inside).log1p()


def make_routing_parameters(
    num_parents: int, *, normalise: bool, matrix_size: float, **settings: Any
) -> RoutingParameters:
    """The parameters of a routed layer, normalised or not; ``settings`` are those of :class:`RoutingParameters`."""
    if normalise:
        return NormalisedRoutingParameters(num_parents, matrix_size=matrix_size, **settings)
    return RoutingParameters(num_parents, **settings)
