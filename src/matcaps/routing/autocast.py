"""Routing computes in the dtype that it chose: autocast does not reach inside."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Turn autocast off, on devices that have it; the meta device, for one, has not, and torch would raise."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
