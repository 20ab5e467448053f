"""Compiles the kernels of whole networks side by side: ``python -m benchmarks.warm_up paper-small:128 paper:128``.

Triton compiles a kernel when it is first launched, one after another: for a network on one processor, minutes. Here
every processor takes some of them, and later launches find them in Triton's cache. ``PRESET:BATCH`` is a training step
of a batch, ``PRESET:1`` what calibration needs too. ``--capability 90`` compiles for a GPU that is not there.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it finds its own folder only

from benchmarks.kernels import pretend


def routings(preset: str, batch: int) -> list[tuple[list[torch.Tensor], int, torch.Tensor | None, bool, int]]:
    """Inputs, stride and coordinates of every routed layer of a preset; whether children compete for all parents, and
    the activation rule's place. The inputs' values are whatever they are."""
    import matcaps
    from matcaps.routing.checks import ACTIVATION_RULES

    network = matcaps.create_model(preset)
    size = 28 if network.config.in_channels == 1 else 32  # type: ignore[union-attr]
    with torch.no_grad():
        outputs = network.layer_outputs(torch.zeros(1, network.config.in_channels, size, size))  # type: ignore
    children = list(outputs.values())
    found = []
    for before, name in zip(children, list(outputs)[1:], strict=False):
        layer = getattr(network, name)
        poses = torch.empty(batch, *before.poses.shape[1:])
        is_class = layer.weight.ndim == 4
        coordinates = poses.new_empty(*poses.shape[1:3], 16) if is_class else None
        betas = (poses.new_empty(layer.weight.shape[-3]) for _ in range(2))
        inputs = [poses, poses.new_empty(poses.shape[:4]), layer.weight.detach(), *betas]
        inputs.append(layer.routing.inverse_temperature)
        is_child = not is_class and layer.competition == "child"
        rule = ACTIVATION_RULES.index(layer.routing.activation_rule)
        found.append((inputs, 1 if is_class else layer.stride, coordinates, is_child, rule))
    return found


def kernels_of(preset: str, batch: int) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """What a training step launches, each different kernel once: kernel, arguments (on the CPU) and constants."""
    from matcaps.routing import triton as door
    from matcaps.routing.triton_kernels import launch

    found: dict[Any, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def record(kernel: Any, grid: Any, *arguments: Any, **constants: Any) -> None:
        # what a launch is compiled for beside its constants: addresses and numbers that are multiples of 16, and ones
        numbers = tuple(
            x.data_ptr() % 16 == 0 if isinstance(x, torch.Tensor) else (x % 16 == 0, x == 1) for x in arguments
        )
        key = (kernel.__name__, numbers, *sorted(constants.items(), key=str))
        found.setdefault(key, (kernel, arguments, constants))

    for inputs, stride, coordinates, is_child, rule in routings(preset, batch):
        poses, weight = inputs[0], inputs[2]
        plan = launch.plan_for(poses, weight, inputs[-1], stride, is_child, coordinates is not None)
        results = door._empty_results(poses, weight, inputs[-1], stride, is_child, True, True)
        launch.forward(plan, inputs, coordinates, rule, 5e-4, 0.5, results, record)
        launch.backward(plan, inputs, coordinates, rule, 5e-4, 0.5, results[2:], results[:2], record)
    return list(found.values())


def compile_one(preset: str, batch: int, index: int, capability: int | None) -> float:
    """Compile one of :func:`kernels_of` into Triton's cache; return the seconds."""
    if capability is not None:
        pretend(capability)
    kernel, arguments, constants = kernels_of(preset, batch)[index]
    start = time.perf_counter()
    kernel.warmup(*arguments, grid=(1,), **constants)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="+", metavar="PRESET:BATCH")
    parser.add_argument("--capability", type=int, help="of a GPU that is not there, such as 90")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    start = time.perf_counter()
    jobs: list[tuple[str, str, int, int]] = []
    for case in options.cases:
        preset, _, batch = case.partition(":")
        kernels = kernels_of(preset, int(batch))
        jobs += [(kernel.__name__, preset, int(batch), at) for at, (kernel, *_) in enumerate(kernels)]
    jobs.sort(key=lambda job: job[0] not in ("fit", "sweep", "prepare"))  # those that take long first
    with ProcessPoolExecutor(min(options.processes, len(jobs)), get_context("spawn")) as pool:
        done = [pool.submit(compile_one, preset, batch, at, options.capability) for _, preset, batch, at in jobs]
        seconds = sum(one.result() for one in done)
    print(f"{len(jobs)} kernels, {seconds:.0f} s of compiling in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
