"""The options of a routing in one object, its tensors in another, and the geometry of its windows."""

from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matcaps._numbers import is_finite

COMPETITIONS = ("child", "window")
ACTIVATION_RULES = ("paper", "standardised", "relative")


@dataclass(frozen=True)
class RoutingSpec:
    """The options of a routing, in one object from the public functions to the kernels.

    Class capsules have one window, the whole map: stride and competition change nothing there.

    Attributes:
        stride: rows and columns from one window to the next.
        competition: ``"child"`` (Hinton et al. 2018): each child divides itself among all parents, of any type at any
            position, whose window covers it; ``"window"`` (most public code): among one window's ``J`` parents.
        activation_rule: ``"paper"``, ``"standardised"`` or ``"relative"``; see :func:`matcaps.routing.em_routing`.
        variance_floor: added to every variance.
        annealing: factor on the log-densities in the E-step.
        implementation: ``"auto"``, or the name of one.

    Raises:
        ValueError: a value is none of these; the implementation is checked where it is chosen.
    """

    stride: int = 1
    competition: str = "child"
    activation_rule: str = "paper"
    variance_floor: float = 5e-4
    annealing: float = 1.0
    implementation: str = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.stride, bool) or not isinstance(self.stride, int) or self.stride < 1:
            raise ValueError(f"stride must be a whole number of at least 1; got {self.stride!r}")
        if self.competition not in COMPETITIONS:
            raise ValueError(f"competition must be one of {COMPETITIONS}; got {self.competition!r}")
        if self.activation_rule not in ACTIVATION_RULES:
            raise ValueError(f"activation_rule must be one of {ACTIVATION_RULES}; got {self.activation_rule!r}")
        for name in ("variance_floor", "annealing"):
            value = getattr(self, name)
            if not is_positive(value):
                raise ValueError(f"{name} must be positive and finite; got {value!r}")

    @property
    def rule(self) -> int:
        """The activation rule as kernels know it, its place in ``ACTIVATION_RULES``."""
        return ACTIVATION_RULES.index(self.activation_rule)

    @property
    def child_competition(self) -> bool:
        """Whether children divide themselves among the parents of all windows that cover them."""
        return self.competition == "child"


def is_positive(value: Any) -> bool:
    """Whether it is a number above 0, and finite."""
    return isinstance(value, Real) and is_finite(value) and float(value) > 0


class RoutingInputs(NamedTuple):
    """The tensors of a routing from poses to parents, in the order in which the registered operators take them.

    Attributes:
        poses: ``[B, H, W, I, 4, 4]``.
        activations: ``[B, H, W, I]``.
        weight: ``[K, K, I, J, 4, 4]``; of class capsules ``[I, J, 4, 4]``; of vector poses with 16×16 matrices.
        beta_use: ``[J]``.
        beta_activation: ``[J]``.
        inverse_temperature: ``[T]``.
        coordinates: ``[H, W, 16]`` of class capsules, or None.
    """

    poses: Tensor
    activations: Tensor
    weight: Tensor
    beta_use: Tensor
    beta_activation: Tensor
    inverse_temperature: Tensor
    coordinates: Tensor | None = None

    @property
    def is_class(self) -> bool:
        """Whether these are the tensors of class capsules, whose weights have no kernel dimensions."""
        return self.weight.ndim == 4

    def tensors(self) -> list[Tensor]:
        """The tensors that are not None, in order."""
        return [tensor for tensor in self if tensor is not None]


def output_shape(poses: Tensor, weight: Tensor, stride: int) -> tuple[int, ...]:
    """``[B, H', W', J]``, or ``[B, J]`` for class capsules, whose weights have no kernel dimensions."""
    if weight.ndim == 4:
        return poses.shape[0], weight.shape[1]
    rows, columns = ((size - weight.shape[0]) // stride + 1 for size in poses.shape[1:3])
    return poses.shape[0], rows, columns, weight.shape[3]


def covered(windows: int, kernel_size: int, stride: int, device: torch.device) -> Tensor:
    """The row (or column) of each place in each window: ``[windows, K]``."""
    return torch.arange(windows, device=device)[:, None] * stride + torch.arange(kernel_size, device=device)


def covering(places: Tensor) -> Tensor:
    """How many windows cover the child at each place of each window, along one axis: ``[windows, K]``.

    Args:
        places: as :func:`covered` gives them.
    """
    starts = places[:, 0]
    inside = (places[..., None] >= starts) & (places[..., None] < starts + places.shape[1])
    return inside.sum(dim=-1)


def first_assignment(inputs: RoutingInputs, spec: RoutingSpec) -> Tensor:
    """The share of each child that each parent gets before the first M-step: ``[windows, children, 1]``.

    It is the same for all images; children are in the order (row, column, type).
    """
    poses, weight = inputs.poses, inputs.weight
    if inputs.is_class:
        return poses.new_full((1, poses.shape[1:4].numel(), 1), 1 / weight.shape[1])
    _, rows, columns, num_parents = output_shape(poses, weight, spec.stride)
    kernel_size, num_types = weight.shape[0], weight.shape[2]
    size = (rows, columns, kernel_size, kernel_size, num_types)
    competitors = torch.full(size, num_parents, dtype=poses.dtype, device=poses.device)
    if spec.child_competition:
        row, column = (covering(covered(n, kernel_size, spec.stride, poses.device)) for n in (rows, columns))
        competitors *= row[:, None, :, None, None] * column[None, :, None, :, None]
    return (1 / competitors).reshape(rows * columns, -1, 1)
