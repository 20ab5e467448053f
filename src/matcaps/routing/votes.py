"""The votes of a layer in memory, for routings of one's own: what stands before Procedure 1 begins."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from matcaps.capsules import Capsules
from matcaps.routing.reference import EMPTY_MASS, Windows, child_competition, votes_of
from matcaps.routing.spec import RoutingSpec


class Children(NamedTuple):
    """The children of one layer's parents, their votes, and how parents compete for them.

    Attributes:
        votes: ``[..., I, J, P]``; the leading dimensions are ``[B, H', W']``, or ``[B]`` for class capsules.
        activations: ``[..., I]``.
        poses: ``[..., I, P]``.
        uniform: ``[..., I, J]``, every child's equal share for each of the parents that compete for it.
        softmax: maps logits ``[..., I, J]`` to shares, which sum to 1 over the parents that compete for a child.
    """

    votes: Tensor
    activations: Tensor
    poses: Tensor
    uniform: Tensor
    softmax: Callable[[Tensor], Tensor]

    def moments(self, assignment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fit a Gaussian to each parent's votes, weighted by the children's shares and activations.

        Args:
            assignment: the shares, ``[..., I, J]``.

        Returns:
            Mass ``[..., J]``; mean and variance ``[..., J, P]``, 0 where there are no data.
        """
        data = assignment * self.activations.unsqueeze(-1)
        mass = data.sum(dim=-2)
        has_data = (mass > EMPTY_MASS).unsqueeze(-2)
        share = torch.where(has_data, data / mass.unsqueeze(-2).clamp_min(EMPTY_MASS), 0).unsqueeze(-1)
        mean = (share * self.votes).sum(dim=-3)
        return mass, mean, (share * (self.votes - mean.unsqueeze(-3)) ** 2).sum(dim=-3)


def gather_children(
    capsules: Capsules,
    weight: Tensor,
    spec: RoutingSpec,
    coordinates: Tensor | None = None,
    *,
    with_votes: bool = True,
) -> Children:
    """Gather every window's children and compute their votes.

    Args:
        capsules: a map of children, poses ``[B, H, W, I, 4, 4]``.
        weight: ``[K, K, I, J, 4, 4]``, or ``[I, J, 4, 4]`` of class capsules, for which the whole map votes; of vector
            poses 16×16.
        spec: stride and competition.
        coordinates: ``[H, W, 16]``, added to the votes of class capsules.
        with_votes: whether to compute them; else ``votes`` is an empty tensor.

    Returns:
        Children in the order (row, column, type).
    """
    poses, activations = capsules
    votes, num_parents = poses.new_empty(0), weight.shape[-3]
    if weight.ndim == 4:
        if with_votes:
            votes = votes_of(poses, weight)
            if coordinates is not None:
                votes = votes + coordinates[:, :, None, None, :]
            votes = votes.flatten(1, 3)
        poses, activations = poses.flatten(1, 3), activations.flatten(1)
    else:
        windows = Windows(poses.shape[1], poses.shape[2], weight.shape[0], spec.stride, poses.device)
        copies = windows.gather(poses)
        if with_votes:
            votes = votes_of(copies, weight).flatten(3, 5)
        poses, activations = copies.flatten(3, 5), windows.gather(activations).flatten(3)
        if spec.child_competition:
            uniform, log_partition = child_competition(windows, activations, weight)

            def softmax(logit: Tensor) -> Tensor:
                return (logit - log_partition(logit)).exp()

            return Children(votes, activations, poses.flatten(-2), uniform, softmax)
    equal = torch.full_like(activations, 1 / num_parents).unsqueeze(-1)
    uniform = equal.expand(*activations.shape, num_parents)
    return Children(votes, activations, poses.flatten(-2), uniform, lambda logit: logit.softmax(dim=-1))
