"""Check that a training's numbers are finite, some steps late, so that the CPU never waits for the GPU."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST = 4
"""Steps that may be unchecked. Their images are kept, to find the origin of the first number that is not finite."""


@dataclass(frozen=True)
class Broken:
    """A step with a loss or gradient that is not finite.

    Attributes:
        step: optimiser steps before it.
        images: the step's images.
        loss: its value.
        parameter: number of the first gradient that is not finite; None where each is.
    """

    step: int
    images: Tensor
    loss: float
    parameter: int | None


class LateCheck:
    """Check each step's loss and gradients without waiting for them.

    A number that is not finite stops the optimiser at once, on the device (:attr:`found_inf`), from that step on:
    the weights do not change. The CPU learns of it a few steps later.

    Attributes:
        found_inf: a scalar, float32, 1 from the first broken step on; a fused optimiser of torch that has it as its
            attribute ``found_inf`` then changes nothing.
    """

    def __init__(self, device: torch.device):
        self.found_inf = torch.zeros((), device=device)
        self._unchecked: deque[tuple[int, Tensor, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, images: Tensor, loss: Tensor, norm: Tensor, norms: Tensor) -> Broken | None:
        """Add a step; return an earlier step with a number that is not finite, if one is known by now.

        Args:
            step: optimiser steps before it.
            images: the step's images.
            loss: a scalar.
            norm: a scalar, of all gradients together.
            norms: ``[parameters]``, of each gradient.
        """
        numbers = torch.cat([torch.stack([loss.detach().float(), norm.detach().float()]), norms.detach().float()])
        self.found_inf.copy_(torch.maximum(self.found_inf, (~numbers[:2].isfinite().all()).float()))
        event = None
        if numbers.is_cuda:
            numbers = numbers.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._unchecked.append((step, images, numbers, event))
        while self._unchecked and (len(self._unchecked) > _MOST or _is_done(self._unchecked[0][3])):
            broken = self._next()
            if broken is not None:
                return broken
        return None

    def finish(self) -> Broken | None:
        """Wait for the unchecked steps, and return the first step with a number that is not finite."""
        while self._unchecked:
            broken = self._next()
            if broken is not None:
                return broken
        return None

    def _next(self) -> Broken | None:
        step, images, numbers, event = self._unchecked.popleft()
        if event is not None:
            event.synchronize()
        if numbers[:2].isfinite().all():
            return None
        broken = (~numbers[2:].isfinite()).nonzero().flatten().tolist()
        return Broken(step, images, float(numbers[0]), broken[0] if broken else None)


def _is_done(event: torch.cuda.Event | None) -> bool:
    return event is None or event.query()
