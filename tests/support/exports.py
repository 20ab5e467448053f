"""What tests of exported networks share."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from matcaps.models import EMCapsNet, create_model
from matcaps.models.export.comparison import Comparison, difference
from matcaps.models.export.graph import expected_outputs
from matcaps.models.export.onnx_file import reader

BATCHES = (1, 7, 64)
"""Batch sizes at which a file is held to its network."""


def made(preset: str, **changes: Any) -> nn.Module:
    """A network in evaluation mode, calibrated, so that its outputs say something."""
    torch.manual_seed(0)
    network = create_model(preset, **changes)
    if isinstance(network, EMCapsNet) and network.config.calibration != "none":
        network.calibrate(images_for(network, 16))
    return network.eval()


def images_for(network: Any, count: int, size: int | None = None) -> Tensor:
    """Random images; of the size that an exported network takes where nothing else is said."""
    channels = network.config.in_channels
    size = size or (28 if channels == 1 else 32)
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def assert_computes_the_same(path: Path, network: nn.Module, *, trace: bool, size: int | None = None) -> None:
    """Hold an ONNX file to its network in float64, at every batch size, as :class:`Comparison` judges."""
    read = reader(path.read_bytes())
    assert read is not None
    exact = copy.deepcopy(network).double()
    for count in BATCHES:
        images = images_for(network, count, size)
        found, expected = read(images), expected_outputs(exact, images.double(), trace=trace)
        assert list(found) == list(expected)
        assert all(found[name].shape == value.shape for name, value in expected.items())
        own = expected_outputs(network, images, trace=trace)
        compared = Comparison(difference(found, expected), difference(own, expected))
        assert compared.is_close, compared
