"""Routing by variational Bayes: De Sousa Ribeiro and others, "Capsule routing via variational Bayes" (2020)."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from matcaps.capsules import POSE_COMPONENTS
from matcaps.layers.routings.base import Step, VoteRouting
from matcaps.layers.shared_batch import normalise_whole, present_share
from matcaps.routing import Children


class VariationalBayesRouting(VoteRouting):
    """Fit a mixture of Gaussians with diagonal precisions, whose parameters have priors, to the votes.

    The priors are those of the authors' code: Dirichlet α₀ = 1; for the means a Gaussian with m₀ = 0, κ₀ = 1; for the
    precisions a Wishart with Ψ₀ = I, ν₀ = 17, one more than the pose has components. So a parent with few data keeps
    a wide Gaussian, where EM's shrinks to the variance floor.

    As there, poses and the logits of the activations pass a batch normalisation without parameters, and an
    activation comes from the entropy of the parent's Gaussian, weighted by its mixing coefficient.
    """

    kind = "vb"

    prior_weight = 1.0
    prior_mean_precision = 1.0
    prior_freedom = POSE_COMPONENTS + 1.0

    def __init__(self, kinds: int, num_parents: int, **settings: Any):
        super().__init__(kinds, num_parents, **settings)
        self.beta_use = nn.Parameter(torch.zeros(num_parents))
        self.beta_activation = nn.Parameter(torch.zeros(num_parents))
        self.normalise_pose = nn.BatchNorm2d(num_parents, affine=False)
        self.normalise_logit = nn.BatchNorm2d(num_parents, affine=False)

    def iterate(self, children: Children) -> Iterator[Step]:
        assignment = children.uniform
        for iteration in range(self.num_iterations):
            # update of the parameters' posteriors
            mass, votes_mean, variance = children.moments(assignment)
            weight = self.prior_weight + mass
            mean_precision = self.prior_mean_precision + mass
            freedom = self.prior_freedom + mass
            mean = (mass / mean_precision).unsqueeze(-1) * votes_mean
            scatter = mass.unsqueeze(-1) * variance
            pull = (self.prior_mean_precision * mass / mean_precision).unsqueeze(-1) * votes_mean**2
            inverse_scale = 1 + scatter + pull  # the diagonal of Ψ⁻¹
            # expectations under them
            log_weight = weight.digamma() - weight.sum(dim=-1, keepdim=True).digamma()
            halves = (freedom.unsqueeze(-1) - torch.arange(POSE_COMPONENTS).to(freedom)) / 2
            log_precision = (halves.digamma() + math.log(2) - inverse_scale.log()).sum(dim=-1)
            yield Step(assignment, mean, self._logit(log_weight, log_precision))
            if iteration + 1 < self.num_iterations:
                offset = ((children.votes - mean.unsqueeze(-3)) ** 2 / inverse_scale.unsqueeze(-3)).sum(dim=-1)
                distance = (POSE_COMPONENTS / mean_precision).unsqueeze(-2) + freedom.unsqueeze(-2) * offset
                assignment = children.softmax((log_weight + log_precision / 2).unsqueeze(-2) - distance / 2)

    def _logit(self, log_weight: Tensor, log_precision: Tensor) -> Tensor:
        entropy = (POSE_COMPONENTS * math.log(2 * math.pi * math.e) - log_precision) / 2
        return self.beta_activation - (log_weight.exp() * entropy + self.beta_use)

    def finish(self, step: Step) -> Step:
        """Normalise the poses, and the logits that a step has for activations, over the batch."""
        mean, logit = step.pose, step.activation
        pose = _normalise(self.normalise_pose, mean.flatten(0, -3).unsqueeze(-1)).view_as(mean)
        logit = _normalise(self.normalise_logit, logit.flatten(0, -2)[..., None, None]).view_as(logit)
        return Step(step.assignment, pose, logit.sigmoid())


def _normalise(norm: nn.BatchNorm2d, values: Tensor) -> Tensor:
    """Batch normalisation ``[N, J, ...]``, of several processes over their whole batch."""
    return normalise_whole(values, norm) if norm.training and present_share() is not None else norm(values)
