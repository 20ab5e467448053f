"""A network behind a door that gives one tensor."""

import copy
import pickle

import pytest
import torch
from torch import nn

from matcaps.capsules import Capsules
from matcaps.layers import ConvCapsules, PrimaryCapsules
from matcaps.models import ClassScores, create_model
from tests.support.networks import make_network
from tests.support.presets import TINY

IMAGES = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(3))


def test_scores_and_logits_are_the_networks():
    network = make_network()
    activations = network(IMAGES).activations
    assert torch.equal(ClassScores(network)(IMAGES), activations)
    logits = ClassScores(network, logits=True)(IMAGES)
    torch.testing.assert_close(logits.sigmoid(), activations)
    cnn = create_model("baseline-cnn", **TINY["baseline-cnn"]).eval()
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(ClassScores(cnn)(images), cnn(images).softmax(dim=1))
    assert torch.equal(ClassScores(cnn, logits=True)(images), cnn(images))


def test_the_mode_is_the_networks():
    network = make_network()
    assert not ClassScores(network).training
    assert ClassScores(network.train()).training
    scores = ClassScores(network)
    scores.eval()
    assert not network.training


def test_the_weights_are_the_networks():
    network = make_network()
    scores = ClassScores(network)
    scores.activation_map("conv_capsules2")
    assert set(scores.state_dict()) == {f"network.{name}" for name in network.state_dict()}
    other = pickle.loads(pickle.dumps(copy.deepcopy(scores)))
    assert torch.equal(other(IMAGES), scores(IMAGES))


@pytest.mark.parametrize("layer", ["primary_capsules", "conv_capsules1", "conv_capsules2"])
def test_an_activation_map_is_the_layers_activations_channels_first(layer):
    network = make_network()
    scores, seen = ClassScores(network), []
    expected = network.layer_outputs(IMAGES)[layer].activations
    maps = scores.activation_map(layer)
    assert scores.activation_map(layer) is maps
    maps.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert torch.equal(scores(IMAGES), network(IMAGES).activations)
    assert torch.equal(seen[0], expected.movedim(-1, 1))
    assert not getattr(network, layer)._forward_hooks, "the network is left as it was"


def test_what_is_put_into_the_map_reaches_the_scores():
    """Its values and their gradients: an ablation, and Grad-CAM."""
    network = make_network()
    scores = ClassScores(network)
    maps = scores.activation_map("conv_capsules2")
    kept = []

    def take(module, inputs, output):
        kept.append(output)
        return output * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None, None]

    handle = maps.register_forward_hook(take)
    found = scores(IMAGES)
    last = network.layer_outputs(IMAGES)["conv_capsules2"]
    ablated = Capsules(last.poses, last.activations * torch.tensor([1.0, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(
        found, network.class_capsules(ablated, network.class_coordinates(IMAGES)).activations, rtol=0, atol=0
    )
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), kept[0])
    assert gradient[:, 0].abs().sum() > 0
    assert gradient[:, 1].abs().sum() == 0
    handle.remove()
    assert not torch.equal(scores(IMAGES), found)


class Own(nn.Module):
    """Capsule layers in somebody's network, one inside another module."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(PrimaryCapsules(1, 2), ConvCapsules(2, 3))

    def forward(self, images):
        capsules = self.head(images)
        return Capsules(capsules.poses.mean(dim=(1, 2)), capsules.activations.mean(dim=(1, 2)))


def test_a_layer_in_a_network_of_ones_own_has_a_map_too():
    scores, seen = ClassScores(Own()), []
    scores.activation_map("head.1").register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert scores(IMAGES).shape == (3, 3)
    assert seen == [(3, 3, 18, 18)]


def test_a_layer_without_a_map_is_refused():
    network = make_network()
    scores = ClassScores(network)
    with pytest.raises(ValueError, match=r"layer must be the name of one in the network.*got 'conv_capsules9'"):
        scores.activation_map("conv_capsules9")
    scores.activation_map("class_capsules")
    with pytest.raises(TypeError, match=r"ClassCapsules returned \[3, 3\]: take a layer below"):
        scores(IMAGES)
    assert not network.class_capsules._forward_hooks
