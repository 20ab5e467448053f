"""A routing whose inverse temperature follows from a running statistic, so that agreement stays rewarded in training.

Under the relative rule a parent gains by each unit of data that it describes better than its window's data are
described on average, whatever the scale of poses. In the paper a unit costs Σ_h (β_u + ln σ_h), with one β_u for all
images: 1 % of scale is 0.16 nats a unit of data, and what is usual on images that are seen is not on others. The log
(docs/log.md, "Agreement") has what was tried.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matcaps.capsules import POSE_COMPONENTS, Capsules
from matcaps.layers.parameters import RoutingParameters
from matcaps.routing import RoutingFit, RoutingSpec, is_transformed

MOMENTUM = 0.05
"""Share of a new batch in the running statistics."""

_INSIDE = 1e-6
"""Activations are taken to lie so far from 0 and 1, where the logit is finite in float32."""

_TINY = 1e-6

_SMALLEST_DEVIATION = 1e-4
"""Costs that spread less than this (blank images, say) are not scaled up any further."""


class NormalisedRoutingParameters(RoutingParameters):
    """β and λ of a routing in units of its costs' standard deviation, under the relative rule.

    λ of the last iteration is ``exp(log_gain)`` over that deviation, and is learned; of the others it is what
    ``inverse_temperature`` says over it. Where all were learned, routing became winner takes all within some epochs,
    and its gradient ran away (docs/log.md).

    In training the costs that decide the activations which leave the layer are divided by their deviation in the batch,
    values and gradient, as batch normalisation does it (Ioffe and Szegedy 2015), and the statistics move by
    ``momentum``. In evaluation all is Procedure 1's, with the β and λ that :meth:`inputs` gives.

    Args:
        num_parents: parent types, ``J``.
        inverse_temperature: one positive value an iteration; what counts is each one's share of the last.
        spec: the options of the routing; the activation rule must be "relative".
        matrix_size: root mean square at which each parent's matrices are held, column by column.
        gain: what the logits of the last iteration deviate by at first, and what those of the others would with its
            share of the schedule.
        **settings: see :class:`RoutingParameters`.

    Attributes:
        beta_use: ``[J]``, in logits: what β_u rises by when it rises by one costs a parent a logit.
        beta_activation: ``[J]``, or ``[1]`` where it is shared, in logits.
        log_gain: a parameter, ``[]``.
        cost_deviation: a buffer, ``[]``, in nats: root mean square of the costs, whose mean over a window is 0.
        data: a buffer, ``[]``: mean of a parent's data.
        matrix_size: a buffer, ``[]``.
        momentum: share of a new batch in the statistics.

    Raises:
        ValueError: the activation rule is another, ``gain`` not positive, or ``inverse_temperature`` no schedule.
    """

    cost_deviation: Tensor
    data: Tensor
    matrix_size: Tensor

    def __init__(
        self,
        num_parents: int,
        *,
        inverse_temperature: Sequence[float],
        spec: RoutingSpec,
        matrix_size: float,
        gain: float = 1.0,
        **settings: Any,
    ):
        if spec.activation_rule != "relative":
            raise ValueError(
                f"activation_rule must be 'relative' where routing is normalised; got {spec.activation_rule!r}: "
                "under the paper's, agreement does not stay rewarded; the standardised has a normalisation of its own"
            )
        if not 0 < gain < float("inf"):
            raise ValueError(f"gain must be positive and finite; got {gain!r}: 1 is usual, 2.5 for class capsules")
        super().__init__(num_parents, inverse_temperature=inverse_temperature, spec=spec, **settings)
        self.inverse_temperature.mul_(gain / self.inverse_temperature[-1])
        self.momentum = MOMENTUM
        self.log_gain = nn.Parameter(self.inverse_temperature[-1].log())
        self.register_buffer("cost_deviation", torch.tensor(1.0))
        self.register_buffer("data", torch.tensor(1.0))
        self.register_buffer("matrix_size", torch.tensor(float(matrix_size)))

    def is_untouched(self) -> bool:
        """Whether it is a new layer's: neither calibrated, nor trained, nor loaded."""
        return super().is_untouched() and float(self.cost_deviation) == 1

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
        return self.beta_use * self._now("cost_deviation") / (POSE_COMPONENTS * self._now("data"))

    def paper_beta_activation(self) -> Tensor:
        """β_a in the paper's units, ``[J]``, also where it is shared."""
        return self.beta_activation.expand_as(self.beta_use) * self._now("cost_deviation") / self.log_gain.exp()

    def _now(self, statistic: str) -> Tensor:
        """A copy: the statistics move before the backward pass that wants what they were."""
        return getattr(self, statistic).clone()

    @property
    def wants_fit(self) -> bool:
        """Whether a forward pass is to say how its Gaussians fit; in training it is, where the layer is not frozen."""
        return self.training and self.beta_use.requires_grad

    def finish(self, parents: Capsules, fit: RoutingFit | None) -> Capsules:
        """What follows the routing: in training, activations are normalised by the batch, and the statistics move."""
        if fit is None:
            return parents
        activations = parents.activations
        if torch.is_grad_enabled() and activations.shape[:-1].numel() > 1:
            activations = self._normalise(activations)
        self.observe(fit)
        return Capsules(parents.poses, activations)

    @torch.no_grad()
    def observe(self, fit: RoutingFit, momentum: float | None = None) -> None:
        """Move the statistics towards those of a batch by a share, ``self.momentum`` if None; 1 takes the batch's."""
        momentum = self.momentum if momentum is None else momentum
        if is_transformed():  # torch.func maps over what must not be written to
            return
        mass, cost = (values.float() for values in fit)
        self.data.lerp_(mass.mean().clamp_min(_TINY), momentum)
        self.cost_deviation.lerp_(cost.square().mean().sqrt().clamp_min(_SMALLEST_DEVIATION), momentum)

    def _normalise(self, activations: Tensor) -> Tensor:
        """Activations whose logits have, over the batch, the gain as deviation about β_a.

        Were the deviation a constant to the gradient, the loss would push all costs up together to be surer of its
        answers; the next statistics take that back, and the weights drift.
        """
        inside = activations.clamp(_INSIDE, 1 - _INSIDE)
        evidence = inside.log() - (-inside).log1p() - self.beta_activation
        deviation = (evidence.square().mean() + _SMALLEST_DEVIATION).sqrt()
        return (self.log_gain.exp() * evidence / deviation + self.beta_activation).sigmoid()

    def extra_repr(self) -> str:
        return f"normalised, gain={float(self.log_gain.exp()):.3g}, {super().extra_repr()}"


def make_routing_parameters(
    num_parents: int, *, normalise: bool, matrix_size: float, gain: float, **settings: Any
) -> RoutingParameters:
    """The parameters of a routed layer, normalised or not; ``settings`` are those of :class:`RoutingParameters`."""
    if normalise:
        return NormalisedRoutingParameters(num_parents, matrix_size=matrix_size, gain=gain, **settings)
    return RoutingParameters(num_parents, **settings)
