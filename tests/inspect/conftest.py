import pytest
import torch

from matcaps.models import EMCapsNet
from tests.support.networks import make_network


@pytest.fixture(scope="session")
def network() -> EMCapsNet:
    return make_network()


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(1))
