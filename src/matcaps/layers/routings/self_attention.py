"""Self-attention routing: Mazzia, Salvetti and Chiaberge, "Efficient-CapsNet" (2021). One step, no iterations."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS
from matcaps.layers.routings.base import Step, VoteRouting, norm
from matcaps.layers.routings.dynamic import weighted_sum
from matcaps.routing import Children


class SelfAttentionRouting(VoteRouting):
    """A vote counts as much as it resembles all votes for the same parent, by scalar products over √16.

    To the shares a learned prior of each child and parent is added. The sum is squashed to
    ``(1 - exp(-|s|)) s / |s|``, whose length is the activation; a vote counts as much as its child is active, as no
    length says so here. The products of all pairs are not formed: their sum over children is a product with the sum of
    the votes.
    """

    kind = "attention"

    def __init__(self, kinds: int, num_parents: int, **settings: Any):
        super().__init__(kinds, num_parents, **settings)
        self.learn_table("prior")

    def iterate(self, children: Children) -> Iterator[Step]:
        votes = children.activations[..., None, None] * children.votes
        resemblance = (votes * votes.sum(dim=-3, keepdim=True)).sum(dim=-1) / POSE_COMPONENTS**0.5
        assignment = children.softmax(resemblance)
        coupling = assignment + self.table("prior", children)
        total = (coupling.unsqueeze(-1) * votes).sum(dim=-3)
        length = norm(total)
        activation = -torch.expm1(-length)
        yield Step(assignment, activation * total / length, activation.squeeze(-1))

    def size(self, children: Children) -> Tensor:
        """The mean length of what is squashed, with equal shares."""
        return norm(weighted_sum(children)).mean()
