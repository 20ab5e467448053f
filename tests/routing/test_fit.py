"""How the last Gaussians fit, which a layer's statistics are made of, is the same whatever computes the routing."""

from dataclasses import replace

import pytest
import torch

from matcaps.routing import (
    RoutingInputs,
    RoutingSpec,
    available_implementations,
    fit_class_em_routing,
    fit_conv_em_routing,
    trace_class,
    trace_conv,
)

COMPILED = [name for name in available_implementations() if name != "reference"]


def inputs(num_parents: int, *kernel: int, iterations: int = 1) -> RoutingInputs:
    generator = torch.Generator().manual_seed(num_parents)
    return RoutingInputs(
        torch.randn(2, 5, 6, 3, 4, 4, generator=generator),
        torch.rand(2, 5, 6, 3, generator=generator),
        torch.randn(*kernel, 3, num_parents, 4, 4, generator=generator),
        torch.randn(num_parents, generator=generator) / 10,
        torch.randn(num_parents, generator=generator),
        torch.full([iterations], 0.02),
    )


@pytest.mark.parametrize("implementation", ["reference", *COMPILED])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("num_parents", [3, 17])
@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize("rule", ["paper", "standardised", "relative"])
def test_the_fit_of_a_convolution_is_that_of_its_last_state(implementation, iterations, num_parents, competition, rule):
    tensors = inputs(num_parents, 3, 3, iterations=iterations)
    spec = RoutingSpec(2, competition, rule, annealing=0.3, implementation="reference")
    last = trace_conv(tensors, spec)[-1]
    parents, fit = fit_conv_em_routing(tensors, replace(spec, implementation=implementation))
    torch.testing.assert_close(parents.activations, last.activation, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fit.mass, last.mass, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fit.cost, last.cost, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["reference", *COMPILED])
@pytest.mark.parametrize("iterations", [1, 3])
def test_the_fit_of_class_capsules_is_that_of_their_last_state(implementation, iterations):
    tensors = inputs(5, iterations=iterations)._replace(coordinates=torch.rand(5, 6, 16))
    spec = RoutingSpec(activation_rule="relative", annealing=0.3, implementation="reference")
    last = trace_class(tensors, spec)[-1]
    _, fit = fit_class_em_routing(tensors, replace(spec, implementation=implementation))
    torch.testing.assert_close(fit.mass, last.mass, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fit.cost, last.cost, rtol=1e-4, atol=1e-4)


def test_no_fit_comes_unless_it_is_wanted():
    _, fit = fit_conv_em_routing(inputs(3, 3, 3), RoutingSpec(), wants_fit=False)
    assert fit is None
