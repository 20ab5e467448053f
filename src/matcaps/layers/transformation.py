"""The transformation matrices that a routed layer learns: 4×4, or 16×16 for vector poses."""

import torch
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS, POSE_SIZE

POSES = ("matrix", "vector")

_SIZES = {"matrix": POSE_SIZE, "vector": POSE_COMPONENTS}


def random_transformations(*types: int, pose: str, deviation: float) -> Tensor:
    """Draw normal transformation matrices, ``[*types, 4, 4]`` or, for vector poses, ``[*types, 16, 16]``.

    Args:
        *types: the leading dimensions: places in the kernel, child types and parent types.
        pose: ``"matrix"``: a pose is a 4×4 matrix, and a 4×4 matrix transforms it; ``"vector"``: a pose is a vector of
            16 numbers, and a full 16×16 matrix transforms them.
        deviation: standard deviation of the 4×4 matrices. That of 16×16 ones is half of it: a component of a vote sums
            16 products there instead of 4, and its variance is the same.

    Raises:
        ValueError: ``pose`` is neither.
    """
    if pose not in POSES:
        raise ValueError(f"pose must be one of {POSES}; got {pose!r}")
    size = _SIZES[pose]
    return deviation * (POSE_SIZE / size) ** 0.5 * torch.randn(*types, size, size)


def transform_poses(poses: Tensor, weight: Tensor) -> Tensor:
    """Every child's vote for every parent, all in memory: for inspection, not for routing.

    Args:
        poses: ``[..., I, 4, 4]``; with a kernel's places among the leading dimensions where the weights have them.
        weight: ``[..., I, J, 4, 4]`` or, for vector poses, ``[..., I, J, 16, 16]``.

    Returns:
        ``[..., I, J, 16]``.
    """
    if weight.shape[-1] == POSE_COMPONENTS:
        return (poses.flatten(-2)[..., None, None, :] @ weight).squeeze(-2)
    return (poses.unsqueeze(-3) @ weight).flatten(-2)
