"""Laws that hold for any correct routing, in float64, for every implementation at hand.

The GPU path is held to them by ``make test-cuda``: in the emulator, for which each routing is compiled, they are slow.
"""

import statistics
from typing import Any

import pytest
import torch

from matcaps.capsules import Capsules
from matcaps.routing import resolve_implementation, trace_conv_em_routing
from tests.support.budget import DRAWS, Rounding, largest_typical
from tests.support.cases import Case, make_case
from tests.support.cuda_cases import ALL, DEVICE, RUNS

IMPLEMENTATIONS = [
    *sorted({"reference", resolve_implementation("cpu", torch.float64)}),
    *(["cuda"] if ALL and RUNS else []),
]
IS_EMULATED = DEVICE == "cpu"
CONV = [
    {"competition": competition, "activation_rule": rule}
    for competition in ("child", "window")
    for rule in ("paper", "standardised", "relative")
]
KINDS: list[dict[str, Any]] = [
    *CONV,
    *({"kernel_size": None, "activation_rule": rule} for rule in ("paper", "standardised", "relative")),
]

pytestmark = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


@pytest.fixture(autouse=True)
def device(implementation: str, request: pytest.FixtureRequest) -> None:
    """Have the emulator stand in where there is no GPU."""
    if implementation == "cuda":
        request.getfixturevalue("cuda_device")


def case_for(implementation: str, **options: Any) -> Case:
    """A case on the device on which the implementation computes."""
    return make_case(**options).to(torch.float64, DEVICE if implementation == "cuda" else "cpu")


def close(actual: Capsules, expected: Capsules, tolerance: float = 1e-9) -> None:
    """Hold the sides of a law together."""
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


_ROUNDINGS: dict[str, Rounding] = {}


def rounding_of(**options: Any) -> Rounding:
    """What rounding to float32 must cost a case, for all implementations."""
    name = str(options)
    if name not in _ROUNDINGS:
        exact = make_case(**options)
        _ROUNDINGS[name] = Rounding(lambda: exact.run(implementation="reference")._asdict())
        _ROUNDINGS[name].draw(DRAWS)
    return _ROUNDINGS[name]


