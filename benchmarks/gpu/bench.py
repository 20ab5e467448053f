"""Times the GPU path: ``python -m benchmarks.gpu.bench``, or ``make bench-gpu``, on a machine with an NVIDIA GPU.

Runs its tests first (``--skip-tests`` to leave them out). Then, each a part that ``--only`` chooses:

- start: a process's first training step, with an empty cache of compiled kernels and with a full one;
- kernels: every launch of every routed layer of ``paper`` and ``paper-small`` between two events, with registers,
  spills and occupancy, beside what ``counts.py`` expects;
- layers: ConvCaps1 of both, forward and backward, in a CUDA graph, against the limits and the goals;
- epoch: as many pairs as smallNORB has, through the product's loader with its augmentation on the GPU;
- step: a whole training step, eager and in a CUDA graph, and by kernel;
- compared: the same layers by the reference and by torch.compile of it, which takes long, hence last.

Adds a record to ``benchmarks/results``, or to the file that ``--record`` names. ``--device cpu`` rehearses all of it
with tiny sizes where there is no GPU: its figures mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

import matcaps
from benchmarks.gpu.counts import expected_of, limits_of
from benchmarks.gpu.layers import GOALS_MS, LAYERS, Launched, RoutedLayer, both_passes, plan_on, public_passes
from benchmarks.gpu.measure import (
    KernelTimes,
    describe_gpu,
    in_graph,
    paced,
    peak_mib,
    spread,
    timed,
    update_record,
    wait,
)
from benchmarks.measure import ROOT
from matcaps.data import ImageDataset, Transform, make_loader
from matcaps.losses import spread_loss
from matcaps.training.recipes import recipe_settings

PAIRS = 24300
"""Stereo pairs in smallNORB's training set."""

GOALS = {
    "step_ms": 2.5, "epoch_s": 1.0, "first_step_empty_s": 10.0, "first_step_full_s": 1.0,
    "ratio_to_compiled": 20.0, "memory_ratio": 40.0,
}  # fmt: skip
"""What the project wants of an H100; of layers: ``layers.GOALS_MS``."""

STEPS = (("paper-small", 128), ("paper", 128), ("paper-small", 1))
EPOCH = "paper-small"
TINY = RoutedLayer("paper-small ConvCaps1", 5, 2, 4, 3, 2, batch=1)
"""What a rehearsal on the CPU times in place of each layer."""


def chosen_layers(options: argparse.Namespace) -> list[RoutedLayer]:
    return [TINY] if options.device.type == "cpu" else list(LAYERS.values())


def bench_start(options: argparse.Namespace) -> list[dict[str, Any]]:
    """First steps, each in a new process: with nothing compiled, then with all of it in the cache."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "full"):
            command = [sys.executable, "-m", "benchmarks.gpu.first_step", "paper-small", options.device.type]
            # the driver's own cache is left out of both
            environment = {**os.environ, "MATCAPS_CUDA_CACHE": folder, "CUDA_CACHE_DISABLE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
            if done.returncode:
                raise RuntimeError(f"first_step failed: {done.stderr[-1000:]}")
            row = {"cache": cache, **json.loads(done.stdout.splitlines()[-1])}
            print(
                f"start, paper-small, cache {cache}: import {row['import']:.2f} s, wake {row['wake']:.2f} s, first "
                f"step {row['first_step']:.2f} s (goal {GOALS[f'first_step_{cache}_s']:g}), second "
                f"{row['second_step']:.3f} s",
                flush=True,
            )
            rows.append(row)
    return rows


def program_of(layer: RoutedLayer, device: torch.device) -> Any:
    """The compiled kernels of a layer; in a rehearsal those of the tests' emulator."""
    plan = plan_on(layer, device)
    if device.type == "cuda":
        from matcaps.routing.cuda_program import program_for

        return program_for(plan.shape, plan.cut, device)
    from tests.support.cuda import Emulator

    with tempfile.TemporaryDirectory() as folder:  # a library that is loaded needs its file no more
        return Emulator(Path(folder))(plan.shape, plan.cut)


