"""What every routed layer holds beside its transformation matrices: β, the inverse temperature, the options."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matcaps.capsules import Capsules
from matcaps.routing import RoutingFit


class RoutingParameters(nn.Module):
    """The learned β and the fixed settings of one routing.

    β is held in logit units: a unit step moves a typical capsule's activation by about one logit. In the paper's
    units the reward is of the order of a thousand, and a step of Adam would move it by some millionths of a logit;
    the cost of use acts on every unit of data and pose component at once, and would move it by hundreds.

    Args:
        num_parents: parent types, ``J``.
        inverse_temperature: one positive value an iteration; a buffer ``[T]``, so that it travels with the weights.
        activation_rule: ``"paper"`` or ``"standardised"``.
        variance_floor: added to every variance.
        annealing: factor on the log-densities in the E-step.
        implementation: which implementation of the operator to use.
        shared_beta_activation: whether all parent types have one β_a in common.

    Attributes:
        beta_use: ``[J]``, in logits: times the inverse temperature and ``data_scale``.
        beta_activation: ``[J]``, or ``[1]`` where it is shared, in logits: times the inverse temperature.
        data_scale: a buffer, what a typical parent's cost rises by when its β_u rises by one; 1 until calibrated.
    """

    inverse_temperature: Tensor
    data_scale: Tensor

    def __init__(
        self,
        num_parents: int,
        *,
        inverse_temperature: Sequence[float],
        activation_rule: str,
        variance_floor: float,
        annealing: float,
        implementation: str,
        shared_beta_activation: bool = False,
    ):
        super().__init__()
        schedule = list(inverse_temperature) if isinstance(inverse_temperature, Sequence) else []
        if not schedule or not all(isinstance(value, int | float) and 0 < value < float("inf") for value in schedule):
            raise ValueError(
                "inverse_temperature must be a sequence of positive, finite numbers, one an iteration; "
                f"got {inverse_temperature!r}"
            )
        self.beta_use = nn.Parameter(torch.zeros(num_parents))
        self.beta_activation = nn.Parameter(torch.zeros(1 if shared_beta_activation else num_parents))
        self.register_buffer("inverse_temperature", torch.tensor(list(inverse_temperature), dtype=torch.float32))
        self.register_buffer("data_scale", torch.tensor(1.0))
        self.activation_rule = activation_rule
        self.variance_floor = variance_floor
        self.annealing = annealing
        self.implementation = implementation

    def is_untouched(self) -> bool:
        """Whether both β and their unit are still a new layer's: neither calibrated, nor trained, nor loaded."""
        learned = bool(self.beta_use.any() or self.beta_activation.any())
        return not learned and float(self.data_scale) == 1

    @property
    def shared_beta_activation(self) -> bool:
        """Whether all parent types have one β_a in common."""
        return len(self.beta_activation) < len(self.beta_use)

    wants_fit = False

    def matrices(self, weight: Tensor) -> Tensor:
        """The transformation matrices that the layer routes with."""
        return weight

    def finish(self, parents: Capsules, fit: RoutingFit | None) -> Capsules:
        """What follows the routing."""
        return parents

    def paper_inverse_temperature(self) -> Tensor:
        """λ of every iteration, ``[T]``."""
        return self.inverse_temperature

    def paper_beta_use(self) -> Tensor:
        """β_u in the paper's units, ``[J]``."""
        return self.beta_use / (self.inverse_temperature[-1] * self.data_scale)

    def paper_beta_activation(self) -> Tensor:
        """β_a in the paper's units, ``[J]``, also where it is shared."""
        return self.beta_activation.expand_as(self.beta_use) / self.inverse_temperature[-1]

    def options(self) -> dict[str, Any]:
        """Arguments of the tracing operators: β in the paper's units, the schedule and the rule."""
        return {
            "beta_use": self.paper_beta_use(),
            "beta_activation": self.paper_beta_activation(),
            "inverse_temperature": self.paper_inverse_temperature(),
            "activation_rule": self.activation_rule,
            "variance_floor": self.variance_floor,
            "annealing": self.annealing,
        }

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
    """Other β_a, ``[J]`` or ``[1]``, in the shape of a layer's own: their mean where that has one."""
    return values.mean().expand_as(like) if len(like) == 1 else values.expand_as(like)
