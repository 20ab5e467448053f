"""A routing whose inverse temperature is computed from a running statistic, so that agreement stays rewarded.

Under the relative rule a parent gains by each unit of data that it describes better than its window's data are
described on average, whatever the scale of poses. In the paper a unit costs Σ_h (β_u + ln σ_h), with one β_u for all
images: a change of scale by 1 % is 0.16 nats per unit of data, and the usual cost differs between images. The log
(docs/log.md, "Agreement") tells what was tried.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matcaps.capsules import POSE_COMPONENTS, Capsules
from matcaps.layers.parameters import RoutingParameters
from matcaps.layers.shared_batch import whole_mean, whole_size
from matcaps.routing import RoutingFit, RoutingSpec, is_transformed

MOMENTUM = 0.05
"""Share of a new batch in the running statistics."""

_INSIDE = 1e-6
"""Activations are clamped this far from 0 and 1, so that the logit is finite in float32."""

_TINY = 1e-6

_SMALLEST_DEVIATION = 1e-4
"""Costs that spread less than this (for example of blank images) are not scaled up further."""


class NormalisedRoutingParameters(RoutingParameters):
    """β and λ of a routing in units of its costs' standard deviation, under the relative rule.

    λ of the last iteration is ``exp(log_gain)`` over that deviation, and is learned; λ of the others is
    ``inverse_temperature`` over that deviation. With all of them learned, routing became winner-takes-all within some
    epochs, and its gradient diverged (docs/log.md).

    In training, the costs that decide the layer's output activations are divided by their deviation in the batch,
    in values and gradient, as in batch normalisation (Ioffe and Szegedy 2015), and the statistics move by
    ``momentum``. Evaluation is exactly Procedure 1, with the β and λ that :meth:`inputs` gives.

    Args:
        num_parents: parent types, ``J``.
        inverse_temperature: one positive value an iteration; only each value's ratio to the last matters.
        spec: the options of the routing; the activation rule must be "relative".
        matrix_size: root mean square of each column of a parent's matrices, which are rescaled to it.
        gain: initial standard deviation of the logits of the last iteration; for the other iterations it is
            multiplied by their ratio in the schedule.
        **settings: see :class:`RoutingParameters`.

    Attributes:
        beta_use: ``[J]``, in logits: a rise by one costs a typical parent one logit.
        beta_activation: ``[J]``, or ``[1]`` where it is shared, in logits.
        log_gain: a parameter, ``[]``.
        cost_deviation: a buffer, ``[]``, in nats: root mean square of the costs, whose mean over a window is 0.
        data: a buffer, ``[]``: mean of a parent's data.
        matrix_size: a buffer, ``[]``.
        momentum: share of a new batch in the statistics.

    Raises:
        ValueError: the activation rule is another one, ``gain`` is not positive, or ``inverse_temperature`` is not a
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
                "under the paper's rule agreement does not stay rewarded; the standardised rule normalises itself"
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
        """Whether these are a new layer's values: neither calibrated, nor trained, nor loaded."""
        return super().is_untouched() and float(self.cost_deviation) == 1

    def matrices(self, weight: Tensor) -> Tensor:
        """The transformation matrices, rescaled so that each column of each parent's matrices has the same size.

        Otherwise shrinking matrices would lower a parent's cost without any better agreement.
        """
        dimensions = (*range(weight.ndim - 3), weight.ndim - 2)
        size = weight.square().mean(dim=dimensions, keepdim=True).clamp_min(1e-20).sqrt()
        return weight * (self.matrix_size / size)

    def paper_inverse_temperature(self) -> Tensor:
        """λ of every iteration, ``[T]``."""
        in_deviations = torch.cat([self.inverse_temperature[:-1], self.log_gain.exp().reshape(1)])
        return in_deviations / self._copy_of("cost_deviation")

    def paper_beta_use(self) -> Tensor:
        """β_u in the paper's units, ``[J]``."""
        return self.beta_use * self._copy_of("cost_deviation") / (POSE_COMPONENTS * self._copy_of("data"))

    def paper_beta_activation(self) -> Tensor:
        """β_a in the paper's units, ``[J]``, also where it is shared."""
        return self.beta_activation.expand_as(self.beta_use) * self._copy_of("cost_deviation") / self.log_gain.exp()

    def _copy_of(self, statistic: str) -> Tensor:
        """A copy, because the statistics move before the backward pass, which needs their old values."""
        return getattr(self, statistic).clone()

    @property
    def wants_fit(self) -> bool:
        """Whether a forward pass must return the fit of its Gaussians; true in training, unless the layer is frozen."""
        return self.training and self.beta_use.requires_grad

    def finish(self, parents: Capsules, fit: RoutingFit | None) -> Capsules:
        """After the routing: in training, normalise the activations by the batch, and move the statistics."""
        if fit is None:
            return parents
        activations = parents.activations
        if torch.is_grad_enabled() and whole_size(activations) > activations.shape[-1]:
            activations = self._normalise(activations)
        self.observe(fit)
        return Capsules(parents.poses, activations)

    @torch.no_grad()
    def observe(self, fit: RoutingFit, momentum: float | None = None) -> None:
        """Move the statistics towards those of a batch by a share, ``self.momentum`` if None; 1 takes the batch's."""
        momentum = self.momentum if momentum is None else momentum
        if is_transformed():  # under torch.func buffers must not be changed in place
            return
        mass, cost = (values.float() for values in fit)
        self.data.lerp_(whole_mean(mass).clamp_min(_TINY), momentum)
        self.cost_deviation.lerp_(whole_mean(cost.square()).sqrt().clamp_min(_SMALLEST_DEVIATION), momentum)

    def _normalise(self, activations: Tensor) -> Tensor:
        """Activations whose logits deviate from β_a, over the batch, by the gain.

        If the gradient took the deviation as a constant, the loss would raise all costs together to be more certain of
        its answers; the next statistics would undo this, and the weights would drift.
        """
        inside = activations.clamp(_INSIDE, 1 - _INSIDE)
        evidence = inside.log() - (-inside).log1p() - self.beta_activation
        deviation = (whole_mean(evidence.square()) + _SMALLEST_DEVIATION).sqrt()
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
