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

__all__ = [
    "BAND",
    "DEVICE",
    "assert_within_budget",
    "class_inputs",
    "conv_inputs",
    "errors_of",
    "needs_gpu",
    "needs_triton",
]


def run_triton(function, inputs, dtype=torch.float32, **options):
    """Results and gradients by name, on the CPU whatever the device."""
    return run(function, inputs, dtype, "triton", device=DEVICE, **options)


def errors_of(function, inputs, **options):
    """By name, the root mean square errors of the GPU path and of the reference, both in float32, in largest values."""
    exact = run(function, inputs, torch.float64, "reference", **options)
    own = run(function, inputs, torch.float32, "reference", **options)
    ours = run_triton(function, inputs, **options)
    scales = {name: truth.abs().max() + 1e-30 for name, truth in exact.items()}
    return {
        name: tuple(((found[name] - truth) / scales[name]).square().mean().sqrt().item() for found in (ours, own))
        for name, truth in exact.items()
    }


def assert_within_budget(function, cases):
    """Hold the errors, pooled over the cases (inputs and options), against the reference's own in float32."""
    all_errors = [errors_of(function, inputs, **options) for inputs, options in cases]
    for name in all_errors[0]:
        error, allowed = (
            (sum(errors[name][which] ** 2 for errors in all_errors) / len(cases)) ** 0.5 for which in (0, 1)
        )
        assert error <= 2 * allowed + BAND, f"{name}: {error:.1e}, reference {allowed:.1e}"
