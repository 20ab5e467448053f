"""Times the GPU path: ``python -m benchmarks.bench_gpu``, or ``make bench-gpu``, on a machine with an NVIDIA GPU.

Runs its tests first (``--skip-tests`` to leave them out). Then ConvCaps1 of ``paper`` and of ``paper-small``, forward
and backward, against the times that ``counts.py`` implies, the reference and torch.compile of the reference; a whole
training step of ``paper-small`` in a CUDA graph; and an epoch of as many images as smallNORB has. Times are of device
events: medians with quartiles. Adds a record to ``benchmarks/results``.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it finds its own folder only

import matcaps
from benchmarks.cases import Layer
from benchmarks.counts import CASES, as_record, counts_of
from benchmarks.measure import ROOT, machine, write_record
from matcaps.losses import spread_loss
from matcaps.routing import conv_em_routing

PARTS = ("layers", "step", "epoch")
IMAGES = 24300
"""Pairs in smallNORB's training set."""

GOALS = {"step_ms": 2.5, "epoch_s": 1.0, "times_of_limit": 3.0, "ratio_to_compiled": 20.0, "memory_ratio": 40.0}
"""What the project wants of an H100."""


def describe_gpu() -> dict[str, Any]:
    """The machine, and the GPU with what drives it."""
    import triton

    try:
        found = machine()
    except FileNotFoundError:  # no git, on a bare machine
        found = {"torch": torch.__version__, "date": time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime())}
    properties = torch.cuda.get_device_properties(0)
    return {
        **found,
        "commit": os.environ.get("MATCAPS_COMMIT") or found.get("commit"),
        "gpu": properties.name,
        "gpu_memory_mib": properties.total_memory // 2**20,
        "processors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
    }


def timed(work: Callable[[], Any], seconds: float, least: int = 10) -> dict[str, float]:
    """Milliseconds of device time of each call: median, quartiles, number of calls."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < 2000):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    times.sort()
    return {
        "median": statistics.median(times),
        "quartile_1": times[len(times) // 4],
        "quartile_3": times[(3 * len(times)) // 4],
        "calls": len(times),
    }


def peak_mib(work: Callable[[], Any]) -> float:
    """MiB that the work takes beyond what was there before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = work()
    torch.cuda.synchronize()
    del result
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def in_graph(work: Callable[[], Any]) -> Callable[[], Any]:
    """The work as one CUDA graph: what is timed is then the device, not Python."""
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


