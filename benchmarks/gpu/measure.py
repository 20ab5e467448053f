"""How the GPU's benchmarks measure: device events, CUDA graphs, memory; on the CPU, to rehearse, a clock."""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.layers import Launched, recorder
from benchmarks.measure import machine
from matcaps.routing.cuda_launch import Arguments, Launch

Work = Callable[[], Any]


def describe_gpu(device: torch.device) -> dict[str, Any]:
    """The machine, and the GPU with what drives it."""
    try:
        found = machine()
    except FileNotFoundError:  # no git, on a bare machine
        found = {"torch": torch.__version__, "date": time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime())}
    found["commit"] = os.environ.get("MATCAPS_COMMIT") or found.get("commit")
    if device.type != "cuda":
        return {**found, "gpu": None}
    from matcaps.routing.cuda_program import nvrtc_version

    properties = torch.cuda.get_device_properties(device)
    return {
        **found,
        "gpu": properties.name,
        "gpu_memory_mib": properties.total_memory // 2**20,
        "processors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "nvrtc": nvrtc_version(),
    }


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Milliseconds of the device's time between two places of its queue."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._events: list[Any] = []

    def mark(self) -> None:
        """Note where the queue is now; the first time is the start, the second the stop."""
        if self._is_cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
        else:
            self._events.append(time.perf_counter())

    def read(self) -> float:
        """Wait for the stop and tell the time."""
        start, stop = self._events
        if not self._is_cuda:
            return (stop - start) * 1e3
        stop.synchronize()
        return start.elapsed_time(stop)


def spread(times: list[float]) -> dict[str, float]:
    """Median, quartiles, number."""
    times = sorted(times)
    return {
        "median": statistics.median(times),
        "quartile_1": times[len(times) // 4],
        "quartile_3": times[(3 * len(times)) // 4],
        "calls": len(times),
    }


def timed(work: Work, seconds: float, device: torch.device, least: int = 10) -> dict[str, float]:
    """Milliseconds of device time of each call, the device idle before it."""
    for _ in range(3):
        work()
    wait(device)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < 2000):
        watch = Stopwatch(device)
        watch.mark()
        work()
        watch.mark()
        times.append(watch.read())
    return spread(times)


def paced(work: Work, seconds: float, device: torch.device, least: int = 10) -> float:
    """Milliseconds a call where the host runs ahead as it can: what Python and launches cost is in it."""
    for _ in range(3):
        work()
    wait(device)
    start, calls = time.perf_counter(), 0
    while calls < least or time.perf_counter() - start < seconds:
        work()
        calls += 1
    wait(device)
    return (time.perf_counter() - start) / calls * 1e3


def peak_mib(work: Work, device: torch.device) -> float | None:
    """MiB that the work takes beyond what was there before, the second time; None on the CPU, which does not tell."""
    work()
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = work()
    torch.cuda.synchronize()
    del result
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def in_graph(work: Work, device: torch.device) -> Work:
    """The work as one CUDA graph: what is timed is then the device, not Python. On the CPU the work itself."""
    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Any:
        graph.replay()
        return result  # kept: the graph writes into it

    return replay


class KernelTimes:
    """Times every launch.

    Args:
        launch: what starts a kernel.
        device: where.
    """

    def __init__(self, launch: Launch, device: torch.device) -> None:
        self._launch = launch
        self._device = device
        self._found: list[Launched] = []
        self._watches: list[Stopwatch] = []

    def launch(self, name: str, arguments: Arguments, grid: tuple[int, int, int], threads: int, shared: int) -> None:
        """Start a kernel between two events."""
        watch = Stopwatch(self._device)
        watch.mark()
        recorder(self._found, self._launch)(name, arguments, grid, threads, shared)
        watch.mark()
        self._watches.append(watch)

    def read(self) -> list[tuple[Launched, float]]:
        """What was launched, and the milliseconds of each."""
        return [(one, watch.read()) for one, watch in zip(self._found, self._watches, strict=True)]


def update_record(path: Path, **parts: Any) -> dict[str, Any]:
    """Put parts into a record on disk, which is begun if there is none; a visit that is cut short keeps what it had."""
    record = json.loads(path.read_text()) if path.exists() else {}
    record.update(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    new.replace(path)
    return record
