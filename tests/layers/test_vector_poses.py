"""Layers whose poses are vectors of 16 numbers."""

import pytest
import torch

from matcaps.capsules import Capsules
from matcaps.layers import ClassCapsules, ConvCapsules

LAYERS = {
    "conv": lambda pose="vector", **options: ConvCapsules(3, 5, stride=2, pose=pose, annealing=1 / 16, **options),
    "class": lambda pose="vector", **options: ClassCapsules(3, 5, pose=pose, annealing=1 / 16, **options),
}


@pytest.fixture(params=LAYERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def capsules() -> Capsules:
    generator = torch.Generator().manual_seed(1)
    return Capsules(torch.randn(8, 5, 6, 3, 4, 4, generator=generator), torch.rand(8, 5, 6, 3, generator=generator))


def test_shapes_and_parameters(kind, capsules):
    layer, matrices = LAYERS[kind](), LAYERS[kind]("matrix")
    assert layer.weight.shape == (*matrices.weight.shape[:-2], 16, 16)
    assert layer.weight.numel() == 16 * matrices.weight.numel()
    for ours, theirs in zip(layer(capsules), matrices(capsules), strict=True):
        assert ours.shape == theirs.shape
        assert ours.isfinite().all()
    assert "pose='vector'" in repr(layer)


def test_votes_start_with_the_variance_of_matrix_poses(kind, capsules):
    """Half the deviation, because 16 products are summed instead of 4."""
    torch.manual_seed(0)
    pose = capsules.poses[:1, 0, 0, 0]
    options = {"weight_deviation": 0.3}
    make = {"conv": ConvCapsules, "class": ClassCapsules}[kind]
    matrices = make(64, 64, pose="matrix", **options).weight
    vectors = make(16, 64, pose="vector", **options).weight
    assert matrices.std().item() == pytest.approx(0.3, rel=0.01)
    assert vectors.std().item() == pytest.approx(0.15, rel=0.01)
    ratio = (pose.flatten() @ vectors).var() / (pose @ matrices).var()
    assert ratio.item() == pytest.approx(1, abs=0.05)


def test_trace_ends_where_forward_does(kind, capsules):
    layer = LAYERS[kind]()
    trace, routed = layer.trace(capsules), layer(capsules)
    assert torch.equal(trace[-1].activation, routed.activations)
    assert torch.equal(trace[-1].mean, routed.poses.flatten(-2))


def test_all_parameters_get_gradients(kind, capsules):
    layer = LAYERS[kind]()
    layer.calibrate(capsules, calibration="full")
    routed = layer(capsules)
    (routed.activations[..., 0].sum() + routed.poses.square().sum()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("calibration", ["beta", "full"])
def test_calibration_works_the_same(kind, calibration, capsules):
    routed = LAYERS[kind]().calibrate(capsules, calibration=calibration)
    assert 0.3 < routed.activations.mean() < 0.7
    if calibration == "full":
        assert 0.7 < routed.poses.std() < 1.4


def test_coordinates_move_the_same_components(capsules):
    """With one iteration and activations of 1 the mean moves by exactly the coordinates' mean."""
    layer, without = (LAYERS["class"](inverse_temperature=[1e-3], coordinate_components=at) for at in ((3, 7), None))
    without.load_state_dict(layer.state_dict())
    here = Capsules(capsules.poses, torch.ones_like(capsules.activations))
    coordinates = torch.rand(5, 6, 2)
    moved = (layer(here, coordinates).poses - without(here).poses).flatten(-2)
    expected = torch.zeros(16)
    expected[[3, 7]] = coordinates.mean(dim=(0, 1))
    torch.testing.assert_close(moved, expected.expand_as(moved), atol=1e-5, rtol=1e-5)


def test_routing_stays_in_float32_under_autocast(kind, capsules):
    layer = LAYERS[kind]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routed = layer(capsules)
    assert [tensor.dtype for tensor in routed] == [torch.float32] * 2
    torch.testing.assert_close(routed, layer(capsules), atol=0, rtol=0)


def test_another_pose_or_the_core_is_refused(kind, capsules):
    with pytest.raises(ValueError, match=r"pose must be one of \('matrix', 'vector'\); got 'tensor'"):
        LAYERS[kind]("tensor")
    with pytest.raises(ValueError, match="use implementation='auto' or 'reference'"):
        LAYERS[kind](implementation="native")(capsules)
