"""The GPU path against the float64 reference: values and every gradient, within the budget that the core has too.

Runs on a GPU where there is one, and otherwise in the emulator, where most of the time goes to compiling: each size,
rule, competition and dtype has kernels of its own. ``make test`` has a few of them, ``make test-cuda`` all.
"""

import itertools

import pytest
import torch

from matcaps.routing import class_em_routing, conv_em_routing, cuda_launch
from matcaps.routing.cuda_launch import Cut
from tests.support.budget import RESULTS, run
from tests.support.cuda_cases import DEVICE, assert_within_budget, needs_all, needs_device, run_cuda
from tests.support.routings import EXTREMES, all_rules, class_inputs, conv_inputs, extreme

pytestmark = [needs_device, pytest.mark.usefixtures("one_thread")]

RULES = ("paper", "standardised", "relative")
COMPETITIONS = pytest.mark.parametrize("competition", ["child", "window"])

FEW = [  # batch, height, width, children, parents, kernel, stride, iterations
    (1, 5, 7, 3, 5, 3, 2, 3),
    (1, 3, 4, 1, 1, 2, 1, 2),
    (3, 2, 3, 7, 5, 1, 1, 1),
    (2, 7, 5, 2, 3, 2, 3, 3),  # no window covers the children between two
    (1, 3, 4, 4, 40, 3, 1, 2),  # two blocks of parents, copied 16 bytes at a time
]
MORE = [
    (1, 4, 3, 3, 33, 2, 2, 2),  # one parent more than lanes
    (1, 4, 4, 9, 8, 3, 1, 4),
    (2, 7, 7, 2, 17, 3, 3, 4),
    (1, 7, 6, 2, 16, 5, 2, 5),
    (1, 3, 4, 63, 7, 2, 1, 3),
    (2, 4, 3, 7, 63, 3, 1, 2),
    (7, 3, 3, 1, 8, 3, 1, 3),
    (1, 3, 3, 5, 70, 2, 1, 3),  # three blocks of parents
    (1, 9, 9, 4, 12, 5, 1, 3),  # 25 windows compete for a child: more bids than stay in registers
    (1, 7, 7, 8, 16, 3, 2, 3),
]


@COMPETITIONS
def test_conv_within_budget(competition):
    """Of all sizes together, each with one of the rules: the more cases, the narrower the budget."""
    cases = []
    for number, (*sizes, stride, iterations) in enumerate(FEW):
        for seed, annealing in enumerate((1.0, 1 / 16, 0.3)):
            options = {"annealing": annealing, "activation_rule": RULES[number % 3]}
            inputs = conv_inputs(*sizes, iterations, seed=seed)
            cases.append((inputs, {**options, "competition": competition, "stride": stride}))
    assert_within_budget(conv_em_routing, cases)


@COMPETITIONS
def test_all_rules_within_budget(competition):
    cases = all_rules(lambda seed: conv_inputs(1, 4, 4, 3, 4, 3, 3, seed=seed), 3, competition=competition)
    assert_within_budget(conv_em_routing, cases, in_double=True)


@needs_all
@COMPETITIONS
@pytest.mark.parametrize("size", FEW + MORE, ids=str)
def test_conv_of_every_size_within_budget(size, competition):
    *sizes, stride, iterations = size
    cases = all_rules(
        lambda seed: conv_inputs(*sizes, iterations, seed=seed), 3, stride=stride, competition=competition
    )
    assert_within_budget(conv_em_routing, cases)


FEW_CLASSES = [(2, 3, 2, 7, 5, 3), (1, 1, 1, 1, 1, 1), (3, 2, 3, 3, 10, 2), (1, 4, 5, 9, 33, 2)]
MORE_CLASSES = [(2, 4, 4, 7, 5, 3), (1, 4, 5, 63, 7, 2), (5, 3, 3, 1, 17, 5), (1, 2, 3, 4, 40, 4), (1, 9, 7, 3, 9, 3)]


@pytest.mark.parametrize("with_coordinates", [False, True])
def test_class_within_budget(with_coordinates):
    cases = [
        (
            class_inputs(*size, seed=seed)[: 7 if with_coordinates else 6],
            {"activation_rule": rule, "annealing": annealing},
        )
        for size, rule in zip(FEW_CLASSES, itertools.cycle(RULES), strict=False)
        for seed, annealing in enumerate((1.0, 1 / 16, 1 / 16, 0.3))
    ]
    assert_within_budget(class_em_routing, cases, in_double=True)


@needs_all
@pytest.mark.parametrize("with_coordinates", [False, True])
@pytest.mark.parametrize("size", FEW_CLASSES + MORE_CLASSES, ids=str)
def test_class_of_every_size_within_budget(size, with_coordinates):
    count = 7 if with_coordinates else 6
    assert_within_budget(class_em_routing, all_rules(lambda seed: class_inputs(*size, seed=seed)[:count], 3))


@COMPETITIONS
def test_extreme_inputs(competition):
    cases = [
        (extreme(name, seed), {"annealing": annealing, "competition": competition, "stride": 2})
        for name in EXTREMES
        for seed, annealing in enumerate((1.0, 1 / 16, 1 / 16))
    ]
    for inputs, options in cases:
        for result, tensor in run_cuda(conv_em_routing, inputs, **options).items():
            assert tensor.isfinite().all(), result
    assert_within_budget(conv_em_routing, cases)


