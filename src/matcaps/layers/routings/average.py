"""No routing, two ways: every child's equal share to every parent, or a share drawn once and kept."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from matcaps.capsules import Capsules
from matcaps.layers.routings.base import TINY, LinearActivation, Step, VoteRouting
from matcaps.routing import Children, gather_children


class Average(VoteRouting):
    """The control: a parent's pose is the mean of the votes, weighted by the children's activations.

    Whether a parent is active is a linear function of its pose, as no agreement is looked at. As the shares do not
    depend on the votes, the mean is a convolution of the children's poses, and no vote is computed.
    """

    kind = "average"
    holds_votes = False

    def __init__(self, kinds: int, num_parents: int, **settings: Any):
        super().__init__(kinds, num_parents, **settings)
        self.activation = LinearActivation(num_parents)

    def shares(self) -> Tensor:
        """How a kind of child divides itself, ``[kinds, J]``, as multiples of equal shares."""
        return self.calibrated.new_ones(self.kinds, self.num_parents)

    def assignment(self, children: Children) -> Tensor:
        """The shares, ``[..., I, J]``."""
        return children.uniform * self.by_child(self.shares(), children)

    def last_step(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> Step:
        children = gather_children(capsules, weight, self.spec, with_votes=False)
        shares, matrices = self.shares().to(weight), weight.flatten(0, -4)
        # by position and kind; class capsules, whose matrices are those of every position, sum over positions first
        data = (children.uniform[..., 0] * children.activations).unflatten(-1, (-1, self.kinds))
        moved = (data.unsqueeze(-1) * children.poses.unflatten(-2, (-1, self.kinds))).sum(dim=-3)
        size = matrices.shape[-1]
        columns = moved.unflatten(-1, (-1, size))
        total = torch.einsum("...ixy,ijyz->...jxz", columns, shares[..., None, None] * matrices).flatten(-2)
        if coordinates is not None:
            total = total + torch.einsum("bnk,np,kj->bjp", data, coordinates.flatten(0, 1), shares)
        mass = (data.sum(dim=-2) @ shares).unsqueeze(-1)
        pose = torch.where(mass > TINY, total / mass.clamp_min(TINY), 0)
        return Step(mass.new_empty(mass.shape[0], 0), pose, self.activation(pose))

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

    def shares(self) -> Tensor:
        return self.num_parents * self.drawn
