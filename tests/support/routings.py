"""Random routings to hold implementations to the error budget on."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

RULES = tuple(itertools.product(("paper", "standardised", "relative"), (1.0, 1 / 16)))
"""Activation rules and annealing: hard and soft assignments."""

CONV_SIZES = [  # batch, height, width, children, parents, kernel, stride, iterations
    (2, 5, 7, 3, 5, 3, 2, 3),
    (1, 6, 6, 1, 1, 2, 1, 2),
    (3, 4, 4, 7, 9, 1, 1, 1),
    (2, 7, 7, 2, 17, 3, 3, 4),
    (1, 7, 6, 2, 16, 5, 2, 5),
    (1, 3, 4, 63, 7, 2, 1, 3),
    (2, 4, 3, 7, 63, 3, 1, 2),
    (7, 3, 3, 1, 8, 3, 1, 3),
    (1, 7, 7, 8, 16, 3, 2, 3),
]


def conv_inputs(
    batch: int, height: int, width: int, children: int, parents: int, kernel: int, iterations: int, seed: int = 0
) -> list[Tensor]:
    """float64 arguments of a size that leaves assignments soft enough to be interesting."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return [
        normal(batch, height, width, children, 4, 4),
        torch.rand(batch, height, width, children, generator=random, dtype=torch.float64),
        normal(kernel, kernel, children, parents, 4, 4) * 0.5,
        normal(parents) * 0.1,
        normal(parents),
        torch.linspace(0.02, 0.05, iterations, dtype=torch.float64),
    ]


def class_inputs(
    batch: int, height: int, width: int, children: int, parents: int, iterations: int, seed: int = 0
) -> list[Tensor]:
    """The same for class capsules, with coordinates."""
    poses, activations, weight, *rest = conv_inputs(batch, height, width, children, parents, 1, iterations, seed)
    random = torch.Generator().manual_seed(seed + 1)
    coordinates = torch.rand(height, width, 16, generator=random, dtype=torch.float64)
    return [poses, activations, weight[0, 0], *rest, coordinates]


EXTREMES = ("no activity", "full activity", "identical votes", "large poses", "one child", "tiny activity")


def extreme(name: str, seed: int) -> list[Tensor]:
    """Arguments of a convolutional routing at an edge of what may come."""
    poses, activations, weight, *rest = conv_inputs(2, 5, 5, 3, 5, 3, 3, seed=seed)
    if name == "no activity":
        activations = torch.zeros_like(activations)
    elif name == "full activity":
        activations = torch.ones_like(activations)
    elif name == "identical votes":
        poses = torch.ones_like(poses)
        weight = torch.ones_like(weight)
    elif name == "large poses":
        poses = poses * 1e4
    elif name == "one child":
        activations = torch.zeros_like(activations)
        activations[:, 2, 2, 1] = 1
    elif name == "tiny activity":
        activations = activations * 1e-18
    return [poses, activations, weight, *rest]


def all_rules(
    make_inputs: Callable[[int], list[Tensor]], draws: int = 3, **options: Any
) -> list[tuple[list[Tensor], dict[str, Any]]]:
    """Cases of every rule, each with so many draws of the inputs: eighteen, unless told otherwise."""
    return [
        (make_inputs(seed), {"activation_rule": rule, "annealing": annealing, **options})
        for seed, (_, (rule, annealing)) in enumerate(itertools.product(range(draws), RULES))
    ]
