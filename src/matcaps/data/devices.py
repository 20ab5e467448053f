"""Between host and device, without one waiting for the other."""

import torch
from torch import Tensor

RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that the stored images of one part of the data may take, to stay there."""


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host on a device. A GPU gets them through pinned memory, and the host does not wait for it."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def fits(num_bytes: int, device: torch.device) -> bool:
    """Whether so many bytes may stay on a device: :data:`RESIDENT_SHARE` of a GPU's free memory; elsewhere always."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= RESIDENT_SHARE * free