def layer_work(layer: Layer, contender: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The forward pass as in training, and both passes."""
    inputs = [tensor.detach().cuda().requires_grad_() for tensor in layer.inputs()]
    schedule = torch.tensor([0.01 * (1 - 0.95**t) for t in range(1, layer.iterations + 1)], device="cuda")
    implementation = "triton" if contender == "triton" else "reference"

    def route(*inputs):
        return conv_em_routing(
            *inputs, stride=layer.stride, inverse_temperature=schedule, implementation=implementation
        )

    if contender == "compiled":
        route = torch.compile(route, dynamic=False)

    def forward():
        return route(*inputs)

    def both():
        parents = route(*inputs)
        return torch.autograd.grad(parents, inputs, [torch.ones_like(part) for part in parents])

    return forward, both


def bench_layer(layer: Layer, contender: str, seconds: float) -> dict[str, Any]:
    """Forward, and backward as the difference of both passes and forward; in a CUDA graph for our own."""
    forward, both = layer_work(layer, contender)
    row: dict[str, Any] = {"peak_mib": peak_mib(both)}
    if contender == "triton":
        row["eager"] = timed(both, seconds)
        forward, both = in_graph(forward), in_graph(both)
    row["forward"], row["both"] = timed(forward, seconds), timed(both, seconds)
    row["backward_median"] = row["both"]["median"] - row["forward"]["median"]
    return row


def bench_layers(options: argparse.Namespace) -> list[dict[str, Any]]:
    contenders = ["triton", *([] if options.skip_compile else ["compiled"]), "reference"]
    print(
        f"{'layer':14}{'contender':11}{'batch':>6}{'forward ms':>12}{'backward ms':>12}"
        f"{'quartiles of both':>20}{'peak MiB':>10}"
    )
    cases = []
    for layer in CASES:
        rows: dict[str, Any] = {}
        for contender in contenders:
            used = layer
            while True:  # what does not fit into memory is timed at a smaller batch
                try:
                    rows[contender] = {**bench_layer(used, contender, options.seconds), "batch": used.batch}
                    break
                except torch.cuda.OutOfMemoryError:
                    torch.cuda.empty_cache()
                    used = used._replace(batch=used.batch // 2)
                except Exception as error:
                    rows[contender] = {"error": repr(error)[:500]}
                    print(f"{layer.name:14}{contender:11} failed: {error!r:.200}", flush=True)
                    break
            torch.compiler.reset()
            torch.cuda.empty_cache()
            if "error" in rows[contender]:
                continue
            row, both = rows[contender], rows[contender]["both"]
            print(
                f"{layer.name:14}{contender:11}{row['batch']:6}{row['forward']['median']:12.3f}"
                f"{row['backward_median']:12.3f}{both['quartile_1']:11.3f} to {both['quartile_3']:<7.3f}"
                f"{row['peak_mib']:9.0f}",
                flush=True,
            )
        limits = as_record(layer)
        summary = compare(layer, rows)
        print(f"{layer.name:14}{summary}", flush=True)
        cases.append({"layer": layer._asdict(), "limits": limits, "rows": rows, "summary": summary})
    return cases


def compare(layer: Layer, rows: dict[str, Any]) -> dict[str, float]:
    """Our times over those the counts imply, and others' over ours, an image."""
    ours = rows["triton"]
    if "error" in ours:
        return {}
    forward, backward = counts_of(layer)
    found = {
        "forward_times_of_limit": ours["forward"]["median"] / max(forward.compute_ms, forward.memory_ms),
        "backward_times_of_limit": ours["backward_median"] / max(backward.compute_ms, backward.memory_ms),
    }
    for name, row in rows.items():
        if name != "triton" and "error" not in row:
            share = ours["batch"] / row["batch"]
            found[f"ratio_to_{name}"] = row["both"]["median"] * share / ours["both"]["median"]
            found[f"memory_ratio_to_{name}"] = row["peak_mib"] * share / ours["peak_mib"]
    return {name: round(value, 2) for name, value in found.items()}


def training_step(preset: str, batch: int) -> tuple[Callable[[], Any], torch.Tensor, torch.Tensor]:
    """A step (forward, spread loss, backward, Adam) as a CUDA graph, and the images and labels that it reads."""
    torch.manual_seed(0)
    network = matcaps.create_model(preset).cuda()
    images = torch.randn(batch, 2, 32, 32, device="cuda")
    labels = torch.randint(5, (batch,), device="cuda")
    network.calibrate(images[:8])  # type: ignore[operator]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, capturable=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = spread_loss(network(images).activations, labels, margin=0.2)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return in_graph(step), images, labels


def bench_step(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Whole training steps in CUDA graphs."""
    found = []
    for preset, batch in (("paper-small", 128), ("paper", 128), ("paper-small", 1)):
        replay, _, _ = training_step(preset, batch)
        row = {"preset": preset, "batch": batch, **timed(replay, options.seconds)}
        goal = f", goal {GOALS['step_ms']}" if (preset, batch) == ("paper-small", 128) else ""
        print(
            f"\ntraining step, {preset}, batch {batch}: {row['median']:.3f} ms "
            f"({row['quartile_1']:.3f} to {row['quartile_3']:.3f}{goal})",
            flush=True,
        )
        found.append(row)
    return found


def bench_epoch(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs over made-up images that lie on the GPU as bytes: shuffled, gathered, made floats, trained on."""
    replay, images, labels = training_step("paper-small", 128)
    data = torch.randint(256, (IMAGES, 2, 32, 32), dtype=torch.uint8, device="cuda")
    classes = torch.randint(5, (IMAGES,), device="cuda")
    times = []
    for _ in range(options.epochs + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        order = torch.randperm(IMAGES, device="cuda")
        order = torch.cat([order, order[: -IMAGES % 128]])  # the last batch is filled up
        for chosen in order.split(128):
            images.copy_(data[chosen]).div_(255)
            labels.copy_(classes[chosen])
            replay()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    times = sorted(times[1:])
    row = {"median": statistics.median(times), "least": times[0], "most": times[-1], "epochs": len(times)}
    print(
        f"\nepoch of {IMAGES:,} images, paper-small, batch 128: {row['median']:.3f} s "
        f"({row['least']:.3f} to {row['most']:.3f}, goal {GOALS['epoch_s']})",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--skip-compile", action="store_true", help="leave torch.compile of the reference out")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each thing that is timed")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, action="append", help="some of the parts; may be repeated")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench_gpu needs an NVIDIA GPU that torch can use; make test-triton tests without one")
    if not options.skip_tests:
        tests = [str(path) for path in sorted((ROOT / "tests" / "routing").glob("test_triton_*.py"))]
        tests.append(str(ROOT / "tests" / "routing" / "test_laws.py"))
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-k", "triton", *tests], check=True, cwd=ROOT)
    record: dict[str, Any] = {"machine": describe_gpu(), "goals": GOALS}
    print(f"{record['machine']}\n")
    parts = {"layers": bench_layers, "step": bench_step, "epoch": bench_epoch}
    for name in options.only or PARTS:
        record[name] = parts[name](options)
        path = write_record("bench-gpu", record, options.output)  # after each part: a visit may be cut short
    print(f"\n{path}")


if __name__ == "__main__":
    main()