def resources_of(program: Any, one: Launched) -> dict[str, int]:
    """Registers and spills of a kernel on the GPU at hand, and how many of its blocks and warps a processor holds."""
    from cuda.bindings import driver

    function = program.function(one.kernel, one.shared)
    status, blocks = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, one.threads, one.shared)
    if int(status) != 0:
        raise RuntimeError(f"asking for the occupancy of {one.kernel} failed: {status}")
    return {**program.resources(one.kernel), "blocks": int(blocks), "warps": int(blocks) * one.threads // 32}


def bench_kernels(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every launch of every layer."""
    rows: list[dict[str, Any]] = []
    print(
        f"{'layer':23}{'launch':20}{'ms':>8}{'quartiles':>17}{'expected':>9}{'regs':>6}{'spilled':>8}{'blocks':>7}"
        f"{'warps':>6}{'shared':>8}  grid"
    )
    for layer in chosen_layers(options):
        program = program_of(layer, options.device)
        inputs = layer.inputs(options.device)
        found: dict[str, tuple[Launched, list[float]]] = {}
        for turn in range(options.turns + 2):
            times = KernelTimes(program.launch, options.device)
            both_passes(plan_on(layer, options.device), inputs, times.launch)
            wait(options.device)
            for one, milliseconds in times.read():
                if turn > 1:
                    found.setdefault(one.name, (one, []))[1].append(milliseconds)
        expected = expected_of(layer)
        for name, (one, milliseconds) in found.items():
            resources = resources_of(program, one) if options.device.type == "cuda" else {}
            row = {
                "layer": layer.name, "launch": name, "kernel": one.kernel, "is_forward": one.is_forward,
                **spread(milliseconds), "expected_ms": expected.get(name), **resources,
                "grid": one.grid, "threads": one.threads, "shared": one.shared,
            }  # fmt: skip
            print(show_kernel(row), flush=True)
            rows.append(row)
        for is_forward, word in ((True, "forward"), (False, "backward")):
            total = sum(row["median"] for row in rows if row["layer"] == layer.name and row["is_forward"] is is_forward)
            print(f"{layer.name:23}{'all, ' + word:20}{total:8.3f}", flush=True)
        options.save(rows)
    return rows


def show_kernel(row: dict[str, Any]) -> str:
    """A launch as a line."""
    expected = "" if row["expected_ms"] is None else f"{row['expected_ms']:.3f}"
    taken = "".join(f"{row.get(name, ''):>{width}}" for name, width in (
        ("registers", 6), ("spilled", 8), ("blocks", 7), ("warps", 6), ("shared", 8)
    ))  # fmt: skip
    times = f"{row['median']:8.3f}{quartiles(row):>17}{expected:>9}"
    return f"{row['layer']:23}{row['launch']:20}{times}{taken}  {row['grid']}"


def bench_layer(layer: RoutedLayer, contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Forward, and backward as the difference of both passes and forward; in a CUDA graph for our own."""
    device = options.device
    forward, both = public_passes(layer, contender, device)
    row: dict[str, Any] = {"batch": layer.batch, "peak_mib": peak_mib(both, device)}
    if contender in ("cuda", "auto"):
        row["eager"] = timed(both, options.seconds / 2, device)
        forward, both = in_graph(forward, device), in_graph(both, device)
    row["forward"], row["both"] = timed(forward, options.seconds, device), timed(both, options.seconds, device)
    row["backward_median"] = row["both"]["median"] - row["forward"]["median"]
    return row


def show_layer(name: str, contender: str, row: dict[str, Any]) -> str:
    """A layer's times as a line."""
    return (
        f"{name}, {contender}, batch {row['batch']}: forward {row['forward']['median']:.3f} ms, backward "
        f"{row['backward_median']:.3f} ms, both {quartiles(row['both'])} ms{peak(row)}"
    )


def quartiles(row: dict[str, float]) -> str:
    return f"{row['quartile_1']:.3f} to {row['quartile_3']:.3f}"


def peak(row: dict[str, Any]) -> str:
    return "" if row["peak_mib"] is None else f", {row['peak_mib']:.0f} MiB"


def first_layers(options: argparse.Namespace) -> list[RoutedLayer]:
    return [layer for layer in chosen_layers(options) if layer.name.endswith("ConvCaps1")]


def bench_layers(options: argparse.Namespace) -> list[dict[str, Any]]:
    """ConvCaps1 of both presets by our kernels, in a CUDA graph."""
    rows = []
    for layer in first_layers(options):
        row = {"layer": layer.name, "limits": limits_of(layer), **bench_layer(layer, "auto", options)}
        print(show_layer(layer.name, "auto", row), flush=True)
        for name, value in (("forward", row["forward"]["median"]), ("backward", row["backward_median"])):
            limit, goals = row["limits"][name]["limit_ms"], GOALS_MS.get(layer.name)
            goal = f", goal {goals[name == 'backward']:.2f} ms" if goals else ""
            print(f"    {name}: {value / limit:.2f} times the limit of arithmetic, {limit:.3f} ms{goal}", flush=True)
        rows.append(row)
    return rows


class Step:
    """A training step (forward, spread loss, backward, Adam), and the images and labels that it reads."""

    def __init__(self, preset: str, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.network = matcaps.create_model(preset).to(device)
        self.images = torch.randn(batch, 2, 32, 32, device=device)
        self.labels = torch.randint(5, (batch,), device=device)
        self.network.calibrate(self.images[:8])  # type: ignore[operator]
        options: dict[str, Any] = {"capturable": True, "fused": True} if device.type == "cuda" else {}
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, **options)

    def on(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A step on these; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = spread_loss(self.network(images).activations, labels, margin=0.2)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def __call__(self) -> torch.Tensor:
        return self.on(self.images, self.labels)


def bench_step(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Whole training steps, eager and in CUDA graphs, and where an eager one's time on the device goes."""
    rows: list[dict[str, Any]] = []
    profiled: list[tuple[dict[str, Any], Step]] = []
    for preset, batch in [("paper-small", 2)] if options.device.type == "cpu" else STEPS:
        step = Step(preset, batch, options.device)
        row: dict[str, Any] = {"preset": preset, "batch": batch, "peak_mib": peak_mib(step, options.device)}
        row["eager_ms"] = paced(step, options.seconds, options.device)
        row["graph"] = timed(in_graph(step, options.device), options.seconds, options.device)
        goal = f", goal {GOALS['step_ms']}" if (preset, batch) == ("paper-small", 128) else ""
        print(
            f"training step, {preset}, batch {batch}: eager {row['eager_ms']:.2f} ms, in a CUDA graph "
            f"{row['graph']['median']:.3f} ms ({quartiles(row['graph'])}{goal}){peak(row)}",
            flush=True,
        )
        rows.append(row)
        options.save(rows)
        if options.device.type == "cuda" and batch > 1:
            profiled.append((row, step))
    for row, step in profiled:  # last: the profiler slows what comes after it
        row["kernels"] = kernels_in(step)
        print(f"a step of {row['preset']}, batch {row['batch']}, by kernel:")
        for kernel in row["kernels"][:12]:
            print(f"    {kernel['ms']:7.3f} ms {kernel['calls']:5.1f} x {kernel['name']:.90}", flush=True)
    return rows


def kernels_in(step: Callable[[], Any], steps: int = 5) -> list[dict[str, Any]]:
    """Milliseconds on the device and calls of each kernel in a step, the longest first, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    rows = [
        {"name": event.key, "ms": event.self_device_time_total / 1e3 / steps, "calls": event.count / steps}
        for event in profile.key_averages()
        if event.self_device_time_total > 0
    ]
    return sorted(rows, key=lambda row: -row["ms"])[:30]


def bench_epoch(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs through the product's loader: made-up pairs, drawn, cut and varied on the GPU as a training's are."""
    pairs, batch = (10, 4) if options.device.type == "cpu" else (PAIRS, 128)
    data = recipe_settings("smallnorb").data
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (pairs, 2, 48, 48), dtype=torch.uint8, generator=random)
    labels = torch.arange(pairs) % 5
    dataset = ImageDataset("smallnorb", "train", images, labels, tuple("abcde"), torch.arange(pairs))
    transform = Transform(data.transform.resolve("smallnorb"), dataset.image_size)
    step = Step(EPOCH, batch, options.device)
    replay = in_graph(step, options.device)

    def captured(images: torch.Tensor, labels: torch.Tensor) -> None:
        if len(labels) != batch:  # the last batch
            step.on(images, labels)
            return
        step.images.copy_(images)
        step.labels.copy_(labels)
        replay()

    found: dict[str, Any] = {"preset": EPOCH, "batch": batch, "pairs": pairs, "transform": str(data.transform)}
    ways = (("loader alone", lambda *_: None), ("eager", step.on), ("graph", captured))
    for name, work in ways:
        times = []
        batches = make_loader(dataset, transform, train=True, batch_size=batch, device=options.device)
        for epoch in range(options.epochs + 1):
            batches.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
            wait(options.device)
            start = time.perf_counter()
            for one in batches:
                work(one.images, one.labels)
            wait(options.device)
            times.append(time.perf_counter() - start)
        found[name] = {"first": times[0], **spread(times[1:])}
        goal = f", goal {GOALS['epoch_s']:g}" if name == "graph" else ""
        print(
            f"epoch of {pairs:,} pairs, {EPOCH}, batch {batch}, {name}: {found[name]['median']:.3f} s "
            f"({min(times[1:]):.3f} to {max(times[1:]):.3f}{goal}; the first {times[0]:.2f})",
            flush=True,
        )
    return found


def bench_compared(options: argparse.Namespace) -> list[dict[str, Any]]:
    """ConvCaps1 of both presets by the others, and our time and memory as a share of theirs."""
    rows = []
    contenders = ["reference", *([] if options.skip_compile else ["compiled"])]
    for layer in reversed(first_layers(options)):
        ours = bench_layer(layer, "auto", options)
        for contender in contenders:
            row = bench_other(layer, contender, options)
            share = layer.batch / row["batch"] if "batch" in row else 1.0
            if "error" not in row:
                row["ratio"] = row["both"]["median"] * share / ours["both"]["median"]
                if row["peak_mib"] is not None:
                    row["memory_ratio"] = row["peak_mib"] * share / ours["peak_mib"]
                memory = f", {row['memory_ratio']:.1f} times our memory" if "memory_ratio" in row else ""
                shown = show_layer(layer.name, contender, row)
                print(f"{shown}: {row['ratio']:.1f} times our time{memory}", flush=True)
            rows.append({"layer": layer.name, "contender": contender, "ours": ours, **row})
            options.save(rows)
    print(f"goals: {GOALS['ratio_to_compiled']:g} times our time, and {GOALS['memory_ratio']:g} times our memory")
    return rows


def bench_other(layer: RoutedLayer, contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """What does not fit into memory is timed at a smaller batch; what fails says how."""
    while True:
        try:
            return bench_layer(layer, contender, options)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            layer = layer._replace(batch=layer.batch // 2)
        except Exception as error:
            print(f"{layer.name}, {contender}: failed: {error!r:.200}", flush=True)
            return {"error": repr(error)[:500]}
        finally:
            torch.compiler.reset()


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "start": bench_start,
    "kernels": bench_kernels,
    "layers": bench_layers,
    "epoch": bench_epoch,
    "step": bench_step,
    "compared": bench_compared,
}


def record_path(options: argparse.Namespace, described: dict[str, Any]) -> Path:
    """The file named, or one of the stored history."""
    if options.record is not None:
        return options.record
    date = str(described["date"]).replace(":", "").replace("+0000", "Z")
    return ROOT / "benchmarks" / "results" / f"bench-gpu-{date}.json"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--skip-compile", action="store_true", help="leave torch.compile of the reference out")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each thing that is timed")
    parser.add_argument("--turns", type=int, default=12, help="how often each kernel is timed")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, action="append", help="some of the parts; may be repeated")
    parser.add_argument("--record", type=Path, help="a file to put the figures into; new parts take old ones' places")
    parser.add_argument(
        "--device", type=torch.device, default=torch.device("cuda"), help="cpu: a rehearsal, tiny sizes"
    )
    options = parser.parse_args(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("the benchmark needs an NVIDIA GPU that torch can use; --device cpu rehearses it, with tiny sizes")
    if not options.skip_tests:
        command = [sys.executable, "-m", "benchmarks.gpu.run_tests", "--seconds", "1800", "--workers", "4"]
        subprocess.run(command, check=True, cwd=ROOT)
    described = describe_gpu(options.device)
    path = record_path(options, described)
    print(f"{described}\n")
    for name in options.only or PARTS:
        # as soon as there is something: a visit may be cut short
        options.save = lambda found, name=name: update_record(path, machine=described, goals=GOALS, **{name: found})
        options.save(PARTS[name](options))
    print(f"\n{path}")


if __name__ == "__main__":
    main()
