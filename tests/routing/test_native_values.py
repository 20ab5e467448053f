"""The compiled CPU core against the float64 reference: values and every gradient, within measured error budgets."""

import itertools

import pytest
import torch

from matcaps.routing import available_implementations, class_em_routing, conv_em_routing

pytestmark = pytest.mark.skipif("native" not in available_implementations(), reason="the compiled core is missing")


@pytest.fixture(autouse=True)
def _one_thread():
    """Small work on two threads is mostly waiting; threads have their own tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


RESULTS = ("poses", "activations")
INPUTS = ("poses", "activations", "weight", "beta_use", "beta_activation", "inverse_temperature", "coordinates")
# Rounding that the budget grants beyond twice the reference's own error, relative to the largest element.
BAND = 4e-6


def conv_inputs(batch, height, width, children, parents, kernel, iterations, seed=0):
    """float64 arguments of a size that leaves assignments soft enough to be interesting."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return [
        normal(batch, height, width, children, 4, 4),
        torch.rand(batch, height, width, children, generator=random, dtype=torch.float64),
        normal(kernel, kernel, children, parents, 4, 4) * 0.5,
        normal(parents) * 0.1,
        normal(parents),
        torch.linspace(0.02, 0.05, iterations, dtype=torch.float64),
    ]


def class_inputs(batch, height, width, children, parents, iterations, seed=0):
    poses, activations, weight, *rest = conv_inputs(batch, height, width, children, parents, 1, iterations, seed)
    random = torch.Generator().manual_seed(seed + 1)
    coordinates = torch.rand(height, width, 16, generator=random, dtype=torch.float64)
    return [poses, activations, weight[0, 0], *rest, coordinates]


def run(function, inputs, dtype, implementation, device="cpu", **options):
    """Results and gradients of one random projection of the results, by name, on the CPU."""
    inputs = [tensor.to(device, dtype).detach().clone().requires_grad_() for tensor in inputs]
    arguments, temperature, *coordinates = inputs[:5], inputs[5], *inputs[6:]
    options = dict(options, inverse_temperature=temperature, implementation=implementation)
    if coordinates:
        options["coordinates"] = coordinates[0]
    results = function(*arguments, **options)
    random = torch.Generator().manual_seed(99)
    along = [torch.randn(r.shape, generator=random, dtype=torch.float64).to(device, dtype) for r in results]
    total = sum((result * direction).sum() for result, direction in zip(results, along, strict=True))
    grads = torch.autograd.grad(total, inputs)
    found = dict(zip(RESULTS, results, strict=True))
    found.update({f"grad {name}": grad for name, grad in zip(INPUTS, grads, strict=False)})
    return {name: tensor.detach().cpu().double() for name, tensor in found.items()}


def assert_within_budget(function, cases):
    """Hold the errors, pooled over the cases (inputs and options), against the reference's own in float32.

    One case is one throw of the dice: a gradient with a single element may be off by 0.1 or by 3 units of rounding.
    """
    fast, own = {}, {}
    for inputs, options in cases:
        exact = run(function, inputs, torch.float64, "reference", **options)
        double = run(function, inputs, torch.float64, "native", **options)
        for errors, implementation in ((fast, "native"), (own, "reference")):
            found = run(function, inputs, torch.float32, implementation, **options)
            for name, truth in exact.items():
                scale = truth.abs().max().item() + 1e-30
                relative = (found[name] - truth) / scale
                errors[name] = errors.get(name, 0) + relative.square().mean().item() / len(cases)
                difference = (double[name] - truth).abs().max().item()
                assert difference <= 1e-9 * scale + 1e-13, f"{name} in float64: {difference / scale:.1e}"
    for name in fast:
        error, allowed = fast[name] ** 0.5, own[name] ** 0.5
        assert error <= 2 * allowed + BAND, f"{name}: {error:.1e}, reference {allowed:.1e}"


def all_rules(make_inputs, **options):
    rules = itertools.product(("paper", "standardised"), (1.0, 1 / 16))
    return [
        (make_inputs(seed), {"activation_rule": rule, "annealing": annealing, **options})
        for seed, (rule, annealing) in enumerate(rules)
    ]


SIZES = [  # batch, height, width, children, parents, kernel, stride, iterations
    (2, 5, 7, 3, 5, 3, 2, 3),
    (1, 6, 6, 1, 1, 2, 1, 2),
    (3, 4, 4, 7, 9, 1, 1, 1),
    (2, 7, 7, 2, 17, 3, 3, 4),
    (1, 7, 6, 2, 16, 5, 2, 5),
    (1, 3, 4, 63, 7, 2, 1, 3),
    (2, 4, 3, 7, 63, 3, 1, 2),
    (7, 3, 3, 1, 8, 3, 1, 3),
    (1, 7, 7, 8, 16, 3, 2, 3),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("competition", ["child", "window"])
def test_conv_within_budget(size, competition):
    *sizes, stride, iterations = size
    cases = all_rules(lambda seed: conv_inputs(*sizes, iterations, seed=seed), stride=stride, competition=competition)
    assert_within_budget(conv_em_routing, cases)


@pytest.mark.parametrize(
    "size",
    [(2, 4, 4, 7, 5, 3), (1, 1, 1, 1, 1, 1), (3, 2, 5, 3, 10, 4), (1, 4, 5, 63, 7, 2), (5, 3, 3, 1, 17, 5)],
    ids=str,
)
@pytest.mark.parametrize("with_coordinates", [False, True])
def test_class_within_budget(size, with_coordinates):
    count = 7 if with_coordinates else 6
    assert_within_budget(class_em_routing, all_rules(lambda seed: class_inputs(*size, seed=seed)[:count]))


def extreme(name, seed):
    poses, activations, weight, *rest = conv_inputs(2, 5, 5, 3, 5, 3, 3, seed=seed)
    if name == "no activity":
        activations = torch.zeros_like(activations)
    elif name == "full activity":
        activations = torch.ones_like(activations)
    elif name == "identical votes":
        poses = torch.ones_like(poses)
        weight = torch.ones_like(weight)
    elif name == "large poses":
        poses = poses * 1e4
    elif name == "one child":
        activations = torch.zeros_like(activations)
        activations[:, 2, 2, 1] = 1
    elif name == "tiny activity":
        activations = activations * 1e-18
    return [poses, activations, weight, *rest]


@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize(
    "name", ["no activity", "full activity", "identical votes", "large poses", "one child", "tiny activity"]
)
def test_extreme_inputs(name, competition):
    cases = [
        (extreme(name, seed), {"annealing": annealing, "competition": competition})
        for seed in range(3)
        for annealing in (1.0, 1 / 16)
    ]
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
@pytest.mark.parametrize("rule", ["paper", "standardised"])
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


@pytest.mark.parametrize("rule", ["paper", "standardised"])
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
    assert_within_budget(
        class_em_routing, [(class_inputs(1, 19, 17, 3, 9, 3, seed=seed), options) for seed in range(2)]
    )
    for size, competition in (((1, 3, 3, 72, 33, 3, 2), "window"), ((1, 4, 3, 72, 3, 3, 2), "child")):
        cases = [(conv_inputs(*size, seed=seed), {**options, "competition": competition}) for seed in range(4)]
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
