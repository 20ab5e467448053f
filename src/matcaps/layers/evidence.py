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

_INSIDE = 1e-6
"""Activations are taken to lie so far from 0 and 1, where the logit is finite in float32."""

_SMALLEST_DEVIATION = 1e-4
"""Costs that spread less than this (blank images, say) are not scaled up any further."""


class NormalisedRoutingParameters(RoutingParameters):
    """β and λ of a routing as they follow from running statistics of its last iteration, and from what is learned.

    A unit of data that is described as well as is usual for its parent type costs nothing, a better one is a reward:
    β_u = ``beta_use`` − ``log_deviation``, the mean of ln σ over a type's data. β_a is the mean cost under that β_u, so
    that half the capsules of a type are active but for ``beta_activation``. λ is in units of the costs' deviation: of
    the last iteration ``exp(log_gain)``, which is learned, of the others what ``inverse_temperature`` says. Where all
    were learned, routing became winner takes all within some epochs, and its gradient ran away (docs/log.md).

    In training the activations that leave the layer are normalised by the batch, values and gradient, as batch
    normalisation does it (Ioffe and Szegedy 2015); the statistics move by :attr:`momentum`. In evaluation they are
    Procedure 1's with the β and λ that :meth:`options` gives.

    Args:
        num_parents: parent types, ``J``.
        inverse_temperature: one positive value an iteration; what counts is each one's share of the last.
        matrix_size: root mean square at which each parent's matrices are held, column by column.
        gain: what the logits of the last iteration deviate by at first, and what those of the others would with its
            share of the schedule.
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
        momentum: share of a new batch in the statistics.

    Raises:
        ValueError: the activation rule is another, ``gain`` not positive, or ``inverse_temperature`` no schedule.
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
                f"activation_rule must be 'paper' where routing is normalised; got {activation_rule!r}: the "
                "standardised rule has a normalisation of its own"
            )
        if not 0 < gain < float("inf"):
            raise ValueError(f"gain must be positive and finite; got {gain!r}: 1 is usual, 2.5 for class capsules")
        super().__init__(
            num_parents, inverse_temperature=inverse_temperature, activation_rule=activation_rule, **settings
        )
        self.inverse_temperature.mul_(gain / self.inverse_temperature[-1])
        self.momentum = MOMENTUM
        self.log_gain = nn.Parameter(self.inverse_temperature[-1].log())
        self.register_buffer("log_deviation", torch.zeros(num_parents))
        self.register_buffer("cost", torch.zeros(num_parents))
        self.register_buffer("cost_deviation", torch.tensor(1.0))
        self.register_buffer("data", torch.tensor(1.0))
        self.register_buffer("matrix_size", torch.tensor(float(matrix_size)))

    def is_untouched(self) -> bool:
        """Whether it is a new layer's: neither calibrated, nor trained, nor loaded."""
        return super().is_untouched() and not self.log_deviation.any()

    def matrices(self, weight: Tensor) -> Tensor:
        """The transformation matrices at the size at which they are held: each column of each parent's has the same.

        Otherwise a parent type is described better, and better, by matrices that shrink.
        """
        dimensions = (*range(weight.ndim - 3), weight.ndim - 2)
        size = weight.square().mean(dim=dimensions, keepdim=True).clamp_min(1e-20).sqrt()
        return weight * (self.matrix_size / size)

    def paper_inverse_temperature(self) -> Tensor:
        """λ of every iteration, ``[T]``."""
        in_deviations = torch.cat([self.inverse_temperature[:-1], self.log_gain.exp().reshape(1)])
        return in_deviations / self._now("cost_deviation")

    def paper_beta_use(self) -> Tensor:
        """β_u in the paper's units, ``[J]``."""
        of_a_logit = self._now("cost_deviation") / (POSE_COMPONENTS * self._now("data"))
        return self.beta_use * of_a_logit - self._now("log_deviation")

    def paper_beta_activation(self) -> Tensor:
        """β_a in the paper's units, ``[J]``."""
        return self._now("cost") + self.beta_activation * self._now("cost_deviation") / self.log_gain.exp()

    def _now(self, statistic: str) -> Tensor:
        """A copy: the statistics move before the backward pass that wants what they were."""
        return getattr(self, statistic).clone()

    @property
    def wants_fit(self) -> bool:
        """Whether a forward pass is to say how its Gaussians fit: in training, and not where the layer is frozen."""
        return self.training and self.beta_use.requires_grad

    def finish(self, parents: Capsules, fit: Fit | None) -> Capsules:
        """What follows the routing: in training, activations are normalised by the batch, and the statistics move."""
        if fit is None:
            return parents
        activations = parents.activations
        if torch.is_grad_enabled() and activations.shape[:-1].numel() > 1:
            activations = self._normalise(activations)
        self.observe(fit)
        return Capsules(parents.poses, activations)

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

    def _normalise(self, activations: Tensor) -> Tensor:
        """Activations whose logits have, over the batch, the mean β_a of their type and the gain as deviation.

        Were the statistics constants to the gradient, the loss would push all costs of a type up or down together; the
        next statistics take that back, and the weights drift.
        """
        inside = activations.clamp(_INSIDE, 1 - _INSIDE)
        logit = inside.log() - (-inside).log1p()
        centred = logit - logit.mean(dim=tuple(range(logit.ndim - 1)), keepdim=True)
        deviation = (centred.square().mean() + _SMALLEST_DEVIATION).sqrt()
        return (self.log_gain.exp() * centred / deviation + self.beta_activation).sigmoid()

    def extra_repr(self) -> str:
        return f"normalised, gain={float(self.log_gain.exp()):.3g}, {super().extra_repr()}"


def make_routing_parameters(
    num_parents: int, *, normalise: bool, matrix_size: float, gain: float, **settings: Any
) -> RoutingParameters:
    """The parameters of a routed layer, normalised or not; ``settings`` are those of :class:`RoutingParameters`."""
    if normalise:
        return NormalisedRoutingParameters(num_parents, matrix_size=matrix_size, gain=gain, **settings)
    return RoutingParameters(num_parents, **settings)
