"""Times the operator against its reference and torch.compile of it: ``python benchmarks/bench.py``.

Runs the operator's tests first (``--skip-tests`` to leave them out), then every contender in turn, again and again, so
that all of them meet the same machine; prints a table and writes the record to ``benchmarks/results``. Rows of whole
training steps join ``CASES`` once they have a function that returns one step as a callable.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from matcaps.routing import available_implementations, conv_em_routing, native

ROOT = Path(__file__).resolve().parents[1]


class Layer(NamedTuple):
    """A convolutional routing, and the ratios that issue 3 asks for."""

    name: str
    children: int
    parents: int
    batch: int = 24
    size: int = 14
    kernel: int = 3
    stride: int = 2
    iterations: int = 3

    @property
    def vote_components(self) -> int:
        windows = ((self.size - self.kernel) // self.stride + 1) ** 2
        return self.batch * windows * self.kernel**2 * self.children * self.parents * 16

    @property
    def operations(self) -> tuple[int, int]:
        """Floating-point operations forward and backward, counted by the formula, whatever a kernel really does."""
        t = self.iterations
        return self.vote_components * (14 * t + 4 * (t - 1)), self.vote_components * (13 * t + 5 * (t - 1) + 39)


CASES = [Layer("8→16", 8, 16), Layer("32→32", 32, 32)]


def inputs_of(layer: Layer) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shape = layer.batch, layer.size, layer.size, layer.children
    inputs = [
        torch.randn(*shape, 4, 4),
        torch.rand(*shape),
        torch.randn(layer.kernel, layer.kernel, layer.children, layer.parents, 4, 4) * 0.3,
        torch.zeros(layer.parents),
        torch.zeros(layer.parents),
    ]
    return [x.requires_grad_() for x in inputs]


def step_of(layer: Layer, contender: str) -> Callable[[], tuple[float, float]]:
    """One forward and backward pass, as a function that returns the seconds of each."""
    inputs = inputs_of(layer)
    implementation = "native" if contender == "native" else "reference"

    def route(*inputs):
        schedule = [5.0e-4, 9.75e-4, 1.43e-3][: layer.iterations]
        return conv_em_routing(
            *inputs, stride=layer.stride, inverse_temperature=schedule, implementation=implementation
        )

    if contender == "compiled":
        route = torch.compile(route)

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        parents = route(*inputs)
        middle = time.perf_counter()
        torch.autograd.grad(parents, inputs, [torch.ones_like(x) for x in parents])
        return middle - start, time.perf_counter() - middle

    return step


def measure(layer: Layer, contenders: list[str], rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    """Seconds of every step by contender: each round gives each contender its turn."""
    steps = {name: step_of(layer, name) for name in contenders}
    for step in steps.values():
        step()
    found: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in steps.items():
            end = time.perf_counter() + seconds
            while True:  # a fast contender steps more often in its turn
                found[name].append(list(step()))
                if time.perf_counter() >= end:
                    break
    return found


def peak_memory(layer: Layer, contender: str) -> float:
    """MiB that two steps add to an idle process, in a process of their own."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import bench
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024
bench.inputs_of(bench.Layer({layer.name!r}, *{tuple(layer)[1:]!r}))
bench.step_of(bench.Layer("small", 2, 2, 1, 3), {contender!r})()
idle = status("VmRSS")
step = bench.step_of(bench.Layer({layer.name!r}, *{tuple(layer)[1:]!r}), {contender!r})
step(), step()
print(status("VmHWM") - idle)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def machine() -> dict[str, object]:
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, text=True)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "native": f"{native.LIBRARY.target}, threads of {native.LIBRARY.threading}"
        if native.LIBRARY
        else native.MISSING,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def summary(times: list[list[float]]) -> dict[str, float]:
    """Milliseconds: the medians of both passes and of their sum, and the quartiles of the sum."""
    total = sorted(sum(pair) * 1e3 for pair in times)
    return {
        "forward": statistics.median(pair[0] for pair in times) * 1e3,
        "backward": statistics.median(pair[1] for pair in times) * 1e3,
        "total": statistics.median(total),
        "quartile_1": total[len(total) // 4],
        "quartile_3": total[(3 * len(total)) // 4],
        "steps": len(total),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--skip-compile", action="store_true", help="leave torch.compile of the reference out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="a contender's turn in each round")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if not options.skip_tests:
        subprocess.run([sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "routing")], check=True, cwd=ROOT)

    contenders = [name for name in ("native", "reference") if name in available_implementations()]
    contenders += [] if options.skip_compile else ["compiled"]
    where, cases = machine(), []
    print(f"{where}\n")
    print(f"{'layer':8}{'contender':12}{'ms':>9}{'quartiles':>18}{'ratio':>8}{'peak MiB':>10}{'of FMA peak':>24}")
    for layer in CASES:
        peak = [native.LIBRARY.fma_peak(torch.get_num_threads())] if native.LIBRARY else [float("nan")]
        times = measure(layer, contenders, options.rounds, options.seconds)
        if native.LIBRARY:
            peak.append(native.LIBRARY.fma_peak(torch.get_num_threads()))
        rows = {name: summary(times[name]) for name in contenders}
        for name, row in rows.items():
            row["peak_mib"] = peak_memory(layer, name)
            row["ratio"] = row["total"] / rows[contenders[0]]["total"]
            forward, backward = layer.operations
            for kind, count in (("forward", forward), ("backward", backward)):
                row[f"{kind}_of_peak"] = count / (row[kind] * 1e-3) / max(peak)
            share = f"{row['forward_of_peak']:.0%} forward, {row['backward_of_peak']:.0%} back"
            quartiles = f"{row['quartile_1']:.1f} to {row['quartile_3']:.1f}"
            print(
                f"{layer.name:8}{name:12}{row['total']:9.1f}{quartiles:>18}{row['ratio']:8.1f}"
                f"{row['peak_mib']:10.0f}{share:>24}",
                flush=True,
            )
        cases.append({"layer": layer._asdict(), "fma_peak": max(peak), "rows": rows})
    options.output.mkdir(parents=True, exist_ok=True)
    name = str(where["date"]).replace(":", "").replace("+0000", "Z")
    path = options.output / f"operator-{name}.json"
    path.write_text(json.dumps({"machine": where, "cases": cases}, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{path}")


if __name__ == "__main__":
    main()
