"""Holds the GPU path to the tests' error budget once, for machines without pytest; exit status 1 if it is off."""

import itertools
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from matcaps.routing import conv_em_routing
from tests.support.budget import judge, run
from tests.support.routings import conv_inputs


def main() -> int:
    cases = [
        (conv_inputs(2, 5, 5, 3, 5, 3, 3, seed=seed), {"competition": competition, "annealing": 1 / 16, "stride": 2})
        for seed, competition in itertools.product(range(4), ("child", "window"))
    ]
    complaints = judge(conv_em_routing, cases, gpu_path)
    print("\n".join(complaints) or "values and gradients are within the budget of rounding")
    return 1 if complaints else 0


def gpu_path(inputs, options):
    """Results and gradients of one routing on the GPU, or in Triton's interpreter."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return run(conv_em_routing, inputs, torch.float32, "triton", device, **options)


if __name__ == "__main__":
    sys.exit(main())
