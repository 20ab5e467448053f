"""Which of torch's function transforms (``torch.func``, forward mode) a call runs under, and which of them operators of
ours can go along with.

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
    """Whether a transform of ``torch.func`` is at work: grad, vjp, jvp, vmap and what is made of them."""
    return torch._C._are_functorch_transforms_active()


def lacking(tensors: Sequence[Tensor]) -> str | None:
    """Name what the transforms at work may ask of an operator and ours do not have; None if there is no such thing.

    It would rather say too much: torch gives an operator without a rule for forward mode zeros, and no word.

    Args:
        tensors: all tensors of the call.
    """
    if torch.compiler.is_compiling():  # the tensors cannot be asked, and a graph records no rule of ours
        if forward_ad._current_level >= 0:
            return FORWARD_MODE
        return "torch.func inside torch.compile or torch.export" if is_transformed() else None
    # below the level of a gradient or a vmap a tangent may hide
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
