"""Fixtures of the operator's tests."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from matcaps.routing import cuda
from tests.support.cuda import COMPILER, Emulator
from tests.support.cuda_cases import DEVICE

MONTH = 30 * 24 * 3600


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


@pytest.fixture(scope="session")
def emulated_folder(request, tmp_path_factory) -> Path:
    """Where the emulator's kernels are kept: in pytest's cache, which all workers and later runs share."""
    cache = getattr(request.config, "cache", None)
    if cache is None:  # pytest -p no:cacheprovider
        return tmp_path_factory.mktemp("emulated")
    folder = cache.mkdir("emulated_cuda")
    for path in folder.glob("*.so"):  # of sources that have changed since
        if time.time() - path.stat().st_mtime > MONTH:
            path.unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="session")
def emulator(emulated_folder) -> Emulator:
    """A stand-in for a GPU."""
    if not COMPILER:
        pytest.skip("no g++ or clang++ to compile the emulator of CUDA kernels with")
    return Emulator(emulated_folder)


@pytest.fixture
def cuda_device(request, monkeypatch) -> None:
    """``implementation="cuda"`` takes tensors on ``DEVICE``: a GPU's, or the CPU's, which go to the emulator."""
    if DEVICE == "cpu":
        monkeypatch.setattr(cuda, "EMULATOR", request.getfixturevalue("emulator"))
