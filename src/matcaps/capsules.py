"""The one noun that flows through the package, and the alphabet of its shapes.

Shape letters, used as suffixes of dense tensors everywhere (``votes_BIJP``):

====== =========================================================
``B``  images in the batch
``H``  rows of capsules; ``W`` columns
``K``  rows and columns of a kernel's window
``I``  child capsule types, or all children of one routing
``J``  parent capsule types
``P``  pose components: the 4×4 matrix flattened row by row, 16
``T``  routing iterations
====== =========================================================
"""

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree

POSE_SIZE = 4
"""Rows and columns of a pose matrix."""

POSE_COMPONENTS = POSE_SIZE * POSE_SIZE
"""Components of a flattened pose, ``P``."""


class Capsules(NamedTuple):
    """Capsules of one layer: every capsule layer takes this and returns this.

    Attributes:
        poses: ``[..., I, 4, 4]``, floating point; the pose matrix of each capsule.
        activations: ``[..., I]``, floating point in [0, 1]; how present each capsule's entity is.

    The leading dimensions are ``[B, H, W]`` in a map of capsules and ``[B]`` for class capsules.
    """

    poses: Tensor
    activations: Tensor


class RoutingIteration(NamedTuple):
    """The state of one routing after one M-step.

    Attributes:
        assignment: ``[..., I, J]``, what share of each child the M-step gave to each parent.
        mean: ``[..., J, P]``, each parent's mean vote.
        variance: ``[..., J, P]``, the votes' variance about it, floor included.
        mass: ``[..., J]``, how much data each parent has: assignment times the child's activation, summed.
        cost: ``[..., J]``, the cost of describing the parent's data, in nats.
        activation: ``[..., J]``, in [0, 1].
    """

    assignment: Tensor
    mean: Tensor
    variance: Tensor
    mass: Tensor
    cost: Tensor
    activation: Tensor


CapsulesLike = Capsules | tuple[Tensor, Tensor]
"""What a capsule layer takes: capsules, or the plain pair that hooks and checkpointing make of them."""

# A named tuple is a tree to torch anyhow; torch.export.save also wants a name to write down.
_pytree._register_namedtuple(Capsules, serialized_type_name="matcaps.capsules.Capsules")


def as_capsules(capsules: Any) -> Capsules:
    """Make :class:`Capsules` of what a layer was given.

    Args:
        capsules: :class:`Capsules`, or a tuple or list of two tensors, poses and activations.

    Raises:
        TypeError: it is neither.

    Example:
        >>> import torch
        >>> as_capsules((torch.zeros(2, 8, 4, 4), torch.zeros(2, 8))).activations.shape
        torch.Size([2, 8])
    """
    if isinstance(capsules, Capsules):
        return capsules
    if isinstance(capsules, tuple | list) and len(capsules) == 2 and all(isinstance(x, Tensor) for x in capsules):
        return Capsules(*capsules)
    got = type(capsules).__name__
    if isinstance(capsules, tuple | list):
        got += f" of {', '.join(type(x).__name__ for x in capsules) or 'nothing'}"
    raise TypeError(f"capsules must be Capsules(poses, activations), or a tuple of these two tensors; got {got}")
