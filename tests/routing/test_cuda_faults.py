"""Faults planted in copies of the CUDA kernels are out of the budget: the tests by value see what they are for.

In the emulator, wherever the other tests run. Each fault has the kernels compiled anew, most of the time that it takes:
``make test`` has three of them, ``make test-cuda`` all.
"""

import pytest

from matcaps.routing import class_em_routing, conv_em_routing, cuda
from tests.support.budget import assert_within_budget
from tests.support.cuda import Emulator, edited_kernels
from tests.support.cuda_cases import needs_all
from tests.support.routings import class_inputs, conv_inputs

pytestmark = pytest.mark.usefixtures("emulator", "one_thread")

FAULTS = {  # a file, what it says, and what a slip would have made of it
    "the last child is left out": ("common.cuh", "|| n < kChildren) body(", "|| n < kChildren - 1) body("),
    "a factor of two is missing": ("backward.cuh", "Real(0.5) * precision * (", "precision * ("),
    "a mean is off a little": ("forward.cuh", "? centre[w][h] + rest :", "? centre[w][h] + rest * Real(0.99999) :"),
    "a window gives no gradient": ("sweep.cuh", "(place, i / kCoversWide,", "(place, i / kCoversWide + 1,"),
    "a tile is read before it is there": ("common.cuh", "    wait_for_copies();", ""),
}  # fmt: skip


FEW = ("the last child is left out", "a mean is off a little", "a window gives no gradient")


@pytest.mark.parametrize("fault", [*FEW, *(pytest.param(one, marks=needs_all) for one in FAULTS if one not in FEW)])
@pytest.mark.parametrize("competition", ["child", pytest.param("window", marks=needs_all)])
def test_a_planted_fault_is_out_of_the_budget(fault, competition, tmp_path, emulated_folder, monkeypatch):
    name, old, new = FAULTS[fault]
    if fault == "the last child is left out":
        inputs = [conv_inputs(1, 5, 4, 3, 4, 3, 3, seed=seed) for seed in range(8)]
    else:
        inputs = [conv_inputs(1, 4, 5, 2, 4, 3, 2, seed=seed) for seed in range(8)]
    cases = [(tensors, {"competition": competition, "annealing": 1 / 16, "stride": 1}) for tensors in inputs]
    kernels = edited_kernels(tmp_path / "kernels", {name: (old, new)})
    monkeypatch.setattr(cuda, "EMULATOR", Emulator(emulated_folder, kernels=kernels))
    with pytest.raises(AssertionError, match=r"times those of rounding to float32|in float64 is off"):
        assert_within_budget(conv_em_routing, cases, "cuda")


@needs_all
def test_a_fault_of_class_capsules_alone_is_out_of_the_budget(tmp_path, emulated_folder, monkeypatch):
    fault = ("kCoordinates ? offset.v[c] - centre", "kCoordinates ? Real(0.999) * offset.v[c] - centre")
    kernels = edited_kernels(tmp_path / "kernels", {"common.cuh": fault})
    monkeypatch.setattr(cuda, "EMULATOR", Emulator(emulated_folder, kernels=kernels))
    cases = [(class_inputs(2, 2, 3, 3, 4, 2, seed=seed), {"annealing": 1 / 16}) for seed in range(6)]
    with pytest.raises(AssertionError, match="times those of rounding"):
        assert_within_budget(class_em_routing, cases, "cuda")
    assert_within_budget(class_em_routing, [(tensors[:6], options) for tensors, options in cases], "cuda")
