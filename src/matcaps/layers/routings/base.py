"""What every routing other than EM is made of: iterations over votes in memory, parameters, calibration."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matcaps.capsules import POSE_COMPONENTS, POSE_SIZE, Capsules, RoutingIteration
from matcaps.layers.parameters import option
from matcaps.routing import Children, RoutingSpec, gather_children

TINY = 1e-12
"""Added to a sum before it divides, or before its root is taken, so that children that are all off pass no NaN."""


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
        _, mean, _ = children.moments(children.uniform)
        return mean.flatten(0, -2).var(dim=0, correction=0).mean().sqrt()

    def centre(self, step: Step) -> None:
        """Set what decides activations, in place, so that they start where gradients do not vanish."""

    @torch.no_grad()
    def calibrate(self, weight: Tensor, capsules: Capsules, coordinates: Tensor | None = None) -> None:
        """Scale the matrices so that :meth:`size` is 1 on this batch, coordinates left out; then :meth:`centre`."""
        size = self.size(gather_children(capsules, weight, self.spec))
        if size > TINY:
            weight.div_(size)
        *_, last = self.iterate(gather_children(capsules, weight, self.spec, coordinates))
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
        *_, last = self.iterate(gather_children(capsules, weight, self.spec, coordinates))
        return Capsules(last.pose.unflatten(-1, (POSE_SIZE, POSE_SIZE)), last.activation)

    def trace(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> list[RoutingIteration]:
        """Every iteration as EM would describe it: mean, variance and mass of the votes under its shares.

        The cost is the mass times ½ ln σ², summed over components. The mean is that of the votes: a routing that
        squashes it gives its parents another pose.
        """
        children = gather_children(capsules, weight, self.spec, coordinates)
        return [self._describe(step, children) for step in self.iterate(children)]

    def by_child(self, parameter: Tensor, children: Children) -> Tensor:
        """A parameter ``[kinds, ...]`` for each child, ``[I, ...]``: class capsules share it over positions."""
        copies = children.activations.shape[-1] // self.kinds
        return parameter.repeat(copies, *[1] * (parameter.ndim - 1))

    def _describe(self, step: Step, children: Children) -> RoutingIteration:
        mass, mean, spread = children.moments(step.assignment)
        variance = spread + self.spec.variance_floor
        cost = mass * variance.log().sum(dim=-1) / 2
        return RoutingIteration(step.assignment, mean, variance, mass, cost, step.activation)

    def extra_repr(self) -> str:
        return f"{self.num_parents}, iterations={self.num_iterations}, competition={self.spec.competition!r}"


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
