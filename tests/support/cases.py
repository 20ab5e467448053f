"""Small routings of every kind, and a generator for them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from matcaps.capsules import Capsules
from matcaps.routing import class_em_routing, conv_em_routing


@dataclass(frozen=True)
class Case:
    """The arguments of one call of ``conv_em_routing``, or of ``class_em_routing`` where the weight has no kernel."""

    poses: Tensor
    activations: Tensor
    weight: Tensor
    beta_use: Tensor
    beta_activation: Tensor
    options: dict[str, Any]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.poses, self.activations, self.weight, self.beta_use, self.beta_activation)

    def with_tensors(self, *tensors: Tensor) -> "Case":
        names = ("poses", "activations", "weight", "beta_use", "beta_activation")
        return replace(self, **dict(zip(names, tensors, strict=True)))

    def to(self, dtype: torch.dtype, device: str = "cpu") -> "Case":
        """The case in another dtype and on another device, tensors among the options too."""
        options = {
            name: option.to(device, dtype) if isinstance(option, Tensor) else option
            for name, option in self.options.items()
        }
        return replace(self.with_tensors(*(tensor.to(device, dtype) for tensor in self.tensors)), options=options)

    def run(self, **changes: Any) -> Capsules:
        route = class_em_routing if self.weight.ndim == 4 else conv_em_routing
        return route(*self.tensors, **{**self.options, **changes})


def make_case(
    *,
    batch: int = 2,
    size: tuple[int, int] = (7, 6),
    children: int = 3,
    parents: int = 4,
    kernel_size: int | None = 3,
    pose: str = "matrix",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **options: Any,
) -> Case:
    """A random case; ``kernel_size=None`` makes one for class capsules, ``pose="vector"`` one of 16×16 matrices."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    matrix = {"matrix": (4, 4), "vector": (16, 16)}[pose]
    kernel = () if kernel_size is None else (kernel_size, kernel_size)
    defaults: dict[str, Any] = {"inverse_temperature": [0.02, 0.05, 0.1], "annealing": 0.5}
    if kernel_size is None:
        defaults["coordinates"] = normal(*size, 16)
    return Case(
        poses=normal(batch, *size, children, 4, 4),
        activations=torch.rand(batch, *size, children, generator=generator, dtype=torch.float64).to(dtype),
        weight=normal(*kernel, children, parents, *matrix) * 2 / matrix[0] ** 0.5,
        beta_use=0.1 * normal(parents),
        beta_activation=normal(parents),
        options={**defaults, **options},
    )
