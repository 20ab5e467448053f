"""Routing by agreement of Sabour, Frosst and Hinton, "Dynamic routing between capsules" (2017), procedure 1."""

from collections.abc import Iterator

import torch
from torch import Tensor

from matcaps.layers.routings.base import TINY, Step, VoteRouting, norm
from matcaps.routing import Children


def squash(vector: Tensor) -> tuple[Tensor, Tensor]:
    """Shorten a vector to a length below 1 and keep its direction, the paper's equation 1; return it and its length."""
    square = vector.square().sum(dim=-1, keepdim=True)
    length = square / (1 + square)
    return length * vector / (square + TINY).sqrt(), length.squeeze(-1)


class DynamicRouting(VoteRouting):
    """A child gives more to the parents with whose output its vote has the larger scalar product.

    A capsule of that paper is a vector whose length says how present it is. Here the pose has 16 components, the length
    of the squashed sum is the activation, and a vote counts as much as its child is active. Shares are softmaxed over
    parents, as the paper's equations say; some public code does it over children.
    """

    kind = "dynamic"

    def iterate(self, children: Children) -> Iterator[Step]:
        votes = children.activations[..., None, None] * children.votes
        logit = torch.zeros_like(children.uniform)
        for _ in range(self.num_iterations):
            assignment = children.softmax(logit)
            pose, length = squash((assignment.unsqueeze(-1) * votes).sum(dim=-3))
            yield Step(assignment, pose, length)
            logit = logit + (votes * pose.unsqueeze(-3)).sum(dim=-1)

    def size(self, children: Children) -> Tensor:
        """The mean length of what is squashed in the first iteration: at 1, activations start at ½."""
        return norm(weighted_sum(children)).mean()


def weighted_sum(children: Children) -> Tensor:
    """The sum of the votes, each child's activation shared equally among the parents, ``[..., J, P]``."""
    data = children.uniform * children.activations.unsqueeze(-1)
    return (data.unsqueeze(-1) * children.votes).sum(dim=-3)
