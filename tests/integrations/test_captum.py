"""captum explains what a network of capsules does, layer by layer."""

import pytest
import torch

from matcaps.models import ClassScores
from tests.support.integrations import needs
from tests.support.networks import make_network

IMAGES = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 2])


def test_integrated_gradients_add_up_to_the_difference_of_scores():
    needs("captum")
    from captum.attr import IntegratedGradients

    scores = ClassScores(make_network())
    found = IntegratedGradients(scores).attribute(IMAGES, target=LABELS, n_steps=200)
    difference = (scores(IMAGES) - scores(torch.zeros_like(IMAGES))).gather(1, LABELS[:, None])[:, 0]
    assert difference.abs().min() > 1e-3
    torch.testing.assert_close(found.flatten(1).sum(1), difference, rtol=0.02, atol=2e-4)


@pytest.mark.parametrize("layer", ["primary_capsules", "conv_capsules1"])
def test_grad_cam_weighs_each_capsule_types_map_by_its_mean_gradient(layer):
    needs("captum")
    from captum.attr import LayerGradCam

    network = make_network()
    scores = ClassScores(network)
    found = LayerGradCam(scores, scores.activation_map(layer)).attribute(IMAGES, target=LABELS)
    kept = []

    def keep(module, inputs, output):
        output.activations.retain_grad()
        kept.append(output.activations)

    getattr(network, layer).register_forward_hook(keep)
    network(IMAGES).activations.gather(1, LABELS[:, None]).sum().backward()
    activations = kept[0]
    assert activations.grad is not None
    weights_BJ = activations.grad.mean(dim=(1, 2))
    expected_BHW = (activations * weights_BJ[:, None, None]).sum(-1).detach()
    assert expected_BHW.abs().max() > 0
    torch.testing.assert_close(found[:, 0], expected_BHW)


def test_every_method_on_a_layer_takes_its_map():
    needs("captum")
    from captum import attr

    scores = ClassScores(make_network())
    maps = scores.activation_map("conv_capsules2")
    for method in ("LayerActivation", "LayerGradientXActivation", "LayerIntegratedGradients", "LayerConductance"):
        options = {} if method == "LayerActivation" else {"target": LABELS}
        found = getattr(attr, method)(scores, maps).attribute(IMAGES, **options)
        assert found.shape == (2, 4, 2, 2)
    ablated = attr.LayerFeatureAblation(scores, maps).attribute(IMAGES, target=LABELS)
    assert ablated.abs().max() > 0
