"""Copies from the CPU to a device without waiting."""

import torch
from torch import Tensor

RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that the stored images of one part of the data may take, to stay there."""


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy values from the CPU to a device; to a GPU through pinned memory, without waiting."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def fits(num_bytes: int, device: torch.device) -> bool:
    """Whether this many bytes may stay on a device: on a GPU up to :data:`RESIDENT_SHARE` of its free memory."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= RESIDENT_SHARE * free
