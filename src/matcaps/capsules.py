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

from typing import NamedTuple

from torch import Tensor

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
