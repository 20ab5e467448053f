"""What every routing other than EM is made of: iterations over votes in memory, parameters, calibration."""

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from matcaps.capsules import POSE_COMPONENTS, POSE_SIZE, Capsules, RoutingIteration
from matcaps.layers.parameters import option
from matcaps.routing import Children, RoutingSpec, gather_children, is_transformed

TINY = 1e-12
"""Added to a sum before it divides, or before its root is taken, so that children that are all off pass no NaN."""


VOTES_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}
"""How many numbers of votes are in memory together, by device: 16 MiB of them on a CPU, 1 GiB on a GPU. Larger tensors
the C library gives back to the system after each operation, and asks for again, page by page."""


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
        rank: of what the routing learns for each kind of child and parent; None: a value for each, as in the paper.

    Attributes:
        kind: the name of the routing in configurations.
        holds_votes: whether routing has votes in memory.
        calibrated: a buffer, 1 once a batch has set the scales.
    """

    kind: str
    holds_votes = True
    calibrated: Tensor
    shared_beta_activation = False

    activation_rule = option("activation_rule")
    variance_floor = option("variance_floor")
    annealing = option("annealing")
    implementation = option("implementation")

    def __init__(self, kinds: int, num_parents: int, *, iterations: int, spec: RoutingSpec, rank: int | None = None):
        super().__init__()
        self.kinds, self.num_parents, self.num_iterations, self.spec = kinds, num_parents, iterations, spec
        self.rank = rank
        self.register_buffer("calibrated", torch.zeros(()))

    def iterate(self, children: Children) -> Iterator[Step]:
        """Yield every iteration, image by image; the last one is the layer's output, after :meth:`finish`."""
        raise NotImplementedError

    def finish(self, step: Step) -> Step:
        """What is done to a step of the whole batch before it leaves the layer, such as a batch normalisation."""
        return step

    def learn_table(self, name: str, *shape: int, deviation: float = 0.0) -> None:
        """Register numbers ``[kinds, J, *shape]``, normal with this deviation, that :meth:`table` gives.

        With a rank they are a sum of so many products of a number for the kind and numbers for the parent: every kind
        of child mixes a few tables that all share.
        """
        if self.rank is None:
            values = torch.zeros(self.kinds, self.num_parents, *shape)
            setattr(self, name, nn.Parameter(values.normal_(std=deviation) if deviation else values))
            return
        shared = torch.zeros(self.rank, self.num_parents, *shape)
        mixture = torch.randn(self.kinds, self.rank) / self.rank**0.5
        setattr(self, f"{name}_mixture", nn.Parameter(mixture))
        setattr(self, f"{name}_shared", nn.Parameter(shared.normal_(std=deviation) if deviation else shared))

    def table(self, name: str, children: Children) -> Tensor:
        """The numbers of :meth:`learn_table` for each child, ``[I, J, ...]``."""
        if self.rank is None:
            return self.by_child(getattr(self, name), children)
        mixture, shared = getattr(self, f"{name}_mixture"), getattr(self, f"{name}_shared")
        return self.by_child(torch.tensordot(mixture, shared, dims=1), children)

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
        """The parents of a map of children; see the layers for the shapes.

        A few images at a time have their votes in memory, and in training these are computed again for the backward
        pass: the votes of a whole batch take hundreds of megabytes an operation, and longer to write and read.
        """
        if torch.compiler.is_compiling() or is_transformed():  # what is recorded as a whole has no blocks
            last = self.finish(self.last_step(capsules, weight, coordinates))
            return Capsules(last.pose.unflatten(-1, (POSE_SIZE, POSE_SIZE)), last.activation)
        num_images = self._images_at_once(capsules, weight)
        step = compiled_step(self) if self.implementation == "compiled" else self.last_step
        blocks = [Capsules(*block) for block in zip(*(part.split(num_images) for part in capsules), strict=True)]
        if len(blocks) > 1 and torch.is_grad_enabled():
            steps = [
                checkpoint(step, block, weight, coordinates, use_reentrant=False, preserve_rng_state=False)
                for block in blocks
            ]
        else:
            steps = [step(block, weight, coordinates) for block in blocks]
        last = self.finish(Step(*(torch.cat(parts) for parts in zip(*steps, strict=True))))
        return Capsules(last.pose.unflatten(-1, (POSE_SIZE, POSE_SIZE)), last.activation)

    def last_step(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> Step:
        """The last iteration for some images, before :meth:`finish`; the shares are left out, an empty tensor."""
        *_, last = self.iterate(gather_children(capsules, weight, self.spec, coordinates))
        return Step(last.assignment.new_empty(last.pose.shape[0], 0), last.pose, last.activation)

    def _images_at_once(self, capsules: Capsules, weight: Tensor) -> int:
        """The number of images whose votes are in memory together."""
        if not self.holds_votes:
            return max(1, len(capsules.poses))
        rows, columns = capsules.activations.shape[1:3]
        windows = rows * columns  # for class capsules the whole map votes once
        if weight.ndim > 4:
            kernel_size, stride = weight.shape[0], self.spec.stride
            windows = ((rows - kernel_size) // stride + 1) * ((columns - kernel_size) // stride + 1)
        votes = windows * self.kinds * self.num_parents * POSE_COMPONENTS
        return max(1, VOTES_AT_ONCE.get(capsules.poses.device.type, VOTES_AT_ONCE["cuda"]) // max(1, votes))

    def trace(self, capsules: Capsules, weight: Tensor, coordinates: Tensor | None = None) -> list[RoutingIteration]:
        """Every iteration as EM would describe it: mean, variance and mass of the votes under its shares.

        The cost is the mass times ½ ln σ², summed over components. The mean is that of the votes: a routing that
        squashes it gives its parents another pose.
        """
        children = gather_children(capsules, weight, self.spec, coordinates)
        return [self._describe(self.finish(step), children) for step in self.iterate(children)]

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
        rank = "" if self.rank is None else f", rank={self.rank}"
        return f"{self.num_parents}, iterations={self.num_iterations}, competition={self.spec.competition!r}{rank}"


_COMPILED: "WeakKeyDictionary[VoteRouting, Callable[..., Step]]" = WeakKeyDictionary()
"""By layer what computes its blocks; not an attribute, so that a layer can be copied and pickled."""


def compiled_step(routing: VoteRouting) -> Callable[..., Step]:
    """:meth:`VoteRouting.last_step` of a layer by ``torch.compile``, compiled at its first call."""
    if routing not in _COMPILED:
        own = ref(routing)

        def step(capsules: Capsules, weight: Tensor, coordinates: Tensor | None) -> Step:
            routing = own()
            assert routing is not None
            return routing.last_step(capsules, weight, coordinates)

        # torch counts recompilations by code object, and gives up after eight: each layer has one of its own
        code = step.__code__.replace(co_name=f"step_{len(_COMPILED)}")
        _COMPILED[routing] = torch.compile(FunctionType(code, globals(), None, None, step.__closure__), dynamic=False)
    return _COMPILED[routing]


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
