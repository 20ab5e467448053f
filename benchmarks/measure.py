"""How the benchmarks measure: contenders in turn, medians with quartiles, peak memory in processes of their own."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Layer, Network, Routing, Step
from matcaps.routing import native

ROOT = Path(__file__).resolve().parents[1]


def interleave(steps: dict[str, Step], rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    """Seconds of every step by contender: each round gives each contender its turn, so that all meet one machine."""
    for step in steps.values():
        step()
    found: dict[str, list[list[float]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            end = time.perf_counter() + seconds
            while True:  # a fast contender steps more often in its turn
                found[name].append(list(step()))
                if time.perf_counter() >= end:
                    break
    return found


def summary(times: list[list[float]]) -> dict[str, float]:
    """Milliseconds: the medians of the parts and of their sum, and the quartiles of the sum."""
    total = sorted(sum(parts) * 1e3 for parts in times)
    row = {
        "total": statistics.median(total),
        "quartile_1": total[len(total) // 4],
        "quartile_3": total[(3 * len(total)) // 4],
        "steps": len(total),
    }
    if len(times[0]) == 2:
        row["forward"] = statistics.median(parts[0] for parts in times) * 1e3
        row["backward"] = statistics.median(parts[1] for parts in times) * 1e3
    return row


def fma_peak() -> float:
    """The rate of nothing but fused multiply-adds on torch's number of threads, or NaN without the compiled core."""
    return native.LIBRARY.fma_peak(torch.get_num_threads()) if native.LIBRARY else float("nan")


STATUS = Path("/proc/self/status")


def process_mib(name: str) -> float | None:
    """MiB that this process uses ("VmRSS") or has used at most ("VmHWM"); None where the system does not tell."""
    if not STATUS.exists():
        return None
    return next(
        (int(line.split()[1]) / 1024 for line in STATUS.read_text().splitlines() if line.startswith(name)), None
    )


def print_peak_memory(case: Layer | Network | Routing, contender: str) -> None:
    """Print the MiB that two steps add to a process that has already done a small step of the same kind."""
    if isinstance(case, Layer):
        Layer("small", 2, 2, 1, 3).step(contender)()
        case.inputs()
    elif isinstance(case, Routing):
        case._replace(batch=1).step(contender)()
    else:
        Network("quickstart", 1).step(contender)()
    idle = process_mib("VmRSS")
    step = case.step(contender)
    step(), step()
    peak = process_mib("VmHWM")
    assert idle is not None
    assert peak is not None
    print(peak - idle)


def peak_memory(case: Layer | Network | Routing, contender: str) -> float | None:
    """What :func:`print_peak_memory` says in a process of its own; None where the system does not tell."""
    if not STATUS.exists():
        return None
    code = (
        "from benchmarks.cases import Layer, Network, Routing\nfrom benchmarks.measure import print_peak_memory\n"
        f"print_peak_memory({type(case).__name__}(*{tuple(case)!r}), {contender!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"the measurement of {contender}'s memory failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def with_threads(counts: Iterable[int], step: Step, rounds: int, seconds: float) -> dict[int, dict[str, float]]:
    """The same step at several numbers of threads, in turn."""
    before = torch.get_num_threads()

    def at(count: int) -> Step:
        def turn() -> tuple[float, ...]:
            if torch.get_num_threads() != count:
                torch.set_num_threads(count)
                step()  # the first step after a change wakes or ends threads
            return step()

        return turn

    times = interleave({str(count): at(count) for count in counts}, rounds, seconds)
    torch.set_num_threads(before)
    return {int(count): summary(found) for count, found in times.items()}


def machine() -> dict[str, Any]:
    """Processor, threads, versions and commit, for the record."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        family = f", family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else ""
        cpu = fields.get("model name", cpu) + family
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, text=True)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "native": f"{native.LIBRARY.target}, threads of {native.LIBRARY.threading}"
        if native.LIBRARY
        else native.MISSING,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def write_record(kind: str, record: dict[str, Any], folder: Path) -> Path:
    """Add a record to the stored history: a file of its own, named after the kind and the date in ``machine``."""
    folder.mkdir(parents=True, exist_ok=True)
    date = str(record["machine"]["date"]).replace(":", "").replace("+0000", "Z")
    path = folder / f"{kind}-{date}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path
