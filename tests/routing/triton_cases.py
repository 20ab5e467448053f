"""What the tests of the GPU path share: where they run, and how."""

import os

import pytest
import torch

from matcaps.routing import available_implementations
from tests.support import budget

DEVICE = "cuda" if torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1" else "cpu"

needs_triton = pytest.mark.skipif(
    "triton" not in available_implementations(),
    reason="needs Triton and a GPU, or TRITON_INTERPRET=1: make test-triton",
)
needs_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU and Triton, not interpreted")


def run_triton(function, inputs, dtype=torch.float32, **options):
    """Results and gradients by name, on the CPU whatever the device."""
    return budget.run(function, inputs, dtype, "triton", device=DEVICE, **options)


def assert_within_budget(function, cases):
    """Hold the GPU path's errors to the budget; few cases, as an interpreted one is slow, make it a wide one."""
    budget.assert_within_budget(function, cases, "triton", DEVICE)
