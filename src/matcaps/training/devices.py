"""Where networks compute: what ``--accelerator`` means, in every command the same."""

import os
from typing import get_args

import torch
from torch import nn

from matcaps.models import EMCapsNet
from matcaps.routing import require_implementation
from matcaps.training.settings import Accelerator


def resolve_device(accelerator: str = "auto", devices: int = 1, *, implementation: str = "auto") -> torch.device:
    """The device that an accelerator means here, for this process.

    "auto" never takes an Apple GPU, where the routing has only the reference.

    Args:
        accelerator: "gpu" for CUDA, "cpu", or "auto" for the first where there is one.
        devices: processes on this machine, one a device; each has its own by LOCAL_RANK or SLURM_LOCALID.
        implementation: of the network's routing; "native", which the CPU alone has, makes "auto" the CPU.

    Raises:
        ValueError: it is none of these, or a GPU is asked for that is not there, or the implementation cannot
            compute there.
    """
    if accelerator not in get_args(Accelerator):
        raise ValueError(f"accelerator must be auto, cpu or gpu; got {accelerator!r}")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if accelerator == "gpu" and there < devices:
        mend = "use --accelerator cpu" + (", or fewer --devices" if devices > 1 else "")
        raise ValueError(f"{devices} GPU must be there for accelerator gpu; torch can use {there} here: {mend}")
    if accelerator == "cpu" or there == 0 or (accelerator == "auto" and implementation == "native"):
        device = torch.device("cpu")
    else:
        device = torch.device("cuda", _local_rank() if devices > 1 else 0)
    try:
        require_implementation(implementation, device, torch.float32)
    except RuntimeError as missing:
        raise ValueError(str(missing)) from missing  # a user's choice, not a mistake of ours
    return device


def place(network: nn.Module, accelerator: str = "auto") -> torch.device:
    """Move a network to the device that an accelerator means for it, and return the device; raises as above."""
    implementation = network.config.implementation if isinstance(network, EMCapsNet) else "auto"
    device = resolve_device(accelerator, implementation=implementation)
    network.to(device)
    return device


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
