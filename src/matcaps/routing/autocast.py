"""Routing computes in the dtype that it chose: autocast has no effect inside."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Turn autocast off, on devices that have it; others, such as the meta device, would make torch raise."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
