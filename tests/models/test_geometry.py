"""The centres of receptive fields, against what gradients say of a real chain of convolutions."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from matcaps.models import create_model
from matcaps.models.geometry import Axis, receptive_field_coordinates, same_padding


def brute_force_fields(size: int, convolutions: list[tuple[int, int, str]]) -> list[tuple[float, float]]:
    """First and last pixel that each position looks at, padding counted as pixels outside, by gradients."""
    outside = 100
    pixels = torch.zeros(1, 1, size + 2 * outside, dtype=torch.float64, requires_grad=True)
    values, begin, length = pixels, outside, size
    for kernel_size, stride, padding in convolutions:
        before, after = same_padding(length, kernel_size, stride) if padding == "same" else (0, 0)
        # only this window of an endless axis is convolved; what lies around it stays reachable as padding
        window = values[..., begin - before : begin + length + after]
        values = F.conv1d(window, torch.ones(1, 1, kernel_size, dtype=torch.float64), stride=stride)
        begin, length = 0, values.shape[-1]
    fields = []
    for position in range(length):
        (gradient,) = torch.autograd.grad(values[0, 0, position], pixels, retain_graph=True)
        seen = gradient[0, 0].nonzero().flatten()
        fields.append((seen.min().item() - outside, seen.max().item() - outside))
    return fields


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding"),
    [
        *itertools.product((20, 28, 33), (1, 3, 5, 6), (1, 2, 3), ("valid", "same")),
        (13, 5, 2, "same"),
        (17, 5, 2, "valid"),
        (7, 1, 1, "valid"),
    ],
)
def test_axis_against_brute_force(size, kernel_size, stride, padding):
    convolutions = [(kernel_size, stride, padding), (3, 2, "valid"), (3, 1, "valid")]
    axis = Axis(size)
    for convolution in convolutions:
        axis = axis.convolve(*convolution)
    if axis.size < 1:
        pytest.skip("nothing left")
    expected = brute_force_fields(size, convolutions)
    assert axis.size == len(expected)
    centres = torch.tensor([(first + last) / 2 for first, last in expected], dtype=torch.float64)
    torch.testing.assert_close(axis.centres(), centres, atol=1e-9, rtol=0)
    if stride <= kernel_size:  # no pixel between two that are seen is left out
        assert all(last - first + 1 == axis.extent for first, last in expected)


def test_centres_of_the_tutorials_layers():
    axis = Axis(28).convolve(5, 2, "same").convolve(3, 2).convolve(3, 1)
    assert axis.centres().tolist() == [7, 11, 15, 19]


@pytest.mark.parametrize("size", [7, 28, 29, 48])
@pytest.mark.parametrize(("kernel_size", "stride"), [(5, 2), (3, 1), (4, 2), (2, 3)])
def test_same_padding_is_tensorflows(size, kernel_size, stride):
    before, after = same_padding(size, kernel_size, stride)
    assert 0 <= after - before <= 1
    positions = (size + before + after - kernel_size) // stride + 1
    assert positions == -(-size // stride)


def test_coordinates_are_over_the_image():
    coordinates = receptive_field_coordinates(Axis(3, 1.0, 2.0), Axis(2, 0.5, 3.0), 7, 5)
    assert coordinates.shape == (3, 2, 2)
    torch.testing.assert_close(coordinates[:, 0, 0], torch.tensor([1.5, 3.5, 5.5], dtype=torch.float64) / 7)
    torch.testing.assert_close(coordinates[0, :, 1], torch.tensor([1.0, 4.0], dtype=torch.float64) / 5)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(28, 28), (32, 37)])
def test_gradients_of_a_network_come_from_around_the_centres(padding, size):
    """What one capsule of the last map sees of an image: a window competition keeps the receptive field local."""
    torch.manual_seed(0)
    network = create_model(
        "quickstart", competition="window", stem_padding=padding, calibration="none", stem_channels=8
    )
    images = torch.randn(1, 1, *size, requires_grad=True)
    poses = network.layer_outputs(images)["conv_capsules2"].poses
    height, width = poses.shape[1:3]
    coordinates = network._coordinates(images)
    assert coordinates.shape == (height, width, 2)
    position = (height // 2, width // 2)
    (gradient,) = torch.autograd.grad(poses[0, position[0], position[1]].sum(), images)
    seen = gradient[0, 0].nonzero().double()
    middle = (seen.amin(dim=0) + seen.amax(dim=0)) / 2
    expected = coordinates[position] * torch.tensor(size) - 0.5
    torch.testing.assert_close(middle, expected, atol=1e-6, rtol=0)
