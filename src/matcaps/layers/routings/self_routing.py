"""Self-routing: Hahn, Pyeon and Kim, "Self-routing capsule networks" (2019). No iterations, no agreement."""

from collections.abc import Iterator
from typing import Any

import torch

from matcaps.capsules import POSE_COMPONENTS
from matcaps.layers.routings.base import Step, VoteRouting
from matcaps.routing import Children


class SelfRouting(VoteRouting):
    """Each child decides by its own pose, through a learned layer, to whom it belongs: a mixture of experts.

    A parent's activation is the share of the children's activation that it gets; so those of one window sum to 1. The
    routing layer has as many parameters as the votes have with 4×4 matrices, which doubles a network's; with a rank
    (not in the paper) every kind of child mixes a few routing layers that all share.
    """

    kind = "self"

    def __init__(self, kinds: int, num_parents: int, **settings: Any):
        super().__init__(kinds, num_parents, **settings)
        self.learn_table("weight", POSE_COMPONENTS, deviation=1 / POSE_COMPONENTS**0.5)
        self.learn_table("bias")

    def iterate(self, children: Children) -> Iterator[Step]:
        weight, bias = (self.table(name, children) for name in ("weight", "bias"))
        assignment = children.softmax(torch.einsum("...ip,ijp->...ij", children.poses, weight) + bias)
        mass, mean, _ = children.moments(assignment)
        total = children.activations.sum(dim=-1, keepdim=True)
        yield Step(assignment, mean, mass / total.clamp_min(1e-6))
