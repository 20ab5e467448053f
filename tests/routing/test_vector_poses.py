"""Vector poses: 16 numbers transformed by 16×16 matrices, which the reference alone has."""

from typing import Any

import pytest
import torch
from torch import Tensor

from matcaps.routing import (
    RoutingIteration,
    available_implementations,
    resolve_implementation,
    trace_class_em_routing,
    trace_conv_em_routing,
)
from tests.support.cases import Case, make_case

KINDS: list[dict[str, Any]] = [
    {"competition": "child", "stride": 2},
    {"competition": "window", "activation_rule": "standardised"},
    {"kernel_size": None},
]

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=str)


def trace(case: Case, **changes: Any) -> list[RoutingIteration]:
    route = trace_class_em_routing if case.weight.ndim == 4 else trace_conv_em_routing
    return route(*case.tensors, **{**case.options, **changes})


def blocks(weight: Tensor) -> Tensor:
    """The 16×16 matrices that do to a pose, read row by row, what 4×4 matrices do to it: kron(I, W)."""
    return torch.einsum("rs,...kc->...rksc", torch.eye(4, dtype=weight.dtype), weight).flatten(-4, -3).flatten(-2)


def outcomes(case: Case, through: Any = lambda weight: weight) -> list[Tensor]:
    """Poses, activations, and the gradients of all tensors; the weight passes ``through`` on its way in."""
    leaves = [tensor.clone().requires_grad_() for tensor in case.tensors]
    poses, activations, weight, *betas = leaves
    out = case.with_tensors(poses, activations, through(weight), *betas).run(implementation="reference")
    generator = torch.Generator().manual_seed(7)
    wanted = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in out]
    return [*out, *torch.autograd.grad(list(out), leaves, wanted)]


def test_blocks_of_a_matrix_do_what_the_matrix_does(kind: dict[str, Any]) -> None:
    """vec(M W) = vec(M) kron(I, W), row by row: the same votes, so the same routing and, through kron, gradients."""
    case = make_case(**kind)
    for vector, matrix in zip(outcomes(case, blocks), outcomes(case), strict=True):
        torch.testing.assert_close(vector, matrix, rtol=1e-11, atol=1e-12)


def test_a_vote_is_the_flattened_pose_through_the_matrix(kind: dict[str, Any]) -> None:
    """Between one child and one parent, the parent's mean is the vote."""
    size = (1, 1) if kind.get("kernel_size", 3) is None else (3, 3)
    case = make_case(pose="vector", batch=1, size=size, children=1, parents=1, **kind)
    activations = torch.zeros_like(case.activations)
    activations[0, -1, -1, 0] = 1
    out = case.with_tensors(case.poses, activations, *case.tensors[2:]).run()
    vote = case.poses[0, -1, -1, 0].flatten() @ case.weight.flatten(0, -3)[-1]
    if "coordinates" in case.options:
        vote = vote + case.options["coordinates"][0, 0]
    torch.testing.assert_close(out.poses.flatten(), vote)


@pytest.mark.parametrize("num_iterations", [1, 2])
def test_gradcheck(kind: dict[str, Any], num_iterations: int) -> None:
    size = (2, 1) if kind.get("kernel_size", 3) is None else (4, 3)
    schedule = [0.05, 0.1][:num_iterations]
    case = make_case(pose="vector", batch=1, size=size, children=1, parents=2, inverse_temperature=schedule, **kind)
    leaves = [tensor.requires_grad_() for tensor in case.tensors]
    assert torch.autograd.gradcheck(lambda *moved: case.with_tensors(*moved).run(), leaves, fast_mode=True)


def test_the_trace_ends_where_the_routing_does(kind: dict[str, Any]) -> None:
    case = make_case(pose="vector", dtype=torch.float32, **kind)
    if "coordinates" in case.options:
        case.options["coordinates"] = case.options["coordinates"].float()
    states, out = trace(case), case.run()
    assert len(states) == 3
    assert torch.equal(states[-1].mean, out.poses.flatten(-2))
    assert torch.equal(states[-1].activation, out.activations)


def test_the_core_is_not_chosen_and_says_why(kind: dict[str, Any]) -> None:
    """Also in a trace, and also where the core is missing: no build of it would help."""
    assert resolve_implementation("cpu", torch.float32, vector_poses=True) == "reference"
    assert (resolve_implementation("cpu", torch.float32) == "native") == ("native" in available_implementations())
    case = make_case(pose="vector", **kind)
    for ours, theirs in zip(case.run(), case.run(implementation="reference"), strict=True):
        assert torch.equal(ours, theirs)
    for call in (case.run, lambda **options: trace(case, **options)):
        with pytest.raises(ValueError, match=r"4×4 matrices; got weight .*16, 16\].*use implementation='auto'"):
            call(implementation="native")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smaller_dtypes_come_back_as_they_came(kind: dict[str, Any], dtype: torch.dtype) -> None:
    """Computed in float32, whatever comes in: within its rounding of float64."""
    rounded = make_case(pose="vector", dtype=dtype, **kind)
    exact = rounded.with_tensors(*(tensor.double() for tensor in rounded.tensors))
    for ours, theirs in zip(rounded.run(), exact.run(), strict=True):
        assert ours.dtype == dtype
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < (2e-5 if dtype == torch.float32 else 4e-3)


@pytest.mark.filterwarnings("ignore")
def test_export(kind: dict[str, Any]) -> None:
    case = make_case(pose="vector", batch=1, size=(3, 3), children=2, parents=2, **kind)

    class Route(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
            return tuple(case.with_tensors(*tensors).run())

    exported = torch.export.export(Route(), case.tensors)
    torch.testing.assert_close(exported.module()(*case.tensors), tuple(case.run()))
