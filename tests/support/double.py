"""The command in float64, to tell float32's rounding from what is computed otherwise."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


def compute_in_double() -> None:
    """Have this process compute in float64 all that it computes in float32, and save weights so; metrics stay as they
    are written.
    """
    from matcaps.models import pretrained
    from matcaps.training import run

    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]
    register_module_forward_pre_hook(_in_double)  # images are prepared in float32
    fabric = run.Fabric

    def in_double(**options: Any) -> Any:
        return fabric(**(options | {"precision": "64-true"}))

    run.Fabric = in_double  # type: ignore[misc, assignment]
    pretrained._DTYPES = (*pretrained._DTYPES, torch.float64)


def _in_double(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.double() if isinstance(one, Tensor) and one.dtype == torch.float32 else one for one in arguments)
