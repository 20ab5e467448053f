"""Holds the GPU path to the tests' error budget once, without pytest; exit status 1 if it is off.

In float32 and in float64, convolutional and class capsules, all rules and both competitions, and that a routing gives
the same bits twice. Its kernels are compiled as it comes to them.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

from benchmarks.gpu.measure import update_record
from matcaps.routing import class_em_routing, conv_em_routing
from tests.support.budget import judge, run
from tests.support.routings import class_inputs, conv_inputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RULES = ("paper", "standardised", "relative")
COMPETITIONS = ("child", "window")


def conv_cases() -> list[tuple[list[Tensor], dict[str, Any]]]:
    """Sixteen, so that a fault in a result that is a single number is seen."""
    return [
        (
            conv_inputs(2, 5, 5, 3, 5, 3, 3, seed=seed),
            {"competition": competition, "annealing": annealing, "stride": 2, "activation_rule": RULES[seed % 3]},
        )
        for seed, competition, annealing in itertools.product(range(4), COMPETITIONS, (1.0, 1 / 16))
    ]


def class_cases() -> list[tuple[list[Tensor], dict[str, Any]]]:
    return [
        (class_inputs(2, 3, 2, 7, 5, 3, seed=seed), {"annealing": annealing, "activation_rule": RULES[seed % 3]})
        for seed, annealing in itertools.product(range(8), (1.0, 1 / 16))
    ]


def gpu_path(
    function: Any, inputs: Sequence[Tensor], options: dict[str, Any], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Results and gradients of one routing on the GPU."""
    return run(function, inputs, dtype, "cuda", DEVICE, **options)


def check(function: Any, cases: list[tuple[list[Tensor], dict[str, Any]]]) -> list[str]:
    """Complaints about values, gradients, and bits that change."""

    def single(inputs: Sequence[Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
        return gpu_path(function, inputs, options)

    def double(inputs: Sequence[Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
        return gpu_path(function, inputs, options, torch.float64)

    complaints = judge(function, cases, single, double)
    for inputs, options in cases[:2]:
        one, other = single(inputs, options), single(inputs, options)
        complaints += [f"{name}: not the same bits twice" for name in one if not torch.equal(one[name], other[name])]
    return [f"{function.__name__}, {complaint}" for complaint in complaints]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", type=Path, help="of benchmarks.gpu.bench; gets what is off")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # small tensors
    complaints = []
    for function, cases in ((conv_em_routing, conv_cases()), (class_em_routing, class_cases())):
        start = time.perf_counter()
        found = check(function, cases)
        verdict = "; ".join(found) or "values and gradients are within the budget of rounding"
        print(f"{function.__name__}, {len(cases)} cases, {time.perf_counter() - start:.0f} s: {verdict}", flush=True)
        complaints += found
    if options.record:
        update_record(options.record, check={"complaints": complaints})
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
