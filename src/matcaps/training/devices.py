"""Where networks compute: the meaning of ``--accelerator``, the same in every command."""

import os
from typing import get_args

import torch
from torch import nn

from matcaps.models import EMCapsNet
from matcaps.routing import require_implementation
from matcaps.training.settings import Accelerator


def resolve_device(accelerator: str = "auto", devices: int = 1, *, implementation: str = "auto") -> torch.device:
    """The device that an accelerator means here, for this process.

    "auto" never chooses an Apple GPU, where routing has only the reference.

    Args:
        accelerator: "gpu" for CUDA, "cpu", or "auto" for the first where there is one.
        devices: processes on this machine, one per device; each gets its device from LOCAL_RANK or SLURM_LOCALID.
        implementation: of the network's routing; "native", which needs the CPU, makes "auto" the CPU.

    Raises:
        ValueError: it is none of these, or there is no such GPU, or the implementation cannot
            compute there.
    """
    if accelerator not in get_args(Accelerator):
        raise ValueError(f"accelerator must be auto, cpu or gpu; got {accelerator!r}")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if accelerator == "gpu" and available < devices:
        advice = "use --accelerator cpu" + (", or fewer --devices" if devices > 1 else "")
        raise ValueError(f"accelerator gpu must have {devices} GPU; torch can use {available} here: {advice}")
    if accelerator == "cpu" or available == 0 or (accelerator == "auto" and implementation == "native"):
        device = torch.device("cpu")
    else:
        device = torch.device("cuda", _local_rank() if devices > 1 else 0)
    try:
        require_implementation(implementation, device, torch.float32)
    except RuntimeError as missing:
        raise ValueError(str(missing)) from missing  # caused by the user's choice, not by a bug
    return device


def place(network: nn.Module, accelerator: str = "auto") -> torch.device:
    """Move a network to the device that an accelerator means for it, and return the device; raises as above."""
    implementation = network.config.implementation if isinstance(network, EMCapsNet) else "auto"
    device = resolve_device(accelerator, implementation=implementation)
    network.to(device)
    return device


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
