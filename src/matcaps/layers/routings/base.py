"""What every routing other than EM is made of: votes in memory, competition, and the state after each iteration."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matcaps.capsules import POSE_COMPONENTS, POSE_SIZE, Capsules, RoutingIteration
from matcaps.layers.parameters import option
from matcaps.routing import RoutingSpec
from matcaps.routing.reference import EMPTY_MASS, Windows, child_competition, votes_of

TINY = 1e-12
"""Added to a sum before it divides, or before its root is taken, so that children that are all off pass no NaN."""


class Children(NamedTuple):
    """The children of one layer's parents, and how these compete for them.

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


class Step(NamedTuple):
    """An iteration's outcome: the shares ``[..., I, J]`` it used, poses ``[..., J, P]``, activations ``[..., J]``."""

    assignment: Tensor
    pose: Tensor
    activation: Tensor


class VoteRouting(nn.Module):
    """A routing that a layer may have in place of EM: a subclass says in :meth:`iterate` what happens to the votes.

    Args:
        kinds: rows of the layer's matrices: ``K·K·I`` for a kernel, ``I`` for class capsules, whose matrices are
            shared over positions. Parameters of child and parent have this many rows.
        num_parents: parent types, ``J``.
        iterations: of the procedure; those that do not iterate take no notice.
        spec: stride and competition; the options of EM do nothing here.

    Attributes:
        kind: the name of the routing in configurations.
        calibrated: a buffer, 1 once a batch has set the scales.
    """

    kind: str
    calibrated: Tensor
    shared_beta_activation = False

    activation_rule = option("activation_rule")
    variance_floor = option("variance_floor")
    annealing = option("annealing")
    implementation = option("implementation")

    def __init__(self, kinds: int, num_parents: int, *, iterations: int, spec: RoutingSpec):
        super().__init__()
        self.kinds, self.num_parents, self.num_iterations, self.spec = kinds, num_parents, iterations, spec
        self.register_buffer("calibrated", torch.zeros(()))

    def iterate(self, children: Children) -> Iterator[Step]:
        """Yield every iteration; the last one is the layer's output."""
        raise NotImplementedError

    def size(self, children: Children) -> Tensor:
        """What calibration brings to 1 by scaling the matrices; proportional to the votes.

        Here it is the standard deviation of a component of the mean votes.
        """
        mean = mean_of(children, children.uniform)
        return mean.flatten(0, -2).var(dim=0, correction=0).mean().sqrt()

    def centre(self, step: Step) -> None:
        """Set what decides activations, in place, so that they start where gradients do not vanish."""

    @torch.no_grad()
    def calibrate(self, weight: Tensor, capsules: Capsules, coordinates: Tensor | None = None) -> None:
        """Scale the matrices so that :meth:`size` is 1 on this batch, coordinates left out; then :meth:`centre`."""
        size = self.size(self.gather(capsules, weight))
        if size > TINY:
            weight.div_(size)
        *_, last = self.iterate(self.gather(capsules, weight, coordinates))
        self.centre(last)
        self.calibrated.fill_(1)

    def set_iterations(self, count: int) -> None:
        """Iterate so many times from now on."""
        self.num_iterations = count

    def is_untouched(self) -> bool:
        """Whether no batch has calibrated it."""
        return float(self.calibrated) == 0

    def matrices(self, weight: Tensor) -> Tensor:
        """The transformation matrices that the layer routes with."""
        return weight

    def route(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> Capsules:
        """The parents of a map of children; see the layers for the shapes."""
        *_, last = self.iterate(self.gather(capsules, weight, coordinates))
        return Capsules(last.pose.unflatten(-1, (POSE_SIZE, POSE_SIZE)), last.activation)

    def trace(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> list[RoutingIteration]:
        """Every iteration as EM would describe it: mean, variance and mass of the votes under its shares.

        The cost is the mass times ½ ln σ², summed over components. The mean is that of the votes: a routing that
        squashes it gives its parents another pose.
        """
        children = self.gather(capsules, weight, coordinates)
        return [self._describe(step, children) for step in self.iterate(children)]

    def gather(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> Children:
        """Gather every window's children and compute their votes, all in memory."""
        poses, activations = capsules
        if weight.ndim == 4:
            votes = votes_of(poses, weight)
            if coordinates is not None:
                votes = votes + coordinates[:, :, None, None, :]
            votes, poses, activations = votes.flatten(1, 3), poses.flatten(1, 3), activations.flatten(1)
        else:
            windows = Windows(poses.shape[1], poses.shape[2], weight.shape[0], self.spec.stride, poses.device)
            copies = windows.gather(poses)
            votes, poses = votes_of(copies, weight).flatten(3, 5), copies.flatten(3, 5)
            activations = windows.gather(activations).flatten(3)
            if self.spec.child_competition:
                uniform, log_partition = child_competition(windows, activations, weight)
                return Children(
                    votes, activations, poses.flatten(-2), uniform, lambda logit: (logit - log_partition(logit)).exp()
                )
        uniform = torch.full_like(votes[..., 0], 1 / votes.shape[-2])
        return Children(votes, activations, poses.flatten(-2), uniform, lambda logit: logit.softmax(dim=-1))

    def by_child(self, parameter: Tensor, children: Children) -> Tensor:
        """A parameter ``[kinds, ...]`` for each child, ``[I, ...]``: class capsules share it over positions."""
        copies = children.activations.shape[-1] // self.kinds
        return parameter.repeat(copies, *[1] * (parameter.ndim - 1))

    def _describe(self, step: Step, children: Children) -> RoutingIteration:
        mean = mean_of(children, step.assignment)
        data = step.assignment * children.activations.unsqueeze(-1)
        mass = data.sum(dim=-2)
        square = (data.unsqueeze(-1) * (children.votes - mean.unsqueeze(-3)) ** 2).sum(dim=-3)
        variance = square / mass.clamp_min(EMPTY_MASS).unsqueeze(-1) + self.spec.variance_floor
        cost = mass * variance.log().sum(dim=-1) / 2
        return RoutingIteration(step.assignment, mean, variance, mass, cost, step.activation)

    def extra_repr(self) -> str:
        return f"{self.num_parents}, iterations={self.num_iterations}, competition={self.spec.competition!r}"


def mean_of(children: Children, assignment: Tensor) -> Tensor:
    """Mean of the votes, weighted by share and activation, ``[..., J, P]``; 0 where there are no data."""
    data = assignment * children.activations.unsqueeze(-1)
    mass = data.sum(dim=-2, keepdim=True)
    share = torch.where(mass > EMPTY_MASS, data / mass.clamp_min(EMPTY_MASS), 0)
    return (share.unsqueeze(-1) * children.votes).sum(dim=-3)


def norm(vector: Tensor) -> Tensor:
    """Length over the last dimension, kept; its gradient at 0 is 0."""
    return (vector.square().sum(dim=-1, keepdim=True) + TINY).sqrt()


class LinearActivation(nn.Module):
    """A parent's activation from its pose alone: the logistic of a linear function, one a parent type."""

    def __init__(self, num_parents: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_parents, POSE_COMPONENTS) / POSE_COMPONENTS**0.5)
        self.bias = nn.Parameter(torch.zeros(num_parents))

    def forward(self, pose: Tensor) -> Tensor:
        return self.logit(pose).sigmoid()

    def logit(self, pose: Tensor) -> Tensor:
        return (pose * self.weight).sum(dim=-1) + self.bias

    @torch.no_grad()
    def centre(self, pose: Tensor) -> None:
        """Logits of mean 0 and deviation 1 for each type, over these poses ``[..., J, P]``."""
        logit = self.logit(pose).flatten(0, -2)
        deviation = logit.std(dim=0, correction=0).clamp_min(1e-6)
        self.bias.sub_(logit.mean(dim=0)).div_(deviation)
        self.weight.div_(deviation.unsqueeze(-1))
