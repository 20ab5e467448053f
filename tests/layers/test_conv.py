import pytest
import torch

from matcaps.capsules import Capsules
from matcaps.layers import ConvCapsules


def random_capsules(batch: int, height: int, width: int, types: int, dtype=torch.float32) -> Capsules:
    generator = torch.Generator().manual_seed(height * 100 + width)
    poses = torch.randn(batch, height, width, types, 4, 4, generator=generator, dtype=torch.float64)
    activations = torch.rand(batch, height, width, types, generator=generator, dtype=torch.float64)
    return Capsules(poses.to(dtype), activations.to(dtype))


@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "expected"),
    [
        ((3, 3), 3, 1, (1, 1)),
        ((14, 14), 3, 2, (6, 6)),
        ((7, 5), 3, 2, (3, 2)),
        ((4, 9), 3, 1, (2, 7)),
        ((6, 8), 2, 3, (2, 3)),
        ((1, 7), 1, 1, (1, 7)),
    ],
)
def test_shapes_and_ranges(competition, size, kernel_size, stride, expected):
    layer = ConvCapsules(2, 3, kernel_size, stride, competition=competition)
    capsules = layer(random_capsules(2, *size, 2))
    assert capsules.poses.shape == (2, *expected, 3, 4, 4)
    assert capsules.activations.shape == (2, *expected, 3)
    assert capsules.activations.min() >= 0
    assert capsules.activations.max() <= 1
    assert capsules.poses.isfinite().all()


@pytest.mark.parametrize(("children", "parents"), [(1, 1), (1, 7), (7, 1), (5, 63)])
def test_any_number_of_types(children, parents):
    capsules = ConvCapsules(children, parents)(random_capsules(1, 4, 3, children))
    assert capsules.activations.shape == (1, 2, 1, parents)


@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize("activation_rule", ["paper", "standardised"])
def test_translation_by_the_stride(competition, activation_rule):
    """Away from the edges, capsules moved by two strides give capsules moved by two.

    With three iterations a child learns of parents four windows away, so the map is larger than what is compared.
    """
    layer = ConvCapsules(
        2, 3, 3, 2, competition=competition, activation_rule=activation_rule, inverse_temperature=(0.1, 0.2)
    ).double()
    inside = random_capsules(1, 29, 29, 2, torch.float64)
    moved = Capsules(*(tensor.roll((4, 4), (1, 2)) for tensor in inside))
    before, after = layer(inside), layer(moved)
    margin = 4
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(
            second[:, 2 + margin : -margin, 2 + margin : -margin], first[:, margin : -2 - margin, margin : -2 - margin]
        )


def test_competition_is_felt():
    capsules = random_capsules(1, 7, 7, 2)
    torch.manual_seed(0)
    child = ConvCapsules(2, 3, stride=2)
    window = ConvCapsules(2, 3, stride=2, competition="window")
    window.load_state_dict(child.state_dict())
    assert not torch.allclose(child(capsules).poses, window(capsules).poses)


@pytest.mark.parametrize("competition", ["child", "window"])
def test_window_and_child_agree_where_nothing_overlaps(competition):
    """With a stride of the kernel's size each child has one window: the two competitions are one."""
    capsules = random_capsules(2, 6, 4, 2, torch.float64)
    torch.manual_seed(0)
    layer = ConvCapsules(2, 3, 2, 2, competition=competition).double()
    torch.manual_seed(0)
    other = ConvCapsules(2, 3, 2, 2, competition="window").double()
    torch.testing.assert_close(layer(capsules), other(capsules))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_routing_stays_in_float32_under_autocast(dtype):
    layer, capsules = ConvCapsules(2, 3, stride=2), random_capsules(2, 7, 7, 2)
    with torch.autocast("cpu", dtype=dtype):
        routed = layer(capsules)
    assert [tensor.dtype for tensor in routed] == [torch.float32] * 2
    torch.testing.assert_close(routed, layer(capsules), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_capsules_are_routed_finitely(dtype):
    layer = ConvCapsules(2, 3, stride=2)
    routed = layer(random_capsules(2, 7, 7, 2, dtype))
    assert all(tensor.isfinite().all() for tensor in routed)
    torch.testing.assert_close(routed.poses.float(), layer(random_capsules(2, 7, 7, 2)).poses, atol=0.2, rtol=0.2)


def test_state_dict_carries_everything_learnt_and_calibrated():
    torch.manual_seed(0)
    layer, capsules = ConvCapsules(2, 3, stride=2, annealing=1 / 16), random_capsules(4, 7, 7, 2)
    layer.calibrate(capsules, "full")
    state = layer.state_dict()
    assert {"weight", "routing.beta_use", "routing.beta_activation", "routing.inverse_temperature"} <= set(state)
    fresh = ConvCapsules(2, 3, stride=2, annealing=1 / 16)
    assert not torch.equal(fresh.routing.inverse_temperature, layer.routing.inverse_temperature)
    fresh.load_state_dict(state)
    for one, other in zip(layer(capsules), fresh(capsules), strict=True):
        assert torch.equal(one, other)


def test_all_parameters_get_gradients():
    layer = ConvCapsules(2, 3, stride=2, annealing=1 / 16, inverse_temperature=(0.1, 0.2, 0.3))
    poses, activations = random_capsules(2, 7, 7, 2)
    poses.requires_grad_()
    routed = layer(Capsules(poses, activations))
    (routed.activations.sum() + routed.poses.square().sum()).backward()
    for name, parameter in [*layer.named_parameters(), ("poses", poses)]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_trace_ends_where_forward_does():
    layer, capsules = ConvCapsules(2, 3, stride=2), random_capsules(2, 7, 5, 2)
    trace = layer.trace(capsules)
    routed = layer(capsules)
    assert len(trace) == 3
    torch.testing.assert_close(trace[-1].activation.reshape(routed.activations.shape), routed.activations)
    torch.testing.assert_close(trace[-1].mean.reshape(routed.poses.shape), routed.poses)


def test_map_smaller_than_the_kernel():
    with pytest.raises(ValueError, match="at least as many rows and columns as the kernel, which is 3×3; got 2×5"):
        ConvCapsules(2, 3)(random_capsules(1, 2, 5, 2))


def test_wrong_number_of_types():
    with pytest.raises(ValueError, match="got"):
        ConvCapsules(2, 3)(random_capsules(1, 5, 5, 3))
