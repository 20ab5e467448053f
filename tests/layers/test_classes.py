import pytest
import torch

from matcaps.capsules import Capsules
from matcaps.layers import ClassCapsules
from matcaps.layers.classes import grid_coordinates


def random_capsules(batch: int, height: int, width: int, types: int) -> Capsules:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return Capsules(
        torch.randn(batch, height, width, types, 4, 4, generator=generator),
        torch.rand(batch, height, width, types, generator=generator),
    )


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 3), (1, 9)])
@pytest.mark.parametrize(("children", "classes"), [(1, 2), (3, 7)])
def test_shapes_and_ranges(size, children, classes):
    capsules = ClassCapsules(children, classes)(random_capsules(2, *size, children))
    assert capsules.poses.shape == (2, classes, 4, 4)
    assert capsules.activations.shape == (2, classes)
    assert capsules.activations.min() >= 0
    assert capsules.activations.max() <= 1


@pytest.mark.parametrize("components", [(3, 7), (0, 1), (15, 2)])
def test_coordinates_are_added_to_the_chosen_components(components):
    """With one iteration and activations of 1 the mean moves by exactly the coordinates' mean."""
    torch.manual_seed(0)
    layer = ClassCapsules(2, 3, inverse_temperature=[1e-3], coordinate_components=components, coordinate_scale=5.0)
    without = ClassCapsules(2, 3, inverse_temperature=[1e-3], coordinate_components=None)
    without.load_state_dict(layer.state_dict())
    poses, _ = random_capsules(2, 4, 6, 2)
    capsules = Capsules(poses, torch.ones(2, 4, 6, 2))
    coordinates = torch.rand(4, 6, 2)
    difference = (layer(capsules, coordinates).poses - without(capsules).poses).flatten(-2)
    expected = torch.zeros(16)
    expected[components[0]], expected[components[1]] = 5 * coordinates.mean(dim=(0, 1))
    torch.testing.assert_close(difference, expected.expand_as(difference), atol=1e-5, rtol=1e-5)


def test_default_coordinates_are_the_grid():
    layer, capsules = ClassCapsules(2, 3), random_capsules(2, 4, 6, 2)
    explicit = layer(capsules, grid_coordinates(4, 6))
    assert torch.equal(layer(capsules).poses, explicit.poses)


def test_grid_coordinates():
    grid = grid_coordinates(2, 4)
    assert grid.shape == (2, 4, 2)
    assert grid[:, 0, 0].tolist() == [0.25, 0.75]
    assert grid[0, :, 1].tolist() == [0.125, 0.375, 0.625, 0.875]


def test_position_matters_only_with_coordinates():
    capsules = random_capsules(1, 3, 5, 2)
    mirrored = Capsules(*(tensor.flip(2) for tensor in capsules))
    plain = ClassCapsules(2, 3, coordinate_components=None)
    torch.testing.assert_close(plain(mirrored), plain(capsules))
    placed = ClassCapsules(2, 3, weight_deviation=1.0)
    assert not torch.allclose(placed(mirrored).poses, placed(capsules).poses)


@pytest.mark.parametrize("components", [(3, 3), (3, 16), (-1, 2), (3,), (1, 2, 3)])
def test_bad_components(components):
    with pytest.raises(ValueError, match="coordinate_components must be two different components from 0 to 15"):
        ClassCapsules(2, 3, coordinate_components=components)


@pytest.mark.parametrize("shape", [(6, 4, 2), (4, 6), (4, 6, 3)])
def test_bad_coordinates(shape):
    with pytest.raises(ValueError, match=r"coordinates must have shape \[H, W, 2\] = \[4, 6, 2\]; got"):
        ClassCapsules(2, 3)(random_capsules(1, 4, 6, 2), torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_routing_stays_in_float32_under_autocast(dtype):
    layer, capsules = ClassCapsules(2, 3), random_capsules(2, 4, 6, 2)
    with torch.autocast("cpu", dtype=dtype):
        routed = layer(capsules)
    assert [tensor.dtype for tensor in routed] == [torch.float32] * 2
    torch.testing.assert_close(routed, layer(capsules), atol=0, rtol=0)


def test_state_dict_round_trip():
    layer, capsules = ClassCapsules(2, 3), random_capsules(8, 4, 6, 2)
    layer.calibrate(capsules)
    fresh = ClassCapsules(2, 3)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.routing.inverse_temperature, layer.routing.inverse_temperature)
    for one, other in zip(layer(capsules), fresh(capsules), strict=True):
        assert torch.equal(one, other)


def test_trace_ends_where_forward_does():
    layer, capsules = ClassCapsules(2, 3), random_capsules(2, 4, 6, 2)
    trace, routed = layer.trace(capsules), layer(capsules)
    torch.testing.assert_close(trace[-1].activation.reshape(routed.activations.shape), routed.activations)


def test_wrong_number_of_types():
    with pytest.raises(ValueError, match="got"):
        ClassCapsules(2, 3)(random_capsules(1, 4, 6, 1))


def test_a_shared_reward_is_one_number_for_all_classes():
    torch.manual_seed(0)
    shared, each = ClassCapsules(2, 3, shared_beta_activation=True), ClassCapsules(2, 3)
    assert (shared.routing.beta_activation.shape, each.routing.beta_activation.shape) == ((1,), (3,))
    assert (shared.routing.shared_beta_activation, each.routing.shared_beta_activation) == (True, False)
    capsules = random_capsules(8, 4, 6, 2)
    each.calibrate(capsules)
    each.routing.set_beta(torch.zeros(3), torch.tensor([1.0, 2.0, 6.0]), data=1.0)
    state = each.state_dict()
    with torch.no_grad():
        each.routing.beta_activation.fill_(state["routing.beta_activation"].mean())
    shared.load_state_dict({**state, "routing.beta_activation": torch.zeros(1)})
    shared.routing.set_beta(torch.zeros(3), torch.tensor([1.0, 2.0, 6.0]), data=1.0)
    torch.testing.assert_close(shared.routing.paper_beta_activation(), torch.full((3,), 3.0))
    for one, other in zip(shared(capsules), each(capsules), strict=True):
        torch.testing.assert_close(one, other)
    for layer in (shared, each):
        layer(capsules).activations[:, 0].sum().backward()
    gradient = each.routing.beta_activation.grad
    torch.testing.assert_close(shared.routing.beta_activation.grad, gradient.sum().reshape(1))
    assert float(gradient.abs().min()) > 0


def test_a_shared_reward_is_calibrated_to_the_classes_mean():
    torch.manual_seed(0)
    shared = ClassCapsules(2, 3, shared_beta_activation=True, weight_deviation=1.0)
    assert shared.routing.is_untouched()
    activations = shared.calibrate(random_capsules(8, 4, 6, 2), calibration="full").activations
    assert not shared.routing.is_untouched()
    assert 0.2 < float(activations.mean()) < 0.8
