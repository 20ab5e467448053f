"""The GPU path against the float64 reference: values and every gradient, within the budget that the core has too.

Runs on a GPU where there is one, and otherwise in Triton's interpreter, which is slow: the sizes are small, of every
class.
"""

import itertools

import pytest
import torch

from matcaps.routing import class_em_routing, conv_em_routing
from tests.routing.triton_cases import DEVICE, assert_within_budget, needs_triton, run_triton
from tests.support.budget import RESULTS, run
from tests.support.routings import EXTREMES, class_inputs, conv_inputs, extreme

# The interpreter is numpy, which warns where a GPU would not: of masked lanes, and of NaN put there by a test.
pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

RULES = ("paper", "standardised", "relative")


SIZES = [  # batch, height, width, children, parents, kernel, stride, iterations
    (1, 5, 7, 3, 5, 3, 2, 3),
    (1, 3, 4, 1, 1, 2, 1, 2),
    (3, 2, 3, 7, 5, 1, 1, 1),
    (3, 3, 5, 1, 16, 3, 1, 3),
    (1, 4, 3, 7, 33, 2, 2, 2),
    (2, 7, 5, 2, 3, 2, 3, 3),  # no window covers the children between two
    (1, 4, 4, 16, 8, 3, 1, 4),
]


@pytest.mark.parametrize("annealing", [1 / 16, 1.0], ids=["soft", "hard"])
@pytest.mark.parametrize("competition", ["child", "window"])
def test_conv_within_budget(competition, annealing):
    """Of all sizes together: the more cases, the narrower the budget."""
    cases = []
    for *sizes, stride, iterations in SIZES:
        for seed, rule in enumerate(RULES):
            options = {"annealing": annealing, "activation_rule": rule, "competition": competition, "stride": stride}
            cases.append((conv_inputs(*sizes, iterations, seed=seed), options))
    assert_within_budget(conv_em_routing, cases)


@pytest.mark.parametrize("competition", ["child", "window"])
def test_all_rules_within_budget(competition):
    cases = [
        (conv_inputs(1, 5, 4, 3, 4, 3, 3, seed=seed), {"activation_rule": rule, "annealing": annealing})
        for seed, (rule, annealing) in enumerate(itertools.product(RULES, (1.0, 1 / 16, 0.3)))
    ]
    cases = [(inputs, {"competition": competition, **options}) for inputs, options in cases]
    assert_within_budget(conv_em_routing, cases)


@pytest.mark.parametrize("with_coordinates", [False, True])
def test_class_within_budget(with_coordinates):
    sizes = [(2, 3, 2, 7, 5, 3), (1, 1, 1, 1, 1, 1), (3, 2, 3, 3, 10, 2), (1, 4, 5, 9, 33, 2)]
    cases = [
        (class_inputs(*size, seed=seed)[: 7 if with_coordinates else 6], {"activation_rule": rule, "annealing": 1 / 16})
        for size in sizes
        for seed, rule in enumerate(RULES)
    ]
    assert_within_budget(class_em_routing, cases)


@pytest.mark.parametrize("competition", ["child", "window"])
def test_extreme_inputs(competition):
    cases = [
        (extreme(name, seed), {"annealing": annealing, "competition": competition, "stride": 2})
        for name in EXTREMES
        for seed, annealing in enumerate((1.0, 1 / 16))
    ]
    for inputs, options in cases[::2]:
        for result, tensor in run_triton(conv_em_routing, inputs, **options).items():
            assert tensor.isfinite().all(), result
    assert_within_budget(conv_em_routing, cases)


@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize("where", [0, 1, 2, 3, 4])
def test_nan_comes_through(where, competition):
    inputs = conv_inputs(1, 4, 4, 2, 3, 3, 2)
    inputs[where].view(-1)[-1 if where < 2 else 0] = torch.nan
    options = {"stride": 1, "competition": competition}
    expected = run(conv_em_routing, inputs, torch.float32, "reference", **options)
    found = run_triton(conv_em_routing, inputs, **options)
    for name in RESULTS:
        assert torch.equal(found[name].isnan(), expected[name].isnan()), name
    assert any(found[name].isnan().any() for name in RESULTS)


def forward(inputs, **options):
    *tensors, schedule = (tensor.to(DEVICE) for tensor in inputs)
    return conv_em_routing(*tensors, **{"inverse_temperature": schedule, "implementation": "triton", **options})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    inputs = [tensor.to(dtype) for tensor in conv_inputs(1, 4, 4, 3, 5, 3, 2)]
    narrow = forward(inputs)
    assert narrow.poses.dtype == narrow.activations.dtype == dtype
    wide = forward([tensor.float() for tensor in inputs])
    for found, expected in zip(narrow, wide, strict=True):
        torch.testing.assert_close(found, expected.to(dtype), rtol=0, atol=0)