@needs_all
@COMPETITIONS
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_inputs_of_every_rule(name, competition):
    cases = all_rules(lambda seed: extreme(name, seed), 3, competition=competition)
    for inputs, options in cases:
        for result, tensor in run_cuda(conv_em_routing, inputs, **options).items():
            assert tensor.isfinite().all(), result
    assert_within_budget(conv_em_routing, cases)


@COMPETITIONS
@pytest.mark.parametrize("where", [0, 1, 2, 3, 4])
def test_nan_comes_through(where, competition):
    inputs = conv_inputs(1, 4, 4, 2, 3, 3, 2)
    inputs[where].view(-1)[-1 if where < 2 else 0] = torch.nan
    options = {"stride": 1, "competition": competition}
    expected = run(conv_em_routing, inputs, torch.float32, "reference", **options)
    found = run_cuda(conv_em_routing, inputs, **options)
    for name in RESULTS:
        assert torch.equal(found[name].isnan(), expected[name].isnan()), name
    assert any(found[name].isnan().any() for name in RESULTS)


def forward(inputs, **options):
    *tensors, schedule = (tensor.to(DEVICE) for tensor in inputs)
    return conv_em_routing(*tensors, **{"inverse_temperature": schedule, "implementation": "cuda", **options})


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
    found = run_cuda(conv_em_routing, inputs, torch.bfloat16)
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


def shifted(tensor):
    """The same numbers at an address that is no multiple of 16 bytes: 4 bytes further on, in float32."""
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=DEVICE)
    view = memory[1:].view(tensor.shape).copy_(tensor)
    assert view.data_ptr() % 16 == tensor.element_size()
    return view


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["child", "window", "class"])
def test_addresses_that_are_no_multiples_of_16_bytes(kind, dtype):
    if kind == "class":
        inputs, function, options = class_inputs(1, 2, 3, 3, 8, 2), class_em_routing, {}
    else:
        inputs, function, options = conv_inputs(1, 3, 4, 3, 8, 2, 2), conv_em_routing, {"competition": kind}
    random = torch.Generator().manual_seed(7)

    def results(place):
        leaves = [place(tensor.to(dtype)).detach().requires_grad_() for tensor in inputs]
        if kind == "class":
            options["coordinates"] = leaves[6]
        parents = function(*leaves[:5], inverse_temperature=leaves[5], implementation="cuda", **options)
        along = [place(torch.randn(part.shape, generator=random.manual_seed(7), dtype=dtype)) for part in parents]
        return [*parents, *torch.autograd.grad(tuple(parents), leaves, grad_outputs=along)]

    plain = results(lambda tensor: tensor.to(DEVICE))
    for found, expected in zip(results(shifted), plain, strict=True):
        assert torch.equal(found, expected)


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
    parents = conv_em_routing(*inputs[:5], inverse_temperature=[0.1], implementation="cuda")
    assert parents.poses.shape == (0, 3, 3, 5, 4, 4)
    (parents.poses.sum() + parents.activations.sum()).backward()
    assert inputs[2].grad.abs().sum() == 0


FEW_CUTS = [  # of five parents
    Cut(lanes=4, threads=128, splits=2, together=2, tile=2, sweep_threads=64, sweep_each=4),
    Cut(lanes=8, threads=256, splits=8, together=1, tile=32, sweep_threads=128, sweep_each=2),
]
ALL_CUTS = [
    Cut(lanes, threads, splits, together, splits * tile, sweep_threads, sweep_each)
    for number, (lanes, threads, splits, together, tile, sweep_threads, sweep_each) in enumerate(
        itertools.product((4, 8), (64, 128, 256), (1, 2, 8), (1, 2), (1, 4), (64, 128), (1, 2, 4))
    )
    if number % 17 == 0  # each value with each other one
]


def within_budget_when_cut(cut, monkeypatch, parents=5):
    monkeypatch.setattr(cuda_launch, "cut_for", lambda *sizes, **more: cut)
    for competition in ("child", "window"):
        options = {"competition": competition, "annealing": 1 / 16, "stride": 1}
        cases = [(conv_inputs(2, 3, 5, 2, parents, 3, 3, seed=seed), options) for seed in range(4)]
        assert_within_budget(conv_em_routing, cases)
    cases = [(class_inputs(3, 2, 3, 3, parents, 2, seed=seed), {"annealing": 1 / 16}) for seed in range(4)]
    assert_within_budget(class_em_routing, cases)


@pytest.mark.parametrize("cut", FEW_CUTS, ids=str)
def test_cuts_of_the_work(cut, monkeypatch):
    within_budget_when_cut(cut, monkeypatch)


@needs_all
@pytest.mark.parametrize("parents", [5, 40])
@pytest.mark.parametrize("cut", ALL_CUTS, ids=str)
def test_every_cut_of_the_work(cut, parents, monkeypatch):
    within_budget_when_cut(cut, monkeypatch, parents)