def with_children(case: Case, order: torch.Tensor) -> Case:
    """The case with its child types reordered, weights along with them."""
    poses, activations, weight, *betas = case.tensors
    order = order.to(poses.device)
    return case.with_tensors(
        poses[:, :, :, order], activations[..., order], weight.index_select(weight.ndim - 4, order), *betas
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_order_of_child_types_changes_nothing(kind: dict[str, Any], implementation: str) -> None:
    case = case_for(implementation, **kind)
    shuffled = with_children(case, torch.tensor([2, 0, 1]))
    close(shuffled.run(implementation=implementation), case.run(implementation=implementation))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_order_of_parents_only_reorders_them(kind: dict[str, Any], implementation: str) -> None:
    case = case_for(implementation, **kind)
    poses, activations, weight, use, reward = case.tensors
    order = torch.tensor([3, 1, 0, 2], device=poses.device)
    shuffled = case.with_tensors(
        poses, activations, weight.index_select(weight.ndim - 3, order), use[order], reward[order]
    ).run(implementation=implementation)
    plain = case.run(implementation=implementation)
    close(shuffled, Capsules(plain.poses[..., order, :, :], plain.activations[..., order]))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_child_that_is_not_there_changes_nothing(kind: dict[str, Any], implementation: str) -> None:
    case = case_for(implementation, **kind)
    poses, activations, weight, *betas = case.tensors
    activations = activations.clone()
    activations[..., 1] = 0
    silent = case.with_tensors(poses, activations, weight, *betas)
    other_poses = poses.clone()
    other_poses[:, :, :, 1] = 100 * torch.randn_like(other_poses[:, :, :, 1])
    changed = case.with_tensors(other_poses, activations, weight, *betas)
    plain = silent.run(implementation=implementation)
    close(changed.run(implementation=implementation), plain)
    close(with_children(silent, torch.tensor([0, 2])).run(implementation=implementation), plain)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_batch_is_its_images_one_by_one(kind: dict[str, Any], implementation: str) -> None:
    case = case_for(implementation, batch=3, **kind)
    together = case.run(implementation=implementation)
    for image in range(3):
        one = case.with_tensors(case.poses[image : image + 1], case.activations[image : image + 1], *case.tensors[2:])
        whole = Capsules(together.poses[image : image + 1], together.activations[image : image + 1])
        close(one.run(implementation=implementation), whole, 1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", CONV, ids=str)
def test_translation_by_the_stride(kind: dict[str, Any], stride: int, implementation: str) -> None:
    """Under child competition edges reach inwards, from window to window, an iteration; with window competition not."""
    if implementation == "cuda" and IS_EMULATED:
        schedule, size = [0.02, 0.05], {1: 12, 2: 13}[stride]
    else:
        schedule, size = [0.02, 0.05, 0.1], 19
    case = case_for(
        implementation, batch=1, size=(size, size), children=2, parents=3, stride=stride,
        inverse_temperature=schedule, **kind,
    )  # fmt: skip
    moved = case.with_tensors(
        case.poses.roll((stride, stride), (1, 2)), case.activations.roll((stride, stride), (1, 2)), *case.tensors[2:]
    )
    plain, moved_out = case.run(implementation=implementation), moved.run(implementation=implementation)
    margin = len(schedule) * 2 // stride if kind["competition"] == "child" else 1
    inner = slice(margin, plain.poses.shape[1] - margin - 1)
    shifted = slice(margin + 1, plain.poses.shape[1] - margin)
    assert plain.poses[:, inner, inner].numel() > 0
    close(
        Capsules(moved_out.poses[:, shifted, shifted], moved_out.activations[:, shifted, shifted]),
        Capsules(plain.poses[:, inner, inner], plain.activations[:, inner, inner]),
    )


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_each_covered_child_gives_itself_away_once(stride: int, implementation: str) -> None:
    height, width = 9, 8
    case = case_for(implementation, size=(height, width), stride=stride)
    for state in trace_conv_em_routing(*case.tensors, **case.options, implementation=implementation):
        totals = torch.zeros(2, height, width, 3, dtype=case.poses.dtype)
        covered = torch.zeros(height, width, dtype=torch.bool)
        windows = state.assignment.sum(dim=-1).unflatten(3, (3, 3, 3)).cpu()
        for row in range(windows.shape[1]):
            for column in range(windows.shape[2]):
                place = (slice(row * stride, row * stride + 3), slice(column * stride, column * stride + 3))
                totals[(slice(None), *place)] += windows[:, row, column]
                covered[place] = True
        torch.testing.assert_close(totals[:, covered], torch.ones_like(totals[:, covered]))
        assert (totals[:, ~covered] == 0).all()


@pytest.mark.parametrize("kind", CONV, ids=str)
def test_uncovered_children_get_no_gradient(kind: dict[str, Any], implementation: str) -> None:
    case = case_for(implementation, size=(6, 6), stride=2, **kind)
    poses = case.poses.clone().requires_grad_()
    case.with_tensors(poses, *case.tensors[1:]).run(implementation=implementation).poses.sum().backward()
    assert poses.grad is not None
    assert (poses.grad[:, 5] == 0).all()
    assert (poses.grad[:, :, 5] == 0).all()
    assert (poses.grad[:, :5, :5] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("extreme", ["identical votes", "all silent", "all active", "huge poses", "one child"])
def test_extremes_stay_finite(kind: dict[str, Any], dtype: torch.dtype, extreme: str, implementation: str) -> None:
    case = case_for(implementation, children=1 if extreme == "one child" else 3, **kind)
    case = case.to(dtype, case.poses.device.type)
    poses, activations, weight, *betas = (tensor.clone() for tensor in case.tensors)
    options = dict(case.options)
    if extreme == "identical votes":
        poses[:] = poses[0, 0, 0, 0]
        weight[:] = weight.flatten(0, -4)[0]
        if "coordinates" in options:
            options["coordinates"] = None
    elif extreme == "all silent":
        activations.zero_()
    elif extreme == "all active":
        activations.fill_(1)
    elif extreme == "huge poses":
        poses *= 1e4
    tensors = [tensor.requires_grad_() for tensor in (poses, activations, weight, *betas)]
    out = Case(*tensors, options).run(implementation=implementation)
    (out.poses.sum() + out.activations.sum()).backward()
    for tensor in (*out, *(tensor.grad for tensor in tensors)):
        assert torch.isfinite(tensor).all()
    assert ((out.activations >= 0) & (out.activations <= 1)).all()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("num_iterations", [1, 3])
def test_gradcheck(kind: dict[str, Any], num_iterations: int, implementation: str) -> None:
    if implementation == "cuda" and IS_EMULATED:
        pytest.skip("a thousand passes: the emulated kernels' gradients are held against the reference's")
    case = make_case(
        batch=1, size=(4, 3), children=2, parents=2, inverse_temperature=[0.02, 0.05, 0.1][:num_iterations], **kind
    ).to(torch.float64, DEVICE if implementation == "cuda" else "cpu")
    tensors = [tensor.requires_grad_() for tensor in case.tensors]
    # every element of the Jacobian where one iteration makes it cheap, and random directions through three
    assert torch.autograd.gradcheck(
        lambda *moved: case.with_tensors(*moved).run(implementation=implementation),
        tensors,
        fast_mode=num_iterations > 1,
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("annealing", [1.0, 1 / 16])
def test_float32_against_float64(kind: dict[str, Any], annealing: float, implementation: str) -> None:
    ratios: dict[str, list[float]] = {}
    for seed in range(4):
        options = {"annealing": annealing, "seed": seed, **kind}
        exact = case_for(implementation, **options)
        found = exact.to(torch.float32, exact.poses.device.type).run(implementation=implementation)
        assert found.poses.dtype == found.activations.dtype == torch.float32
        for name, ratio in rounding_of(**options).ratios(found._asdict()).items():
            ratios.setdefault(name, []).append(ratio)
    for name, values in ratios.items():
        assert statistics.geometric_mean(values) <= largest_typical(4), (name, values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, implementation: str) -> None:
    case = case_for(implementation)
    case = case.to(dtype, case.poses.device.type)
    out = case.run(implementation=implementation)
    wide = case.with_tensors(*(tensor.float() for tensor in case.tensors)).run(implementation=implementation)
    assert out.poses.dtype == out.activations.dtype == dtype
    torch.testing.assert_close(out.poses, wide.poses.to(dtype), rtol=0, atol=0)


def test_more_iterations_change_the_outcome(implementation: str) -> None:
    """Routing routes: the assignments of later iterations are not the uniform ones."""
    case = case_for(implementation)
    one = case.run(implementation=implementation, inverse_temperature=[0.1])
    three = case.run(implementation=implementation)
    assert (one.poses - three.poses).abs().max() > 0.01


def test_threads_do_not_change_the_outcome(implementation: str) -> None:
    case, threads = case_for(implementation, batch=4), torch.get_num_threads()
    outcomes = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            outcomes.append(case.run(implementation=implementation))
    finally:
        torch.set_num_threads(threads)
    close(outcomes[0], outcomes[1], 1e-12)
