"""The reference against numbers that do not come from it: closed forms, and loops over single capsules."""

import math

import pytest
import torch
from torch import Tensor

from matcaps.routing import em_routing, trace_conv_em_routing, trace_em_routing
from tests.support.cases import make_case


def test_one_iteration_is_the_weighted_gaussian() -> None:
    generator = torch.Generator().manual_seed(3)
    votes = torch.randn(5, 4, 16, generator=generator, dtype=torch.float64)
    activations = torch.rand(5, generator=generator, dtype=torch.float64)
    beta_use, beta_activation = torch.randn(2, 4, generator=generator, dtype=torch.float64)

    (state,) = trace_em_routing(
        votes, activations, beta_use, beta_activation, inverse_temperature=[0.3], variance_floor=1e-3
    )

    for parent in range(4):
        share = activations / activations.sum()
        mean = sum(share[child] * votes[child, parent] for child in range(5))
        variance = sum(share[child] * (votes[child, parent] - mean) ** 2 for child in range(5)) + 1e-3
        cost = activations.sum() / 4 * (16 * beta_use[parent] + sum(math.log(v) for v in variance) / 2)
        activation = 1 / (1 + math.exp(-0.3 * (beta_activation[parent] - cost)))
        torch.testing.assert_close(state.mean[parent], mean)
        torch.testing.assert_close(state.variance[parent], variance)
        torch.testing.assert_close(state.cost[parent], cost)
        assert state.activation[parent].item() == pytest.approx(activation, rel=1e-12)


def test_standardised_rule_by_hand(votes_case: tuple[Tensor, ...]) -> None:
    (state,) = trace_em_routing(*votes_case, inverse_temperature=[2.0], activation_rule="standardised")
    costs = state.cost[0].tolist()
    mean = sum(costs) / 4
    deviation = math.sqrt(sum((cost - mean) ** 2 for cost in costs) / 4)
    beta_activation = votes_case[3].tolist()
    for parent in range(4):
        logit = 2.0 * (beta_activation[parent] + (mean - costs[parent]) / (deviation + 1e-9))
        assert state.activation[0, parent].item() == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-12)


def test_relative_rule_by_hand(votes_case: tuple[Tensor, ...]) -> None:
    (plain,) = trace_em_routing(*votes_case, inverse_temperature=[2.0])
    (state,) = trace_em_routing(*votes_case, inverse_temperature=[2.0], activation_rule="relative")
    masses, costs, beta_activation = plain.mass[0].tolist(), plain.cost[0].tolist(), votes_case[3].tolist()
    usual = sum(costs) / sum(masses)
    for parent in range(4):
        cost = costs[parent] - masses[parent] * usual
        assert state.cost[0, parent].item() == pytest.approx(cost, rel=1e-9, abs=1e-12)
        logit = 2.0 * (beta_activation[parent] - cost)
        assert state.activation[0, parent].item() == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-9)


def test_under_the_relative_rule_the_scale_of_all_votes_does_not_matter(votes_case: tuple[Tensor, ...]) -> None:
    """Under the paper's, one per cent of scale is 0.16 nats a unit of data."""
    votes, *others = votes_case
    options = {"inverse_temperature": [0.1, 0.2, 0.3], "variance_floor": 1e-30, "annealing": 0.3}
    for rule, is_same in (("relative", True), ("paper", False)):
        one, other = (
            trace_em_routing(scale * votes, *others, activation_rule=rule, **options)[-1].activation
            for scale in (1.0, 30.0)
        )
        assert torch.allclose(one, other, rtol=1e-6) == is_same


def test_without_data_the_relative_rule_leaves_the_reward_alone() -> None:
    votes, beta = torch.randn(1, 3, 2, 16), torch.tensor([0.5, -0.5])
    (state,) = trace_em_routing(
        votes, torch.zeros(1, 3), torch.zeros(2), beta, inverse_temperature=[2.0], activation_rule="relative"
    )
    torch.testing.assert_close(state.activation[0], (2.0 * beta).sigmoid())


def test_assignments_follow_the_gaussian_densities(votes_case: tuple[Tensor, ...]) -> None:
    votes, *_ = votes_case
    first, second = trace_em_routing(*votes_case, inverse_temperature=[0.1, 0.2])
    for child in range(5):
        weights = []
        for parent in range(4):
            density = math.prod(
                math.exp(-((v - m) ** 2) / (2 * s)) / math.sqrt(2 * math.pi * s)
                for v, m, s in zip(
                    votes[0, child, parent].tolist(),
                    first.mean[0, parent].tolist(),
                    first.variance[0, parent].tolist(),
                    strict=True,
                )
            )
            weights.append(first.activation[0, parent].item() * density)
        for parent in range(4):
            expected = weights[parent] / sum(weights)
            assert second.assignment[0, child, parent].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_child_competition_by_single_capsules(stride: int) -> None:
    """The E-step of child competition, written as loops over children and the windows that cover each."""
    case = make_case(batch=1, size=(6, 5), children=2, parents=3, stride=stride, annealing=0.25)
    first, second = trace_conv_em_routing(*case.tensors, **{**case.options, "inverse_temperature": [0.1, 0.2]})
    kernel, rows, columns = 3, first.mean.shape[1], first.mean.shape[2]
    votes = {}
    for row in range(rows):
        for column in range(columns):
            for k in range(kernel):
                for l in range(kernel):  # noqa: E741
                    for i in range(2):
                        pose = case.poses[0, row * stride + k, column * stride + l, i]
                        for j in range(3):
                            votes[row, column, k, l, i, j] = (pose @ case.weight[k, l, i, j]).flatten()
    covering: dict[tuple[int, int, int], list[tuple[int, ...]]] = {}
    for row, column, k, l, i, _ in votes:  # noqa: E741
        places = covering.setdefault((row * stride + k, column * stride + l, i), [])
        if (row, column, k, l) not in places:
            places.append((row, column, k, l))
    for (_, _, i), places in covering.items():
        scores = {}
        for row, column, k, l in places:  # noqa: E741
            index = (k * kernel + l) * 2 + i
            for j in range(3):
                assert first.assignment[0, row, column, index, j].item() == pytest.approx(1 / (3 * len(places)))
                mean, variance = first.mean[0, row, column, j], first.variance[0, row, column, j]
                distance = (votes[row, column, k, l, i, j] - mean) ** 2 / variance + variance.log()
                log_density = -0.5 * 0.25 * distance.sum().item()
                scores[row, column, index, j] = first.activation[0, row, column, j].item() * math.exp(log_density)
        for (row, column, index, j), score in scores.items():
            expected = score / sum(scores.values())
            assert second.assignment[0, row, column, index, j].item() == pytest.approx(expected, rel=1e-9)


def test_trace_ends_with_what_routing_returns(votes_case: tuple[Tensor, ...]) -> None:
    states = trace_em_routing(*votes_case, inverse_temperature=[0.1, 0.2, 0.3])
    mean, activation = em_routing(*votes_case, inverse_temperature=[0.1, 0.2, 0.3], implementation="reference")
    assert len(states) == 3
    torch.testing.assert_close(states[-1].mean, mean, rtol=0, atol=0)
    torch.testing.assert_close(states[-1].activation, activation, rtol=0, atol=0)
