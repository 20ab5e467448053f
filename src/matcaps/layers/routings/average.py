"""No routing, two ways: every child's equal share to every parent, or a share drawn once and kept."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from matcaps.layers.routings.base import LinearActivation, Step, VoteRouting
from matcaps.routing import Children


class Average(VoteRouting):
    """The control: a parent's pose is the mean of the votes, weighted by the children's activations.

    Whether a parent is active is a linear function of its pose, as no agreement is looked at.
    """

    kind = "average"

    def __init__(self, kinds: int, num_parents: int, **settings: Any):
        super().__init__(kinds, num_parents, **settings)
        self.activation = LinearActivation(num_parents)

    def assignment(self, children: Children) -> Tensor:
        """The shares, ``[..., I, J]``, which do not depend on the votes."""
        return children.uniform

    def iterate(self, children: Children) -> Iterator[Step]:
        assignment = self.assignment(children)
        _, pose, _ = children.moments(assignment)
        yield Step(assignment, pose, self.activation(pose))

    def centre(self, step: Step) -> None:
        self.activation.centre(step.pose)


class RandomAssignment(Average):
    """The control of Paik, Kwak and Kim (2019), who found routings no better than shares drawn at random.

    Each child's shares are the softmax of standard normal numbers, drawn when the layer is made, saved with it and
    never learned.
    """

    kind = "random"

    drawn: Tensor

    def __init__(self, kinds: int, num_parents: int, **settings: Any):
        super().__init__(kinds, num_parents, **settings)
        self.register_buffer("drawn", torch.randn(kinds, num_parents).softmax(dim=-1))

    def assignment(self, children: Children) -> Tensor:
        return children.uniform * self.num_parents * self.by_child(self.drawn, children)
