"""A run whose network and decoder are made, not trained: what is computed is right all the same."""

from pathlib import Path

import pytest
import torch

from matcaps.data import TransformSettings
from matcaps.data.mnist import CLASSES
from matcaps.demo.session import DemoNetwork, open_demo
from matcaps.models import EMCapsNet, PoseDecoder
from matcaps.models.pretrained import save_weights
from tests.inspect.conftest import make_network


def save_digits(folder: Path, *, network: EMCapsNet | None = None, decoder: bool = True) -> Path:
    """A network of digits, a small one by default, saved as weights that come with matcaps are."""
    network = network or make_network(num_classes=10)
    settings = TransformSettings().resolve("mnist")
    network.save_pretrained(
        folder, classes=CLASSES["mnist"], data="mnist", preprocessing=vars(settings) | {"image_size": 28}
    )
    if decoder:
        torch.manual_seed(1)
        save_weights(PoseDecoder(10, (1, 28, 28), hidden_units=(16, 24)), folder / "decoder.safetensors")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    return save_digits(tmp_path_factory.mktemp("demo") / "digits")


@pytest.fixture(scope="session")
def demo(digits, tmp_path_factory) -> DemoNetwork:
    return open_demo(str(digits), root=str(tmp_path_factory.mktemp("no-data")))
