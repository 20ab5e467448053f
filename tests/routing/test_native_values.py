"""The compiled CPU core against the float64 reference: values and every gradient, within the budget of rounding.

Most of the time goes to the truth and its rounding, in float64 and in Python. ``make test`` holds all sizes together to
the budget, each with every rule; ``make test-slow`` holds each size alone to it, with every rule and annealing, so that
a small fault at one size stands out.
"""

import itertools
import os

import pytest
import torch

from matcaps.routing import available_implementations, class_em_routing, conv_em_routing
from tests.support.budget import RESULTS, assert_within_budget, run
from tests.support.routings import CONV_SIZES, EXTREMES, all_rules, class_inputs, conv_inputs, extreme

pytestmark = [
    pytest.mark.skipif("native" not in available_implementations(), reason="the compiled core is missing"),
    pytest.mark.usefixtures("one_thread"),
]


needs_all = pytest.mark.skipif(not os.environ.get("MATCAPS_TEST_SLOW"), reason="takes minutes: make test-slow")
CLASS_SIZES = [(2, 4, 4, 7, 5, 3), (1, 1, 1, 1, 1, 1), (3, 2, 5, 3, 10, 4), (1, 4, 5, 63, 7, 2), (5, 3, 3, 1, 17, 5)]
ANNEALINGS = (1.0, 1 / 16)
COMPETITIONS = pytest.mark.parametrize("competition", ["child", "window"])


@COMPETITIONS
def test_conv_of_all_sizes_within_budget(competition):
    cases = []
    for number, (size, rule) in enumerate(itertools.product(CONV_SIZES, ("paper", "standardised", "relative"))):
        *sizes, stride, iterations = size
        options = {"activation_rule": rule, "annealing": ANNEALINGS[number % 2], "stride": stride}
        cases.append((conv_inputs(*sizes, iterations, seed=number), {**options, "competition": competition}))
    assert_within_budget(conv_em_routing, cases)


@pytest.mark.parametrize("with_coordinates", [False, True])
def test_class_of_all_sizes_within_budget(with_coordinates):
    count = 7 if with_coordinates else 6
    rules = itertools.product(CLASS_SIZES, ("paper", "standardised", "relative"), ANNEALINGS)
    assert_within_budget(
        class_em_routing,
        [
            (class_inputs(*size, seed=number)[:count], {"activation_rule": rule, "annealing": annealing})
            for number, (size, rule, annealing) in enumerate(rules)
        ],
    )


@COMPETITIONS
def test_all_extreme_inputs(competition):
    cases = []
    for name in EXTREMES:
        cases += all_rules(lambda seed, name=name: extreme(name, seed), 1, competition=competition)
    for inputs, options in cases:
        for result, tensor in run(conv_em_routing, inputs, torch.float32, "native", **options).items():
            assert tensor.isfinite().all(), result
    assert_within_budget(conv_em_routing, cases)


@needs_all
@pytest.mark.parametrize("size", CONV_SIZES, ids=str)
@COMPETITIONS
def test_conv_within_budget(size, competition):
    *sizes, stride, iterations = size
    cases = all_rules(lambda seed: conv_inputs(*sizes, iterations, seed=seed), stride=stride, competition=competition)
    assert_within_budget(conv_em_routing, cases)


@needs_all
@pytest.mark.parametrize("size", CLASS_SIZES, ids=str)
@pytest.mark.parametrize("with_coordinates", [False, True])
def test_class_within_budget(size, with_coordinates):
    count = 7 if with_coordinates else 6
    assert_within_budget(class_em_routing, all_rules(lambda seed: class_inputs(*size, seed=seed)[:count]))


@needs_all
@COMPETITIONS
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_inputs(name, competition):
    cases = all_rules(lambda seed: extreme(name, seed), competition=competition)
    for inputs, options in cases:
        for result, tensor in run(conv_em_routing, inputs, torch.float32, "native", **options).items():
            assert tensor.isfinite().all(), result
    assert_within_budget(conv_em_routing, cases)


