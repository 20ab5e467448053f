import pytest
import torch

from matcaps import create_model
from matcaps.data import ImageDataset, Transform, TransformSettings
from matcaps.models import EMCapsNet

SMALL = {"stem_channels": 4, "primary_capsules": 2, "conv_capsules1": 3, "conv_capsules2": 4, "num_classes": 3}


def make_network(**changes: object) -> EMCapsNet:
    """A small calibrated network; of 20×20 images it makes maps of 10×10, 4×4 and 2×2."""
    torch.manual_seed(0)
    network = create_model("quickstart", **(SMALL | changes))
    assert isinstance(network, EMCapsNet)
    network.calibrate(torch.rand(8, 1, 20, 20))
    return network.eval()


def make_dots() -> tuple[ImageDataset, Transform]:
    """Eight images of noise a class, for the network that :func:`make_network` makes, and their transform."""
    pixels = torch.Generator().manual_seed(0)
    dataset = ImageDataset(
        name="dots",
        split="test",
        images=torch.randint(0, 256, (24, 1, 20, 20), generator=pixels, dtype=torch.uint8),
        labels=torch.arange(24) % 3,
        classes=("a", "b", "c"),
        indices=torch.arange(24),
    )
    return dataset, Transform(TransformSettings().resolve("mnist"), 20)


@pytest.fixture(scope="session")
def network() -> EMCapsNet:
    return make_network()


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(1))
