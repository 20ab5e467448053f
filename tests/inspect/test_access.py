"""Every function that looks into a network, found by its signature: where the network may be, and how it is left."""

import inspect

import numpy as np
import pytest
import torch

from matcaps import create_model
from matcaps import inspect as looks
from matcaps.data.loader import Batch
from matcaps.inspect import to_arrays
from matcaps.inspect.access import evaluation_copy_on_cpu
from matcaps.models import PoseDecoder
from tests.support.networks import make_dots, make_network

LABELS = torch.tensor([0, 1, 2])


def arguments(images: torch.Tensor) -> dict[str, dict]:
    """What each function takes besides the network."""
    batch = Batch(images, LABELS, torch.arange(3))
    dataset, transform = make_dots()
    return {
        "activation_maps": {"images": images},
        "capsule_health": {"batches": [images]},
        "contributions": {"images": images},
        "em_steps": {"image": images[:1], "parent": 0},
        "penultimate_features": {"batches": [batch]},
        "pose_response": {"dataset": dataset, "transform": transform, "label": 0, "num_images": 18},
        "pose_traversal": {
            "decoder": PoseDecoder(3, (1, 20, 20)),
            "image": images[:1],
            "label": 0,
            "seen": torch.rand(9, 16),
        },
        "routing_agreement": {"batches": [batch]},
        "survey": {"batches": [batch]},
        "true_poses": {"batches": [batch]},
        "vote_distances": {"images": images},
    }


FUNCTIONS = [
    name
    for name in looks.__all__
    if inspect.isfunction(found := getattr(looks, name)) and "network" in inspect.signature(found).parameters
]


def test_every_function_is_tried():
    assert [name for name in looks.__all__ if name in arguments(torch.zeros(3, 1, 20, 20))] == FUNCTIONS
    assert len(FUNCTIONS) == 11


@pytest.fixture
def meta(monkeypatch):
    """The meta device in place of a GPU's: it has shapes and no numbers, so that those on the host are made up."""

    def cpu(self, *_, _cpu=torch.Tensor.cpu):
        return torch.ones(self.shape, dtype=self.dtype) if self.is_meta else _cpu(self)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    return torch.device("meta")


def tensors(found):
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, dict):
        yield from (one for part in found.values() for one in tensors(part))
    elif isinstance(found, tuple | list):
        yield from (one for part in found for one in tensors(part))
    elif hasattr(found, "__dict__"):
        yield from tensors(vars(found))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_network_elsewhere_is_looked_into_there(name, images, meta):
    """Tensors of two devices never meet, no number is asked for on the way, and what is found is on the host."""
    network, given = make_network(), arguments(images)[name]
    if name == "penultimate_features":
        network = create_model("baseline-cnn", in_channels=1, num_classes=3, image_size=(20, 20), channels1=2).eval()
    if name == "pose_traversal":
        given["decoder"].to(meta)
    for module in network.modules():
        if hasattr(module, "routing"):
            module.routing.implementation = "reference"
    found = list(tensors(getattr(looks, name)(network.to(meta), **given)))
    assert found or name == "routing_agreement"  # whose numbers are Python's
    assert all(one.device.type == "cpu" for one in found)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_network_in_training_is_seen_as_in_evaluation_and_left_in_training(name, images):
    network, given = make_network(), arguments(images)[name]
    if name == "penultimate_features":  # the CNN's, which has dropout
        network = create_model("baseline-cnn", in_channels=1, num_classes=3, image_size=(20, 20), channels1=2).eval()
    modes: list[bool] = []
    for module in network.modules():
        module.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    look = getattr(looks, name)
    expected, found = look(network, **given), look(network.train(), **given)
    assert modes
    assert not any(modes)
    assert all(module.training for module in network.modules())
    arrays = [
        to_arrays(dict(enumerate(result)) if isinstance(result, tuple) else result) for result in (expected, found)
    ]
    assert arrays[0].keys() == arrays[1].keys()
    for key, array in arrays[0].items():
        np.testing.assert_array_equal(arrays[1][key], array)


def test_an_evaluation_copy_routes_on_a_cpu_and_leaves_the_network_as_it_is(images):
    network = make_network().train()
    expected = evaluation_copy_on_cpu(network)(images)
    for name in ("conv_capsules1", "conv_capsules2", "class_capsules"):
        network.get_submodule(name).routing.implementation = "cuda"  # as it may be where it trains
    copied = evaluation_copy_on_cpu(network)
    assert not copied.training
    torch.testing.assert_close(copied(images), expected)
    with torch.no_grad():
        copied.stem.weight.zero_()
    assert network.training
    assert network.stem.weight.abs().sum() > 0
    assert network.class_capsules.routing.implementation == "cuda"
