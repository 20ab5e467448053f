"""Compiles a visit's kernels into their cache, side by side: ``python -m benchmarks.gpu.compile_kernels [sm_90]``.

Those of the routed layers of ``paper`` and ``paper-small``, and of the checks in ``quick_check.py``. NVRTC takes one
to three seconds a program, forward or backward. Without a GPU name an architecture.
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

from benchmarks.gpu import kernels, quick_check
from benchmarks.gpu.layers import LAYERS
from matcaps.routing import RoutingInputs, RoutingSpec
from matcaps.routing.cuda_launch import Cut, Plan, Shape, plan_for
from matcaps.routing.operators import operator_options


def plans(limit: int) -> list[Plan]:
    """Of the layers first, then of the checks, for blocks that can have so many bytes of shared memory."""
    found = [layer.plan(limit) for layer in LAYERS.values()]
    for dtype in (torch.float32, torch.float64):
        for inputs, options in quick_check.conv_cases() + quick_check.class_cases():
            tensors = RoutingInputs(*(tensor.to(dtype) for tensor in inputs))
            found.append(plan_for(tensors, operator_options(RoutingSpec(**options)), limit))
    return found


def compile_one(job: tuple[Shape, Cut, str, str]) -> float:
    """Seconds of compiling, or of reading the cache."""
    from matcaps.routing.cuda_program import machine_code

    start = time.perf_counter()
    machine_code(*job)
    return time.perf_counter() - start


def main() -> None:
    if len(sys.argv) > 1:
        architecture, limit = sys.argv[1], kernels.shared_limit(sys.argv[1])
    else:
        from matcaps.routing.cuda_program import shared_limit

        architecture = "sm_{}{}".format(*torch.cuda.get_device_capability())
        limit = shared_limit(torch.device("cuda"))
    parts = ("forward", "backward")
    jobs = list(dict.fromkeys((plan.shape, plan.cut, architecture, part) for plan in plans(limit) for part in parts))
    start = time.perf_counter()
    with ProcessPoolExecutor(min(16, os.cpu_count() or 1, len(jobs)), get_context("spawn")) as pool:
        seconds = list(pool.map(compile_one, jobs))
    print(
        f"{len(jobs)} programs for {architecture}: {sum(seconds):.0f} s of compiling in "
        f"{time.perf_counter() - start:.0f} s, one {min(seconds):.1f} to {max(seconds):.1f} s"
    )


if __name__ == "__main__":
    main()
