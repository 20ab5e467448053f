"""What every routed layer has in addition to its transformation matrices: β, inverse temperature, options."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from matcaps._numbers import is_finite
from matcaps.capsules import Capsules
from matcaps.routing import (
    RoutingFit,
    RoutingInputs,
    RoutingIteration,
    RoutingSpec,
    fit_class_em_routing,
    fit_conv_em_routing,
    trace_class,
    trace_conv,
)


def option(name: str) -> property:
    """An option of a module's ``spec`` as an attribute of the module, which may be set."""

    def read(module: Any) -> Any:
        return getattr(module.spec, name)

    def write(module: Any, value: Any) -> None:
        module.spec = replace(module.spec, **{name: value})

    return property(read, write, doc=f"See :class:`matcaps.routing.RoutingSpec`: {name}.")


class RoutingParameters(nn.Module):
    """The learned β and the fixed settings of one routing.

    β is held in logit units: a unit step moves a typical capsule's activation by about one logit. In the paper's
    units the reward is of the order of a thousand, and a step of Adam would move it by some millionths of a logit;
    the cost of use acts on every unit of data and pose component at once, and would move it by hundreds.

    Args:
        num_parents: parent types, ``J``.
        inverse_temperature: one positive value an iteration; a buffer ``[T]``, so that it is saved with the weights.
        spec: the options of the routing.
        shared_beta_activation: whether all parent types share one β_a.

    Attributes:
        beta_use: ``[J]``, in logits: times the inverse temperature and ``data_scale``.
        beta_activation: ``[J]``, or ``[1]`` where it is shared, in logits: times the inverse temperature.
        spec: the options of the routing; each is an attribute, too, which may be set.
        data_scale: a buffer, the rise of a typical parent's cost when its β_u rises by one; 1 until calibrated.
    """

    inverse_temperature: Tensor
    data_scale: Tensor

    activation_rule = option("activation_rule")
    variance_floor = option("variance_floor")
    annealing = option("annealing")
    implementation = option("implementation")

    def __init__(
        self,
        num_parents: int,
        *,
        inverse_temperature: Sequence[float],
        spec: RoutingSpec,
        shared_beta_activation: bool = False,
    ):
        super().__init__()
        schedule = list(inverse_temperature) if isinstance(inverse_temperature, Sequence) else []
        if not schedule or not all(
            isinstance(value, int | float) and is_finite(value) and value > 0 for value in schedule
        ):
            raise ValueError(
                "inverse_temperature must be a sequence of positive, finite numbers, one an iteration; "
                f"got {inverse_temperature!r}"
            )
        self.beta_use = nn.Parameter(torch.zeros(num_parents))
        self.beta_activation = nn.Parameter(torch.zeros(1 if shared_beta_activation else num_parents))
        self.register_buffer("inverse_temperature", torch.tensor(list(inverse_temperature), dtype=torch.float32))
        self.register_buffer("data_scale", torch.tensor(1.0))
        self.spec = spec

    def is_untouched(self) -> bool:
        """Whether both β and their unit are those of a new layer: neither calibrated, nor trained, nor loaded."""
        learned = bool(self.beta_use.any() or self.beta_activation.any())
        return not learned and float(self.data_scale) == 1

    @property
    def shared_beta_activation(self) -> bool:
        """Whether all parent types share one β_a."""
        return len(self.beta_activation) < len(self.beta_use)

    kind = "em"
    wants_fit = False

    def matrices(self, weight: Tensor) -> Tensor:
        """The transformation matrices that the layer routes with."""
        return weight

    def finish(self, parents: Capsules, fit: RoutingFit | None) -> Capsules:
        """After the routing: nothing to do here; see :class:`NormalisedRoutingParameters`."""
        return parents

    def route(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> Capsules:
        """The parents of a map of children; see the layers for the shapes."""
        inputs = self.inputs(capsules, weight, coordinates)
        fit = fit_class_em_routing if inputs.is_class else fit_conv_em_routing
        return self.finish(*fit(inputs, self.spec, wants_fit=self.wants_fit))

    def trace(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> list[RoutingIteration]:
        """Every iteration's state; see :func:`matcaps.routing.trace_conv_em_routing`."""
        inputs = self.inputs(capsules, weight, coordinates)
        return (trace_class if inputs.is_class else trace_conv)(inputs, self.spec)

    @property
    def num_iterations(self) -> int:
        """Iterations, ``T``."""
        return len(self.inverse_temperature)

    def set_iterations(self, count: int) -> None:
        """Make room for so many inverse temperatures, all 1; weights that are loaded afterwards bring their own."""
        self.inverse_temperature = self.inverse_temperature.new_ones(count)

    def paper_inverse_temperature(self) -> Tensor:
        """λ of every iteration, ``[T]``."""
        return self.inverse_temperature

    def paper_beta_use(self) -> Tensor:
        """β_u in the paper's units, ``[J]``."""
        return self.beta_use / (self.inverse_temperature[-1] * self.data_scale)

    def paper_beta_activation(self) -> Tensor:
        """β_a in the paper's units, ``[J]``, also where it is shared."""
        return self.beta_activation.expand_as(self.beta_use) / self.inverse_temperature[-1]

    def inputs(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> RoutingInputs:
        """The tensors of a routing: children, matrices, β in the paper's units and the schedule."""
        return RoutingInputs(
            *capsules,
            self.matrices(weight),
            self.paper_beta_use(),
            self.paper_beta_activation(),
            self.paper_inverse_temperature(),
            coordinates,
        )

    @torch.no_grad()
    def scale_temperature(self, factor: Tensor | float) -> None:
        """Multiply the inverse temperature of every iteration; both β keep their values in logits."""
        self.inverse_temperature.mul_(factor)

    @torch.no_grad()
    def set_beta(self, use: Tensor, activation: Tensor, data: Tensor | float) -> None:
        """Set both β from the paper's units, ``[J]`` each, and ``data_scale``; a shared β_a is set to their mean."""
        last = self.inverse_temperature[-1]
        self.data_scale.fill_(data)
        self.beta_use.copy_(use * last * data)
        self.beta_activation.copy_(fit_beta_activation(activation * last, self.beta_activation))

    def extra_repr(self) -> str:
        schedule = ", ".join(f"{value:.3g}" for value in self.inverse_temperature.tolist())
        return (
            f"inverse_temperature=[{schedule}], activation_rule={self.activation_rule!r}, "
            f"variance_floor={self.variance_floor:g}, annealing={self.annealing:g}, "
            f"implementation={self.implementation!r}{', shared_beta_activation=True' * self.shared_beta_activation}"
        )


def fit_beta_activation(values: Tensor, like: Tensor) -> Tensor:
    """Bring β_a, ``[J]`` or ``[1]``, to the shape of ``like``: their mean if it has one element."""
    return values.mean().expand_as(like) if len(like) == 1 else values.expand_as(like)
