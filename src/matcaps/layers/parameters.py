"""What every routed layer holds beside its transformation matrices: β, the inverse temperature, the options."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class RoutingParameters(nn.Module):
    """The learned β and the fixed settings of one routing.

    β is held in logit units, that is, multiplied by the last inverse temperature. In the paper's units the reward
    is of the order of a thousand, and a step of Adam would move it by some millionths of a logit.

    Args:
        num_parents: parent types, ``J``.
        inverse_temperature: one positive value an iteration; a buffer ``[T]``, so that it travels with the weights.
        activation_rule: ``"paper"`` or ``"standardised"``.
        variance_floor: added to every variance.
        annealing: factor on the log-densities in the E-step.
        implementation: which implementation of the operator to use.

    Attributes:
        beta_use: ``[J]``, in logits a unit of data and pose component.
        beta_activation: ``[J]``, in logits.
    """

    inverse_temperature: Tensor

    def __init__(
        self,
        num_parents: int,
        *,
        inverse_temperature: Sequence[float],
        activation_rule: str,
        variance_floor: float,
        annealing: float,
        implementation: str,
    ):
        super().__init__()
        self.beta_use = nn.Parameter(torch.zeros(num_parents))
        self.beta_activation = nn.Parameter(torch.zeros(num_parents))
        self.register_buffer("inverse_temperature", torch.tensor(list(inverse_temperature), dtype=torch.float32))
        self.activation_rule = activation_rule
        self.variance_floor = variance_floor
        self.annealing = annealing
        self.implementation = implementation

    def options(self) -> dict[str, Any]:
        """Arguments of the tracing operators: β in the paper's units, the schedule and the rule."""
        last = self.inverse_temperature[-1]
        return {
            "beta_use": self.beta_use / last,
            "beta_activation": self.beta_activation / last,
            "inverse_temperature": self.inverse_temperature,
            "activation_rule": self.activation_rule,
            "variance_floor": self.variance_floor,
            "annealing": self.annealing,
        }

    def extra_repr(self) -> str:
        schedule = ", ".join(f"{value:.3g}" for value in self.inverse_temperature.tolist())
        return (
            f"inverse_temperature=[{schedule}], activation_rule={self.activation_rule!r}, "
            f"variance_floor={self.variance_floor:g}, annealing={self.annealing:g}, "
            f"implementation={self.implementation!r}"
        )
