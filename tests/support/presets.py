"""The smallest network of each kind."""

from typing import Any

import torch

from matcaps.models import BaselineCNN, EMCapsNet, create_model

TINY = {
    "quickstart": {"stem_channels": 4, "primary_capsules": 2, "conv_capsules1": 2, "conv_capsules2": 2},
    "baseline-cnn": {"channels1": 2, "channels2": 2, "hidden_units": 4, "image_size": (28, 28), "in_channels": 1},
}


def make(preset: str = "quickstart", **changes: Any) -> EMCapsNet | BaselineCNN:
    network = create_model(preset, **TINY[preset], **changes)
    if isinstance(network, EMCapsNet):
        network.calibrate(torch.rand(4, 1, 28, 28))
    return network
