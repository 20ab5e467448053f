"""The compiled core's record of every iteration against the reference's."""

import itertools

import pytest
import torch

from matcaps.capsules import RoutingIteration
from matcaps.routing import native, trace_class_em_routing, trace_conv_em_routing
from tests.support.routings import CONV_SIZES, class_inputs, conv_inputs

pytestmark = pytest.mark.skipif(native.LIBRARY is None, reason=str(native.MISSING))


def assert_same_states(trace, inputs, count, **options):
    """Hold the states of float64 to 1e-9 and those of float32 to what single precision leaves, for every rule."""
    *tensors, schedule = inputs[: count + 1]
    for rule, annealing, (dtype, tolerance) in itertools.product(
        ("paper", "standardised", "relative"), (1.0, 1 / 16), ((torch.float64, 1e-9), (torch.float32, 2e-3))
    ):
        converted = [tensor.detach().to(dtype) for tensor in tensors]
        asked = {"inverse_temperature": schedule.detach().tolist(), "activation_rule": rule, "annealing": annealing}
        found, expected = (
            trace(*converted, **asked, **options, implementation=implementation)
            for implementation in ("native", "reference")
        )
        assert len(found) == len(expected) == len(schedule)
        for state, truth in zip(found, expected, strict=True):
            for name in RoutingIteration._fields:
                value, right = getattr(state, name), getattr(truth, name)
                assert value.shape == right.shape, name
                assert value.dtype == dtype
                scale = right.abs().max().item() + 1e-12
                if name == "cost":  # under the relative rule a difference of what is as large as the data
                    scale += truth.mass.max().item()
                assert (value - right).abs().max().item() <= tolerance * scale, (name, rule, annealing, dtype)


@pytest.mark.parametrize("size", CONV_SIZES, ids=str)
@pytest.mark.parametrize("competition", ["child", "window"])
def test_conv_states(size, competition):
    *sizes, stride, iterations = size
    inputs = conv_inputs(*sizes, iterations, seed=3)
    assert_same_states(trace_conv_em_routing, inputs, 5, stride=stride, competition=competition)


@pytest.mark.parametrize("size", [(2, 4, 4, 7, 5, 3), (1, 1, 1, 1, 1, 1), (3, 2, 5, 3, 17, 4)], ids=str)
def test_class_states(size):
    inputs = class_inputs(*size, seed=5)
    assert_same_states(trace_class_em_routing, inputs, 5)


def test_every_instruction_set_reads_the_same():
    inputs = [tensor.detach() for tensor in conv_inputs(2, 5, 7, 3, 17, 3, 3, seed=1)]
    *tensors, schedule = inputs
    before, states = native.LIBRARY.target, {}
    try:
        for target in ("baseline", "avx2", "avx512", "neon"):
            if native.LIBRARY.set_target(target):
                states[target] = trace_conv_em_routing(*tensors, stride=2, inverse_temperature=schedule.tolist())
    finally:
        native.LIBRARY.set_target(before)
    first = states.pop(next(iter(states)))
    for found in states.values():
        for state, expected in zip(found, first, strict=True):
            for value, right in zip(state, expected, strict=True):
                torch.testing.assert_close(value, right, rtol=1e-9, atol=1e-9)


def test_gradients_come_from_the_reference():
    *tensors, schedule = conv_inputs(1, 5, 5, 2, 3, 3, 2, seed=0)
    weight = tensors[2].detach().requires_grad_()
    inputs = [*tensors[:2], weight, *tensors[3:]]
    options = {"inverse_temperature": schedule.detach().tolist()}
    assert trace_conv_em_routing(*inputs, **options)[-1].mean.requires_grad
    learned = schedule.detach().requires_grad_()
    plain = [tensor.detach() for tensor in tensors]
    assert trace_conv_em_routing(*plain, inverse_temperature=learned)[-1].activation.requires_grad
    with pytest.raises(ValueError, match="traces without gradients"):
        trace_conv_em_routing(*inputs, **options, implementation="native")
    with torch.no_grad():
        assert not trace_conv_em_routing(*inputs, **options, implementation="native")[-1].mean.requires_grad
