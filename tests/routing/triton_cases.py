"""What the tests of the GPU path share: where they run, and the error budget against the float64 reference."""

import os

import pytest
import torch

from matcaps.routing import available_implementations
from tests.routing.test_native_values import BAND, class_inputs, conv_inputs, run

DEVICE = "cuda" if torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1" else "cpu"

needs_triton = pytest.mark.skipif(
    "triton" not in available_implementations(),
    reason="needs Triton and a GPU, or TRITON_INTERPRET=1: make test-triton",
)
needs_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU and Triton, not interpreted")

__all__ = ["BAND", "DEVICE", "assert_within_budget", "class_inputs", "conv_inputs", "needs_gpu", "needs_triton"]


def run_triton(function, inputs, dtype=torch.float32, **options):
    """Results and gradients by name, on the CPU whatever the device."""
    return run(function, inputs, dtype, "triton", device=DEVICE, **options)


def assert_within_budget(function, cases):
    """Hold the errors, pooled over the cases (inputs and options), against the reference's own in float32."""
    fast, own = {}, {}
    for inputs, options in cases:
        exact = run(function, inputs, torch.float64, "reference", **options)
        by = run(function, inputs, torch.float32, "reference", **options)
        ours = run_triton(function, inputs, **options)
        for name, truth in exact.items():
            scale = truth.abs().max().item() + 1e-30
            for errors, found in ((fast, ours), (own, by)):
                relative = (found[name] - truth) / scale
                errors[name] = errors.get(name, 0) + relative.square().mean().item() / len(cases)
    for name in fast:
        error, allowed = fast[name] ** 0.5, own[name] ** 0.5
        assert error <= 2 * allowed + BAND, f"{name}: {error:.1e}, reference {allowed:.1e}"
