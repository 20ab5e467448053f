"""What a process holds, measured from outside, over time."""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """What a process held at a moment.

    Attributes:
        seconds: since the beginning.
        memory: resident, in bytes.
        descriptors: open files and sockets.
        threads: of the process.
    """

    seconds: float
    memory: int
    descriptors: int
    threads: int


def sample(process: int, began: float) -> Sample:
    """What a process holds now; :exc:`ProcessLookupError` if it has ended."""
    try:
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":\t" in line
        )
        descriptors = len(os.listdir(f"/proc/{process}/fd"))
        return Sample(
            time.monotonic() - began, 1024 * int(status["VmRSS"].split()[0]), descriptors, int(status["Threads"])
        )
    except (OSError, KeyError) as error:
        raise ProcessLookupError(process) from error


def growth(values: Sequence[float]) -> float:
    """By what share the last fifth of some values lies above their second fifth; the first is for warming up."""
    fifth = max(1, len(values) // 5)
    early, late = statistics.median(values[fifth : 2 * fifth]), statistics.median(values[-fifth:])
    return late / early - 1


def table(samples: Sequence[Sample], rows: int = 12) -> list[str]:
    """Some of the samples, evenly spread, as lines."""
    chosen = samples[:: max(1, len(samples) // rows)]
    return ["  minute  memory MB  descriptors  threads"] + [
        f"  {one.seconds / 60:6.1f}  {one.memory / 1e6:9.1f}  {one.descriptors:11}  {one.threads:7}" for one in chosen
    ]
