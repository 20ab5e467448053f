"""One contender in a process of its own: ``python -m benchmarks.cpu.peers.worker``, started by ``compare.py``.

Reads requests as JSON lines and answers each with one JSON line:

- ``{"do": "check", "contender": ..., "checkout": ..., "configuration": ..., "batch": ..., "threads": ...}`` builds the
  network and takes the batch forward and back once: the number of parameters, those without a gradient, and seconds;
  or ``{"cannot": why}`` where the peer has no such network;
- ``{"do": "step"}`` takes one whole training step: seconds, loss, and peak memory until now;
- ``{"do": "rest"}`` gives memory back to the system, at the end of a turn.

Anything else that goes wrong ends the process with its traceback; whoever started it shows that.
"""

import contextlib
import ctypes
import gc
import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu.peers import CONTENDERS
from benchmarks.cpu.peers.common import CONFIGURATIONS, CannotBuildError, Configuration
from benchmarks.measure import process_mib
from matcaps.losses import spread_loss

MARGIN = 0.9

# So small that the hundredth step of a fast contender meets the same network as the third of a slow one.
LEARNING_RATE = 1e-5


class Contender:
    """A network with a batch and an optimiser."""

    def __init__(self, contender: str, checkout: Path | None, configuration: Configuration, batch: int):
        torch.manual_seed(0)
        self.network = CONTENDERS[contender].build(checkout, configuration, batch).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        generator = torch.Generator().manual_seed(0)  # the same images for all, whatever the network drew
        shape = batch, configuration.in_channels, configuration.image_size, configuration.image_size
        self.images = torch.randn(shape, generator=generator)
        self.labels = torch.randint(configuration.num_classes, (batch,), generator=generator)
        self.expected = [batch, configuration.num_classes]

    def check(self) -> dict[str, Any]:
        start = time.perf_counter()
        scores = self.network(self.images)
        if list(scores.shape) != self.expected:
            raise ValueError(f"class scores must have shape {self.expected}; got {list(scores.shape)}")
        if not scores.isfinite().all():
            raise ValueError("class scores are not finite")
        spread_loss(scores, self.labels, MARGIN).backward()
        seconds = time.perf_counter() - start
        parameters = dict(self.network.named_parameters())
        broken = [name for name, x in parameters.items() if x.grad is not None and not x.grad.isfinite().all()]
        if broken:
            raise ValueError(f"gradients are not finite: {', '.join(broken)}")
        return {
            "seconds": seconds,
            "parameters": sum(x.numel() for x in parameters.values()),
            "without_gradient": [name for name, x in parameters.items() if x.grad is None or not x.grad.any()],
        }

    def step(self) -> tuple[float, float]:
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss = spread_loss(self.network(self.images), self.labels, MARGIN)
        loss.backward()
        self.optimizer.step()
        return time.perf_counter() - start, loss.item()


class Memory:
    """MiB that this process has used at most beyond what it used when this was made; None where Linux is not."""

    def __init__(self) -> None:
        rest()
        # The peak of the imports does not count. Where this is not allowed, a training step's is far above it anyway.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.idle = process_mib("VmRSS")

    def peak(self) -> float | None:
        highest = process_mib("VmHWM")
        return None if highest is None or self.idle is None else highest - self.idle


def rest() -> None:
    """Return freed memory to the system, so that the next contender has it."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, other C libraries do not
        if trim:
            trim(0)


def start(request: dict[str, Any]) -> tuple[Contender, Memory, dict[str, Any]]:
    if request["threads"]:
        torch.set_num_threads(request["threads"])
    configuration, checkout = CONFIGURATIONS[request["configuration"]], request["checkout"]
    checkout = Path(checkout) if checkout else None
    # The tiny network loads whatever the contender loads only once, so that it counts as idle memory.
    tiny = replace(configuration, stem_channels=2, primary_capsules=2, conv_capsules1=2, conv_capsules2=2)
    Contender(request["contender"], checkout, tiny, min(2, request["batch"])).step()
    memory = Memory()
    contender = Contender(request["contender"], checkout, configuration, request["batch"])
    return contender, memory, contender.check()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a peer prints must not come between the answers
    contender = memory = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if request["do"] == "check":
            try:
                contender, memory, answer = start(request)
            except CannotBuildError as reason:
                answer = {"cannot": str(reason)}
        elif request["do"] == "step" and contender and memory:
            seconds, loss = contender.step()
            answer = {"seconds": seconds, "loss": loss if math.isfinite(loss) else None, "peak_mib": memory.peak()}
        elif request["do"] == "rest":
            rest()
        else:
            raise ValueError(f"no such request, or no network yet: {line}")
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
