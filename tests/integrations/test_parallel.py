"""Data parallelism, without GPUs: replicas of a network route, and what they return is gathered."""

import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import scatter_gather

from matcaps.capsules import Capsules
from matcaps.models import ClassScores
from tests.support.networks import make_network

IMAGES = torch.rand(6, 1, 20, 20, generator=torch.Generator().manual_seed(3))
KINDS = [{}, {"normalisation": "batch", "activation_rule": "relative"}, {"pose": "vector"}]


def replicas(network: nn.Module, count: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What DataParallel makes of a network for so many GPUs, but that the copies of its tensors stay on the CPU."""

    def copies(tensors: Any, devices: Any, detach: bool = False) -> list[list[torch.Tensor]]:
        return [[tensor.detach() * 1 if detach else tensor * 1 for tensor in tensors] for _ in devices]

    module = sys.modules["torch.nn.parallel.replicate"]  # its package has a function of that name
    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", copies)
    return module.replicate(network, list(range(count)))


@pytest.mark.parametrize("changes", KINDS, ids=str)
@pytest.mark.parametrize("wrapped", [False, True])
def test_replicas_compute_what_the_network_does_and_lead_gradients_to_it(changes, wrapped, monkeypatch):
    network = make_network(**changes)
    model = ClassScores(network) if wrapped else network
    made = replicas(model, 2, monkeypatch)
    outputs = [replica(part) for replica, part in zip(made, IMAGES.split(3), strict=True)]
    monkeypatch.setattr(scatter_gather.Gather, "apply", lambda device, dim, *tensors: torch.cat(tensors, dim))
    gathered: Any = scatter_gather.gather(outputs, 0)
    expected = network(IMAGES)
    if not wrapped:
        assert isinstance(gathered, Capsules)
        torch.testing.assert_close(gathered.poses, expected.poses)
    scores = gathered if wrapped else gathered.activations
    torch.testing.assert_close(scores, expected.activations)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    found = torch.autograd.grad(scores[:, 0].sum(), weights, allow_unused=True)
    wanted = torch.autograd.grad(expected.activations[:, 0].sum(), weights, allow_unused=True)
    assert any(one is not None and one.abs().max() > 0 for one in wanted)
    for one, two in zip(found, wanted, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * float(two.abs().max()) + 1e-9)
