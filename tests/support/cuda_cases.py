"""What the tests of the GPU path share: where they run, and how.

They run on a GPU where torch and NVRTC have one, and otherwise in the emulator (``tests/support/cuda``), which the
machine's C++ compiler makes: a second for each routing, kept in pytest's cache folder.
"""

import os

import pytest
import torch

from matcaps.routing import cuda
from tests.support import budget
from tests.support.cuda import COMPILER

DEVICE = "cuda" if cuda.MISSING is None and torch.cuda.is_available() else "cpu"

ALL = bool(os.environ.get("MATCAPS_TEST_CUDA"))
"""Every size, rather than a few: make test-cuda."""

needs_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="needs an NVIDIA GPU")
needs_all = pytest.mark.skipif(not ALL, reason="takes minutes: make test-cuda")
needs_device = pytest.mark.usefixtures("cuda_device")
"""A GPU, or the emulator for tensors on the CPU: a fixture of ``tests/routing/conftest.py``."""
RUNS = DEVICE == "cuda" or bool(COMPILER)
"""Whether there is either."""


def run_cuda(function, inputs, dtype=torch.float32, **options):
    """Results and gradients by name, on the CPU whatever the device."""
    return budget.run(function, inputs, dtype, "cuda", device=DEVICE, **options)


def assert_within_budget(function, cases, in_double=ALL or DEVICE == "cuda"):
    """Hold the GPU path's errors to the budget; in float64, too, on a GPU or where all is emulated."""
    budget.assert_within_budget(function, cases, "cuda", DEVICE, in_double)
