"""What the GPU path would launch: cuts that a GPU can have, for all sizes; and what does not fit is refused."""

import itertools

import pytest
import torch

from matcaps.routing import cuda_launch
from tests.support.cuda import plan_of_sizes


def plans():
    sizes = itertools.product(
        (1, 7, 128), (1, 8, 63), (1, 5, 16, 33, 300), (None, 1, 3), ("child", "window"), (1, 3, 6)
    )
    for batch, children, parents, kernel, competition, iterations in sizes:
        for dtype in (torch.float32, torch.float64):
            options = {"stride": 2 if kernel else 1, "child": competition == "child", "rule": 1, "dtype": dtype}
            yield plan_of_sizes(batch, 6, 5, children, parents, kernel, iterations, **options)


def test_every_cut_is_one_that_a_gpu_can_have():
    for plan in plans():
        shape, cut = plan.shape, plan.cut
        assert cut.lanes in (1, 2, 4, 8, 16, 32), cut
        assert cut.lanes >= min(32, shape.parents), cut
        assert cut.splits & (cut.splits - 1) == 0, cut
        for threads in (cut.threads, cut.sweep_threads):
            assert threads % 32 == 0, cut
            assert 32 <= threads <= 1024, cut
        assert cut.threads % (cut.lanes * cut.splits) == 0, cut
        assert cut.tile % cut.splits == 0, cut
        assert cut.block_windows >= 1, cut
        assert cuda_launch.shared_bytes(shape, cut) <= cuda_launch.SHARED_LIMIT, (shape, cut)
        assert cuda_launch.sweep_bytes(shape, cut) <= cuda_launch.SHARED_LIMIT, (shape, cut)


def test_the_parts_of_the_last_sweep_hold_every_window_once():
    for plan in plans():
        parts, windows = plan.parts()
        assert 1 <= parts <= 65535
        assert (parts - 1) * windows < plan.windows <= parts * windows, plan


def test_what_shared_memory_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"bytes of shared memory.*got 20,000 parents and 3 iterations.*use fewer"):
        plan_of_sizes(1, 6, 5, 2, 20_000)
    plan_of_sizes(1, 6, 5, 2, 1000)


def test_another_number_of_anything_is_another_program():
    shape = plan_of_sizes(1, 6, 5, 2, 4).shape
    cut = cuda_launch.cut_for(shape, 12)
    text = cuda_launch.constants(shape, cut)
    for field in ("height", "parents", "rule", "iterations", "double", "child_competition", "coordinates"):
        value = getattr(shape, field)
        other = not value if isinstance(value, bool) else value + 1
        assert cuda_launch.constants(cuda_launch.replace(shape, **{field: other}), cut) != text, field


@pytest.mark.parametrize(("parents", "dtype"), [(1000, torch.float64), (2000, torch.float32)])
def test_kernels_of_many_parents_compile(parents, dtype, emulator):
    """What parents tell one another leaves little of a block's shared memory."""
    plan = plan_of_sizes(128, 8, 8, 4, parents, child=False, dtype=dtype)
    emulator(plan.shape, plan.cut)
