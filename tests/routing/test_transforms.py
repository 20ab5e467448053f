"""``torch.func`` over the routing: the values of the reference, in float64, or a refusal that names a way; never a zero
without a word."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from matcaps.capsules import Capsules
from matcaps.routing import available_implementations, choice, native, trace_conv_em_routing
from tests.support.cases import Case, make_case

needs_core = pytest.mark.skipif("native" not in available_implementations(), reason="the compiled core is missing")

KINDS = {
    "child": {"competition": "child", "stride": 2},
    "window": {"competition": "window", "activation_rule": "standardised"},
    "class": {"kernel_size": None},
}

Function = Callable[[Tensor], Tensor]


def case_of(kind: str) -> Case:
    options = {"inverse_temperature": torch.tensor([0.02, 0.05], dtype=torch.float64), **KINDS[kind]}
    return make_case(batch=2, size=(4, 5), children=2, parents=3, **options)


def three_of(parents: Capsules) -> Tensor:
    """Sums of activations alone hardly move under the standardised rule."""
    weighted = parents.activations * torch.arange(3, dtype=torch.float64)
    return torch.stack([parents.poses.square().sum(), weighted.sum(), parents.poses.sum()])


def summary(case: Case, implementation: str) -> tuple[Function, Function]:
    """Three numbers of a routing, by its poses and by its weights."""

    def of_poses(poses: Tensor) -> Tensor:
        parents = case.with_tensors(poses, *case.tensors[1:]).run(implementation=implementation)
        return three_of(parents)

    def of_weight(weight: Tensor) -> Tensor:
        parents = case.with_tensors(*case.tensors[:2], weight, *case.tensors[3:]).run(implementation=implementation)
        return three_of(parents)

    return of_poses, of_weight


def batched(function: Function, at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at), at, torch.eye(3, dtype=at.dtype), is_grads_batched=True)[0]


def vectorised(function: Function, at: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(function, at, vectorize=True)  # type: ignore[return-value]


def few(at: Tensor) -> Tensor:
    """Three variants of a tensor, to map over, not in the first dimension."""
    return torch.stack([at, at * 0.9, at + 0.1], dim=1)


FIRST_ORDER = {
    "grad": lambda f, at: grad(lambda x: f(x)[0])(at),
    "vjp": lambda f, at: vjp(f, at)[1](torch.tensor([1.0, 2.0, 3.0], dtype=at.dtype))[0],
    "jacrev": lambda f, at: jacrev(f)(at),
    "jacrev, in chunks": lambda f, at: jacrev(f, chunk_size=2)(at),
    "vmap": lambda f, at: vmap(f, in_dims=1)(few(at)),
    "vmap of vmap": lambda f, at: vmap(vmap(f, in_dims=1))(torch.stack([few(at), few(at) - 0.2])),
    "vmap of grad": lambda f, at: vmap(grad(lambda x: f(x)[1]), in_dims=1)(few(at)),
    "vmap of jacrev": lambda f, at: vmap(jacrev(f), in_dims=1)(few(at)),
    "grad of vmap": lambda f, at: grad(lambda x: vmap(f, in_dims=1)(few(x)).sum())(at),
    "backward of vmap": lambda f, at: plain_gradient(lambda x: vmap(f, in_dims=1)(few(x)).sum(), at),
    "is_grads_batched": batched,
    "jacobian, vectorised": vectorised,
}

NOT_OF_THE_CORE = {
    "jvp": lambda f, at: jvp(f, (at,), (torch.ones_like(at),))[1],
    "vmap of jvp": lambda f, at: vmap(lambda x: jvp(f, (x,), (torch.ones_like(x),))[1], in_dims=1)(few(at)),
    "jvp of vmap": lambda f, at: jvp(lambda x: vmap(f, in_dims=1)(few(x)), (at,), (torch.ones_like(at),))[1],
    "jvp of grad": lambda f, at: jvp(grad(lambda x: f(x)[0]), (at,), (torch.ones_like(at),))[1],
    "grad of jvp": lambda f, at: grad(lambda y: jvp(f, (y,), (torch.ones_like(y),))[1][0])(at),
    "grad under a dual level": lambda f, at: dual(grad(lambda x: f(x)[0]), at),
    "linearize": lambda f, at: linearize(f, at)[1](torch.ones_like(at)),
    "functionalize of grad": lambda f, at: functionalize(grad(lambda x: f(x)[0]))(at),
}

COMPILED = {
    "jvp": lambda f, at: compiled(lambda x: jvp(f, (x,), (torch.ones_like(x),))[1], at),
    "a dual level": lambda f, at: compiled(lambda x: dual(f, x), at),
    "grad": lambda f, at: compiled(grad(lambda x: f(x)[0]), at),
    "vmap": lambda f, at: compiled(lambda x: vmap(f, in_dims=1)(few(x)), at),
}


def plain_gradient(function: Function, at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at), at)[0]


def dual(function: Function, at: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(at, torch.ones_like(at)))).tangent  # type: ignore


def compiled(function: Function, at: Tensor) -> Tensor:
    torch._dynamo.reset()
    return torch.compile(function, backend="eager")(at)


@needs_core
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transform", FIRST_ORDER.values(), ids=FIRST_ORDER)
@pytest.mark.parametrize("argument", ["poses", "weight"])
def test_the_core_goes_along_and_has_the_references_values(kind, transform, argument, monkeypatch):
    case, index = case_of(kind), ("poses", "weight").index(argument)
    at = case.poses if argument == "poses" else case.weight
    expected = transform(summary(case, "reference")[index], at)
    assert expected.abs().max() > 1e-3
    for implementation in ("native", "auto"):
        found = transform(summary(case, implementation)[index], at)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    monkeypatch.setattr(choice, "resolve_implementation", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(pytest.fail.Exception):  # so it was not the reference that "auto" took
        transform(summary(case, "auto")[index], at)


def core_cannot() -> list[Any]:
    eager = [pytest.param(kind, f, id=f"{name}-{kind}") for name, f in NOT_OF_THE_CORE.items() for kind in KINDS]
    return eager + [pytest.param("class", f, id=f"{name} under torch.compile") for name, f in COMPILED.items()]


@needs_core
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # torch's own, of linearize
@pytest.mark.parametrize(("kind", "transform"), core_cannot())
def test_what_the_core_cannot_do_auto_leaves_to_the_reference_and_native_refuses(kind, transform):
    case = case_of(kind)
    of_poses, expected = summary(case, "auto")[0], transform(summary(case, "reference")[0], case.poses)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(
        transform(of_poses, case.poses), expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item()
    )
    with pytest.raises(
        Exception, match=r"matcaps: implementation='native' does not support .*use implementation='reference'"
    ):
        transform(summary(case, "native")[0], case.poses)


@needs_core
@pytest.mark.parametrize("nested", [hessian, lambda f: jacrev(jacrev(f)), lambda f: jacfwd(jacfwd(f))])
def test_second_derivatives_are_the_references(nested):
    case = case_of("class")

    def loss(beta: Tensor, implementation: str) -> Tensor:
        tensors = (*case.tensors[:4], beta)
        return case.with_tensors(*tensors).run(implementation=implementation).activations.square().sum()

    at = case.beta_activation
    expected = nested(lambda beta: loss(beta, "reference"))(at)
    assert expected.abs().max() > 1e-6
    torch.testing.assert_close(nested(lambda beta: loss(beta, "auto"))(at), expected)
    with pytest.raises(
        NotImplementedError, match=r"'native' does not support (second-order|forward-mode).*'reference'"
    ):
        nested(lambda beta: loss(beta, "native"))(at)


@needs_core
def test_mapped_schedules_and_coordinates_are_routed_one_by_one():
    case = case_of("class")
    schedules = torch.tensor([[0.02, 0.05], [0.2, 0.3]], dtype=torch.float64)
    places = torch.stack([case.options["coordinates"], 2 * case.options["coordinates"]])

    def route(schedule: Tensor, coordinates: Tensor) -> Tensor:
        return case.run(inverse_temperature=schedule, coordinates=coordinates, implementation="native").activations

    found = vmap(route)(schedules, places)
    expected = torch.stack([route(*pair) for pair in zip(schedules, places, strict=True)])
    assert torch.equal(found, expected)


@needs_core
def test_mapping_over_images_is_one_call_of_the_core(monkeypatch):
    case = case_of("child")
    assert native.LIBRARY is not None
    calls = []
    forward = native.LIBRARY.forward
    monkeypatch.setattr(native.LIBRARY, "forward", lambda problem: (calls.append(problem.batch), forward(problem)))
    with torch.no_grad():
        vmap(summary(case, "native")[0], in_dims=1)(few(case.poses))
    assert calls == [6]


@needs_core
def test_nothing_mapped_is_said():
    case = case_of("class")
    with pytest.raises(ValueError, match="must not be empty"):
        vmap(summary(case, "native")[1])(case.weight[None][:0])


def test_a_trace_under_a_transform_has_the_references_gradient():
    case = case_of("child")
    options = dict(case.options)

    def last(poses: Tensor, implementation: str) -> Tensor:
        states = trace_conv_em_routing(poses, *case.tensors[1:], **options, implementation=implementation)
        return states[-1].activation.sum()

    expected = plain_gradient(lambda poses: last(poses, "reference"), case.poses)
    torch.testing.assert_close(grad(lambda poses: last(poses, "auto"))(case.poses), expected)
    found = grad(lambda x: vmap(lambda poses: last(poses, "auto"))(torch.stack([x, x])).sum())(case.poses)
    torch.testing.assert_close(found, 2 * expected)
