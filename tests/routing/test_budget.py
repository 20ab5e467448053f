"""The error budget catches faults that are small, and lets sound code pass, whatever the processor."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache, reduce
from typing import Any

import pytest
import torch
from torch import Tensor

from matcaps.routing import class_em_routing, conv_em_routing, reference
from tests.support import budget
from tests.support.budget import Rounding, judge, run
from tests.support.routings import all_rules, class_inputs, conv_inputs

pytestmark = pytest.mark.usefixtures("one_thread")


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, grad):
        return 1.001 * grad


def _gradient_of_the_variance(m_step, log_density):
    """The variance of the E-step passes a gradient that is larger by a thousandth."""
    return m_step, lambda votes, mean, variance: log_density(votes, mean, _ScaleGradient.apply(variance))


def _gradient_of_the_mass(m_step, log_density):
    def faulty(*arguments):
        mean, variance, mass, cost = m_step(*arguments)
        return mean, variance, mass, _ScaleGradient.apply(cost)

    return faulty, log_density


def _sum_without_correction(m_step, log_density):
    """The sums of the M-step run from child to child, as a plain loop in float32 does."""

    def total(terms, dim):
        return reduce(torch.add, terms.unbind(dim))

    def faulty(votes, activations, assignment, beta_use, variance_floor):
        data = assignment * activations.unsqueeze(-1)
        mass = total(data, -2)
        share = (data / mass.clamp_min(reference.EMPTY_MASS).unsqueeze(-2)).unsqueeze(-1)
        mean = total(share * votes, -3)
        variance = total(share * (votes - mean.unsqueeze(-3)) ** 2, -3) + variance_floor
        return mean, variance, mass, mass * (beta_use.unsqueeze(-1) + variance.log() / 2).sum(dim=-1)

    return faulty, log_density


def _one_child_left_out(m_step, log_density):
    def faulty(votes, activations, assignment, beta_use, variance_floor):
        there = torch.ones_like(activations)
        there[..., -1] = 0
        return m_step(votes, activations * there, assignment, beta_use, variance_floor)

    return faulty, log_density


def _wrong_floor(m_step, log_density):
    return lambda *arguments: m_step(*arguments[:-1], arguments[-1] * 1.01), log_density


def _variance_as_a_difference(m_step, log_density):
    """Σ s V² − µ², which loses the variance where the mean is far from 0."""

    def faulty(votes, activations, assignment, beta_use, variance_floor):
        mean, _, mass, _ = m_step(votes, activations, assignment, beta_use, variance_floor)
        data = assignment * activations.unsqueeze(-1)
        share = (data / mass.clamp_min(reference.EMPTY_MASS).unsqueeze(-2)).unsqueeze(-1)
        variance = (share * votes**2).sum(dim=-3) - mean**2 + variance_floor
        return mean, variance, mass, mass * (beta_use.unsqueeze(-1) + variance.log() / 2).sum(dim=-1)

    return faulty, log_density


@contextlib.contextmanager
def planted(fault: Any) -> Iterator[None]:
    """Within it the reference has a fault."""
    sound = reference._m_step, reference._log_density
    reference._m_step, reference._log_density = fault(*sound)
    try:
        yield
    finally:
        reference._m_step, reference._log_density = sound


def judge_reference(function: Any, cases: Any, fault: Any = None) -> list[str]:
    def compute(inputs: Sequence[Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
        with contextlib.nullcontext() if fault is None else planted(fault):
            return run(function, inputs, torch.float32, "reference", **options)

    # what is sound must pass, if need be by many draws; a fault is too large for them to matter
    draws = (budget.FEW, budget.DRAWS) if fault is None else (budget.FEW,)
    return judge(function, cases, compute, draws=draws, roundings=_roundings(function, cases))


_KNOWN: dict[int, tuple[Any, list[Rounding]]] = {}


def _roundings(function: Any, cases: Any) -> list[Rounding]:
    """Made once for all the faults that are planted in the same cases."""
    if id(cases) not in _KNOWN:
        _KNOWN[id(cases)] = cases, budget.roundings_of(function, cases)
    return _KNOWN[id(cases)][1]


@cache
def conv_cases(competition: str) -> Any:
    return all_rules(lambda seed: conv_inputs(2, 5, 5, 3, 4, 3, 3, seed=seed), stride=2, competition=competition)


@cache
def many_children(far: float = 0.0) -> Any:
    """Soft routings of 4,000 children; if ``far`` is not 0, of votes that lie together so far from 0."""

    def inputs(seed: int) -> list[Tensor]:
        poses, activations, weight, *rest = class_inputs(1, 25, 40, 4, 2, 2, seed=seed)
        if far:
            poses, weight = poses + far, weight[:1].expand_as(weight)
        return [poses, activations, weight, *rest]

    return [case for case in all_rules(inputs) if case[1]["annealing"] < 1]


@pytest.mark.parametrize("competition", ["child", "window"])
def test_the_reference_in_float32_passes(competition):
    assert judge_reference(conv_em_routing, conv_cases(competition)) == []


@pytest.mark.parametrize("far", [0.0, 30.0])
def test_the_reference_in_float32_passes_with_many_children(far):
    assert judge_reference(class_em_routing, many_children(far)) == []


@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize("fault", [_gradient_of_the_variance, _gradient_of_the_mass, _one_child_left_out, _wrong_floor])
def test_a_planted_fault_is_caught(fault, competition):
    assert judge_reference(conv_em_routing, conv_cases(competition), fault)


@pytest.mark.parametrize("fault", [_gradient_of_the_variance, _gradient_of_the_mass])
def test_a_fault_in_a_gradient_is_named(fault):
    complaints = judge_reference(conv_em_routing, conv_cases("child"), fault)
    assert all(line.startswith("grad ") for line in complaints), complaints


@pytest.mark.parametrize(
    ("fault", "far"),
    [
        (_sum_without_correction, 0.0),
        (_one_child_left_out, 0.0),
        (_wrong_floor, 0.0),
        (_variance_as_a_difference, 30.0),
    ],
)
def test_a_fault_among_many_children_is_caught(fault, far):
    assert judge_reference(class_em_routing, many_children(far), fault)


def test_a_fault_in_float64_is_caught():
    def off(inputs, options):
        results = run(conv_em_routing, inputs, torch.float64, "reference", **options)
        return {**results, "poses": results["poses"] * (1 + 1e-8)}

    def sound(inputs, options):
        return run(conv_em_routing, inputs, torch.float32, "reference", **options)

    complaints = judge(conv_em_routing, conv_cases("child")[:2], sound, off)
    assert len(complaints) == 2
    assert complaints[0].startswith("poses in float64 is off by")


def test_nan_is_no_small_error():
    def nan(inputs, options):
        results = run(conv_em_routing, inputs, torch.float32, "reference", **options)
        return {**results, "activations": results["activations"] * torch.nan}

    assert [line.split(":")[0] for line in judge(conv_em_routing, conv_cases("child"), nan, draws=(budget.FEW,))] == [
        "activations"
    ]


def test_the_budget_is_the_same_on_every_processor():
    """It is computed in float64 from draws of their own: no sum of torch's in float32 has a part in it."""
    (inputs, options), allowed = conv_cases("child")[0], []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rounding = Rounding(lambda: budget.truth_of(conv_em_routing, inputs, **options))
        rounding.draw(budget.FEW)
        allowed.append(rounding._squares)
    for name, value in allowed[0].items():
        assert value == pytest.approx(allowed[1][name], rel=1e-4), name


def test_rounding_is_drawn_for_every_operation_that_rounds():
    """Each name is in one list, and what the reference does is known: a new operation must be looked at."""
    seen: set[str] = set()

    class Watch(budget.RandomRounding):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.add(func.overloadpacket.__name__)
            return super().__torch_dispatch__(func, types, args, kwargs)

    with Watch(0):
        for competition in ("child", "window"):
            budget.truth_of(conv_em_routing, conv_cases(competition)[0][0], competition=competition)
        budget.truth_of(class_em_routing, many_children()[3][0], activation_rule="standardised")
    rounds = seen - budget._EXACT
    assert {"add", "mul", "exp", "log", "sum", "bmm", "logsumexp", "div", "pow", "log_sigmoid_forward"} <= rounds
    assert not {"clone", "view", "copy_", "where", "slice_backward"} & rounds