def test_half_precision_has_gradients():
    inputs = conv_inputs(1, 4, 4, 3, 5, 3, 2)
    found = run_triton(conv_em_routing, inputs, torch.bfloat16)
    expected = run(conv_em_routing, inputs, torch.bfloat16, "reference")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-2, atol=1e-2 * tensor.abs().max().item())


def test_inputs_that_are_not_contiguous():
    poses, activations, weight, *rest = (tensor.float() for tensor in conv_inputs(2, 4, 5, 3, 5, 3, 3))
    schedule = rest.pop()
    expected = forward([poses, activations, weight, *rest, schedule])
    scattered = [
        poses.permute(5, 4, 3, 2, 1, 0).contiguous().permute(5, 4, 3, 2, 1, 0),
        torch.stack([activations, activations], -1)[..., 0],
        weight.transpose(2, 3).contiguous().transpose(2, 3),
        *(torch.stack([beta, beta], -1)[:, 1] for beta in rest),
    ]
    assert not any(tensor.is_contiguous() for tensor in scattered)
    torch.testing.assert_close(forward([*scattered, schedule]), expected, rtol=0, atol=0)


def test_without_gradients_the_results_are_the_same_bits():
    inputs = [tensor.float() for tensor in conv_inputs(1, 4, 5, 3, 5, 2, 5)]
    kept = forward([inputs[0].requires_grad_(), *inputs[1:]])
    with torch.no_grad():
        torch.testing.assert_close(forward(inputs), tuple(kept), rtol=0, atol=0)


def test_a_batch_is_its_images_one_by_one():
    inputs = [tensor.float() for tensor in conv_inputs(3, 4, 5, 3, 5, 2, 2)]
    together = forward(inputs)
    for image in range(3):
        alone = forward([inputs[0][image : image + 1], inputs[1][image : image + 1], *inputs[2:]])
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_[image], rtol=1e-6, atol=1e-6)


def test_empty_batch():
    inputs = [tensor.float().to(DEVICE).requires_grad_() for tensor in conv_inputs(0, 5, 5, 3, 5, 3, 3)]
    parents = conv_em_routing(*inputs[:5], inverse_temperature=[0.1], implementation="triton")
    assert parents.poses.shape == (0, 3, 3, 5, 4, 4)
    (parents.poses.sum() + parents.activations.sum()).backward()
    assert inputs[2].grad.abs().sum() == 0


CUTS = [  # children, pairs, rows; children, parents, windows and windows at a time of the sweep
    (1, 32, 8, 4, 8, 3, 1),  # as on a GPU for convolutional capsules: a lane goes through all children
    (4, 16, 4, 2, 4, 100, 2),
    (32, 4, 64, 32, 2, 1, 1),
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_every_cut_of_the_work(cut, monkeypatch):
    from matcaps.routing.triton_kernels import launch

    monkeypatch.setattr(launch, "tiles_for", lambda shape, windows: launch.Tiles(*cut[:6], sweep_together=cut[6]))
    cases = [
        (conv_inputs(2, 3, 5, 2, 5, 3, 3, seed=seed), {"competition": competition, "annealing": 1 / 16})
        for seed, competition in itertools.product(range(2), ("child", "window"))
    ]
    assert_within_budget(conv_em_routing, cases)


def test_the_tiles_for_a_gpu_are_legal(monkeypatch):
    from matcaps.routing.triton_kernels import launch

    monkeypatch.setattr(launch, "IS_INTERPRETED", False)
    sizes = itertools.product((1, 7, 128), (1, 8, 63), (1, 5, 16, 33, 300), (None, 1, 3), ("child", "window"))
    for batch, children, parents, kernel, competition in sizes:
        poses = torch.empty(batch, 6, 5, children, 4, 4, device="meta")
        weight = poses.new_empty([*([] if kernel is None else [kernel, kernel]), children, parents, 4, 4])
        plan = launch.plan_for(poses, weight, poses.new_empty(3), 2 if kernel else 1, competition == "child", False)
        for value in (*plan.tiles[:5], plan.shape.block):
            assert value & (value - 1) == 0, plan.tiles
        assert plan.tiles.sweep_windows >= 1


def test_what_32_bits_cannot_count_is_refused():
    from matcaps.routing.triton_kernels import launch

    poses = torch.empty(2**17, 22, 22, 1, 4, 4, device="meta")
    weight = poses.new_empty([3, 3, 1, 2, 4, 4])
    with pytest.raises(ValueError, match=r"52,428,800 windows of 9 children and 2 parents.*split the batch"):
        launch.plan_for(poses, weight, poses.new_empty(3), 1, True, False)
    launch.plan_for(poses[: 2**16], weight, poses.new_empty(3), 1, True, False)