@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize("where", [0, 1, 2, 3, 4])
def test_nan_comes_through(where, competition):
    inputs = conv_inputs(1, 5, 5, 2, 3, 3, 2)
    inputs[where].view(-1)[-1 if where < 2 else 0] = torch.nan
    options = {"stride": 1, "competition": competition}
    expected = run(conv_em_routing, inputs, torch.float32, "reference", **options)
    found = run(conv_em_routing, inputs, torch.float32, "native", **options)
    for name in RESULTS:
        assert torch.equal(found[name].isnan(), expected[name].isnan()), name
    assert any(found[name].isnan().any() for name in RESULTS)


@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize("rule", ["paper", "standardised", "relative"])
def test_gradcheck_conv(competition, rule):
    inputs = [x.requires_grad_() for x in conv_inputs(2, 4, 3, 2, 3, 2, 3)]

    def function(*arguments):
        return conv_em_routing(
            *arguments[:5],
            inverse_temperature=arguments[5],
            stride=1,
            competition=competition,
            activation_rule=rule,
            annealing=1 / 16,
            implementation="native",
        )

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("rule", ["paper", "standardised", "relative"])
def test_gradcheck_class(rule):
    inputs = [x.requires_grad_() for x in class_inputs(2, 2, 3, 2, 3, 3)]

    def function(*arguments):
        return class_em_routing(
            *arguments[:5],
            inverse_temperature=arguments[5],
            coordinates=arguments[6],
            activation_rule=rule,
            annealing=1 / 16,
            implementation="native",
        )

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


def test_more_votes_than_fit_the_cache():
    # 19·17·3 children of one routing: their votes are computed tile by tile, again for each pass
    options = {"annealing": 1 / 16}
    cases = [(class_inputs(1, 19, 17, 3, 9, 3, seed=seed), options) for seed in range(4)]
    assert_within_budget(class_em_routing, cases)
    for size, competition in (((1, 3, 3, 72, 33, 3, 2), "window"), ((1, 4, 3, 72, 3, 3, 2), "child")):
        cases = [(conv_inputs(*size, seed=seed), {**options, "competition": competition}) for seed in range(6)]
        assert_within_budget(conv_em_routing, cases)


def test_half_precision_is_computed_in_float32():
    inputs = [x.bfloat16() for x in conv_inputs(1, 5, 5, 3, 5, 3, 3)]
    schedule = [0.02, 0.03]
    parents = conv_em_routing(*inputs[:5], inverse_temperature=schedule, implementation="native")
    expected = conv_em_routing(*inputs[:5], inverse_temperature=schedule, implementation="reference")
    assert parents.poses.dtype == torch.bfloat16
    torch.testing.assert_close(parents.poses, expected.poses)


def test_inputs_that_are_not_contiguous():
    poses, activations, weight, *rest = conv_inputs(2, 5, 6, 3, 5, 3, 3)
    schedule = rest.pop()
    expected = conv_em_routing(poses, activations, weight, *rest, inverse_temperature=schedule, implementation="native")
    scattered = [
        poses.permute(5, 4, 3, 2, 1, 0).contiguous().permute(5, 4, 3, 2, 1, 0),
        torch.stack([activations, activations], -1)[..., 0],
        weight.transpose(2, 3).contiguous().transpose(2, 3),
        *(torch.stack([beta, beta], -1)[:, 1] for beta in rest),
    ]
    assert not any(tensor.is_contiguous() for tensor in scattered)
    found = conv_em_routing(*scattered, inverse_temperature=schedule, implementation="native")
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_empty_batch():
    inputs = [x.requires_grad_() for x in conv_inputs(0, 5, 5, 3, 5, 3, 3)]
    parents = conv_em_routing(*inputs[:5], inverse_temperature=[0.1], implementation="native")
    assert parents.poses.shape == (0, 3, 3, 5, 4, 4)
    (parents.poses.sum() + parents.activations.sum()).backward()
    assert inputs[2].grad.abs().sum() == 0
