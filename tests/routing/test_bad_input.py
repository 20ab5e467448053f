"""What the operator's doors refuse, and how."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from matcaps.routing import class_em_routing, conv_em_routing, em_routing, resolve_implementation, trace_em_routing
from tests.support.cases import make_case


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"activations": torch.rand(2, 6)}, ValueError, r"votes must have shape .* got votes \[2, 5, 4, 16\]"),
        ({"votes": torch.rand(2, 5, 4, 4, 4)}, ValueError, r"flatten the pose, votes\.flatten\(-2\)"),
        (
            {"votes": torch.zeros(2, 5, 4, 16, dtype=torch.int64)},
            TypeError,
            r"votes must be floating point.*\.float\(\)",
        ),
        ({"votes": [[1.0]]}, TypeError, r"votes must be a torch\.Tensor; got list"),
        ({"votes": torch.rand(2, 5, 0, 16)}, ValueError, "at least one J"),
        ({"beta_use": torch.zeros(3)}, ValueError, r"beta_use must have shape \[J\] = \[4\].*got \[3\]"),
        ({"beta_activation": torch.zeros(4, device="meta")}, ValueError, "on the device of votes, cpu; got meta"),
        ({"inverse_temperature": 1.0}, TypeError, r"for one iteration write \[1\.0\]"),
        ({"inverse_temperature": np.array([1.0, 2.0])}, TypeError, "one value an iteration.*make it a list"),
        ({"inverse_temperature": []}, ValueError, "at least one value"),
        ({"inverse_temperature": [1.0, -1.0]}, ValueError, "positive and finite"),
        ({"inverse_temperature": torch.ones(2, 2)}, ValueError, r"of shape \[T\]"),
        ({"activation_rule": "hinton"}, ValueError, r"\('paper', 'standardised', 'relative'\); got 'hinton'"),
        ({"variance_floor": 0.0}, ValueError, "variance_floor must be positive"),
        ({"annealing": float("nan")}, ValueError, "annealing must be positive"),
        ({"implementation": "opencl"}, ValueError, "implementation must be"),
    ],
)
def test_em_routing(
    votes_case: tuple[Tensor, ...], changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    names = ("votes", "activations", "beta_use", "beta_activation")
    arguments: dict[str, Any] = dict(zip(names, votes_case, strict=True))
    arguments |= {"inverse_temperature": [1.0], **changes}
    with pytest.raises(error, match=message):
        em_routing(**arguments)
    if "implementation" not in changes:
        with pytest.raises(error, match=message):
            trace_em_routing(**arguments)


def test_numpys_numbers_are_numbers(votes_case: tuple[Tensor, ...]) -> None:
    one = em_routing(*votes_case, inverse_temperature=[np.float32(0.5), np.int64(1)], annealing=np.float64(0.25))
    two = em_routing(*votes_case, inverse_temperature=[0.5, 1.0], annealing=0.25)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": torch.rand(2, 7, 6, 3, 16)}, r"poses must have shape \[B, H, W, I, 4, 4\]; got \[2, 7, 6, 3, 16\]"),
        ({"activations": torch.rand(2, 7, 6, 2)}, r"activations must have shape .* = \[2, 7, 6, 3\]"),
        ({"weight": torch.rand(3, 2, 3, 4, 4, 4)}, r"weight must have shape \[K, K, I, J, 4, 4\]"),
        (
            {"weight": torch.rand(3, 3, 3, 4, 4, 16)},
            r"weight must have shape \[K, K, I, J, 4, 4\] or, for vector poses, \[K, K, I, J, 16, 16\]; got "
            r"\[3, 3, 3, 4, 4, 16\]",
        ),
        ({"weight": torch.rand(3, 3, 3, 4, 8, 8)}, r"\[K, K, I, J, 16, 16\]; got \[3, 3, 3, 4, 8, 8\]"),
        ({"weight": torch.rand(3, 3, 5, 4, 16, 16)}, "number of child types I; got 3 in poses .* and 5 in weight"),
        ({"weight": torch.rand(3, 3, 3, 0, 16, 16)}, r"\[K, K, I, J, 16, 16\] must have at least one J; got"),
        ({"weight": torch.rand(3, 3, 5, 4, 4, 4)}, "number of child types I; got 3 in poses .* and 5 in weight"),
        ({"weight": torch.rand(8, 8, 3, 4, 4, 4)}, r"at least as many rows and columns as the kernel, which is 8×8"),
        ({"stride": 0}, "stride must be a whole number of at least 1; got 0"),
        ({"stride": 1.5}, "stride must be"),
        ({"competition": "none"}, r"\('child', 'window'\); got 'none'"),
        ({"beta_use": torch.zeros(5, dtype=torch.float64)}, r"beta_use must have shape \[J\] = \[4\]"),
    ],
)
def test_conv_em_routing(changes: dict[str, Any], message: str) -> None:
    case = make_case()
    names = ("poses", "activations", "weight", "beta_use", "beta_activation")
    with pytest.raises(ValueError, match=message):
        conv_em_routing(**{**dict(zip(names, case.tensors, strict=True)), **case.options, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.rand(3, 3, 3, 4, 4, 4)}, r"weight must have shape \[I, J, 4, 4\]"),
        (
            {"weight": torch.rand(3, 3, 3, 4, 16, 16)},
            r"weight must have shape \[I, J, 4, 4\] or, for vector poses, \[I, J, 16, 16\]; got "
            r"\[3, 3, 3, 4, 16, 16\]",
        ),
        ({"weight": torch.rand(3, 4, 16, 4)}, r"\[I, J, 16, 16\]; got \[3, 4, 16, 4\]"),
        (
            {"coordinates": torch.rand(7, 6, 2)},
            r"coordinates must have shape \[H, W, P\] = \[7, 6, 16\]; got \[7, 6, 2\]",
        ),
        ({"weight": torch.rand(2, 4, 4, 4)}, "number of child types"),
    ],
)
def test_class_em_routing(changes: dict[str, Any], message: str) -> None:
    case = make_case(kernel_size=None)
    names = ("poses", "activations", "weight", "beta_use", "beta_activation")
    with pytest.raises(ValueError, match=message):
        class_em_routing(**{**dict(zip(names, case.tensors, strict=True)), **case.options, **changes})


def test_resolve_implementation_wants_a_floating_dtype() -> None:
    with pytest.raises(TypeError, match="floating point"):
        resolve_implementation("cpu", torch.int32)


@pytest.mark.parametrize("pose", ["matrix", "vector"])
def test_an_empty_batch_is_no_error(pose: str) -> None:
    out = make_case(batch=0, pose=pose).run()
    assert out.poses.shape == (0, 5, 4, 4, 4, 4)
