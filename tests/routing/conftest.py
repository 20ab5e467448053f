"""Fixtures of the operator's tests."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor


@pytest.fixture
def votes_case() -> tuple[Tensor, ...]:
    """Votes ``[2, 5, 4, 16]``, activations ``[2, 5]`` and both betas ``[4]``, float64."""
    generator = torch.Generator().manual_seed(1)
    votes = torch.randn(2, 5, 4, 16, generator=generator, dtype=torch.float64)
    activations = torch.rand(2, 5, generator=generator, dtype=torch.float64)
    betas = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    return votes, activations, betas[0], betas[1]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small work on two threads is mostly waiting; threads have their own tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
