import pytest
import torch

from matcaps.layers import PrimaryCapsules


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (4, 9), (63, 5)])
@pytest.mark.parametrize("num_capsules", [1, 7])
def test_shapes_and_ranges(size, num_capsules):
    capsules = PrimaryCapsules(3, num_capsules)(10 * torch.randn(2, 3, *size))
    assert capsules.poses.shape == (2, *size, num_capsules, 4, 4)
    assert capsules.activations.shape == (2, *size, num_capsules)
    assert capsules.activations.min() >= 0
    assert capsules.activations.max() <= 1


def test_kernel_and_stride():
    capsules = PrimaryCapsules(3, 2, kernel_size=3, stride=2)(torch.randn(1, 3, 9, 7))
    assert capsules.activations.shape == (1, 4, 3, 2)


def test_capsule_reads_its_own_channels():
    layer = PrimaryCapsules(3, 4).double()
    features = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    poses, activations = layer(features)
    maps = layer.pose(features)
    for capsule in range(4):
        for component in range(16):
            expected = maps[:, capsule * 16 + component]
            assert torch.equal(poses[:, :, :, capsule, component // 4, component % 4], expected)
    assert torch.equal(activations, layer.activation(features).sigmoid().permute(0, 2, 3, 1))


def test_capsules_leave_autocast_in_float32():
    layer = PrimaryCapsules(3, 4)
    features = torch.randn(2, 3, 5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        capsules = layer(features)
    assert [tensor.dtype for tensor in capsules] == [torch.float32] * 2
    assert not torch.equal(capsules.poses, layer(features).poses)  # the convolution did run in bfloat16
    torch.testing.assert_close(capsules.poses, layer(features).poses, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["in_channels", "num_capsules", "kernel_size", "stride"])
def test_bad_counts(name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1; got 0"):
        PrimaryCapsules(**{"in_channels": 1, "num_capsules": 1, name: 0})
