"""Which of torch's function transforms (``torch.func``, forward mode) a call runs under, and which of them our
operators support.

Torch has no public way to ask. What is used here, and only here, is what ``torch.autograd.Function`` asks itself.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._C import _functorch  # type: ignore
from torch.autograd import forward_ad

SECOND_ORDER = "second-order gradients"
FORWARD_MODE = "forward-mode derivatives"


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` is active: grad, vjp, jvp, vmap or a combination of them."""
    return torch._C._are_functorch_transforms_active()


def lacking(tensors: Sequence[Tensor]) -> str | None:
    """Name what the active transforms may need and our operators do not support; None if there is nothing.

    In doubt it names something: for an operator without a rule for forward mode, torch silently returns zeros.

    Args:
        tensors: all tensors of the call.
    """
    if torch.compiler.is_compiling():  # tangents cannot be seen then, and a graph does not record our rules
        if forward_ad._current_level >= 0:
            return FORWARD_MODE
        return "torch.func inside torch.compile or torch.export" if is_transformed() else None
    # under a gradient or a vmap a tangent may be invisible
    if forward_ad._current_level >= 0 and (is_transformed() or any(map(_has_tangent, tensors))):
        return FORWARD_MODE
    if not is_transformed():
        return None
    kinds = [level.key() for level in _functorch.get_interpreter_stack() or ()]
    if kinds.count(_functorch.TransformType.Grad) > 1:
        return SECOND_ORDER
    if _functorch.TransformType.Functionalize in kinds:
        return "torch.func.functionalize"
    return None


def _has_tangent(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None
