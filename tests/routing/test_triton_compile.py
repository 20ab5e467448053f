"""Every kernel of the GPU path compiles for NVIDIA GPUs, down to machine code, on a machine that has none."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is missing: make test-triton"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="takes a minute: make test-triton"),
]

CASES = [
    ("90", "paper-small ConvCaps1"),
    ("90", "paper-small ClassCaps"),
    ("80", "awkward", "--competition=window", "--standardised", "--iterations=2"),
    ("80", "one of each", "--batch=1", "--iterations=2"),  # a launch makes constants of numbers that are 1
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_compile(case, tmp_path):
    capability, layer, *options = case
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "cache")  # something is compiled
    command = [sys.executable, "-m", "benchmarks.kernels", "--capability", capability, "--layer", layer, *options]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "found.json")], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    names = {row["kernel"].split()[0] for row in found}
    assert names >= {
        "fit",
        "activate",
        "compete",
        "fit_backward",
        "data_backward",
        "compete_backward",
        "sweep",
        "gather",
    }
    for row in found:
        assert 0 < row["registers"] <= 255, row
        # what does not fit into registers goes through memory, at every child
        assert row["spill_loads"] + row["spill_stores"] == 0, row


def test_warming_up_finds_every_kernel_of_a_network():
    """Each of the three routed layers has its own: the geometry is compiled in."""
    from benchmarks.warm_up import kernels_of

    kernels = kernels_of("paper-small", 128)
    shapes = {name: set() for name in (kernel.__name__ for kernel, *_ in kernels)}
    for kernel, _, constants in kernels:
        shapes[kernel.__name__].add(constants["SHAPE"][:4])
    assert len(shapes) == 10
    assert all(found == {(14, 14, 8, 16), (6, 6, 16, 16), (4, 4, 16, 5)} for found in shapes.values()), shapes
