"""foolbox attacks a network through its logits."""

import pytest
import torch

from matcaps.models import ClassScores
from tests.support.integrations import needs
from tests.support.networks import make_network


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_foolbox_finds_images_that_the_network_mistakes():
    needs("foolbox")
    foolbox = pytest.importorskip("foolbox", reason="foolbox needs git to be imported", exc_type=ImportError)
    network = make_network()
    images = torch.rand(12, 1, 20, 20, generator=torch.Generator().manual_seed(3))
    labels = network(images).activations.argmax(dim=1)
    model = foolbox.PyTorchModel(ClassScores(network, logits=True), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfProjectedGradientDescentAttack(steps=20)
    _, adversarial, fooled = attack(model, images, labels, epsilons=0.3)
    assert torch.equal(network(adversarial).activations.argmax(dim=1) != labels, fooled)
    assert (adversarial - images).abs().max() <= 0.3 + 1e-6
    signs = torch.randn(images.shape, generator=torch.Generator().manual_seed(5)).sign()
    noise = (images + 0.3 * signs).clamp(0, 1)
    by_chance = (network(noise).activations.argmax(dim=1) != labels).sum()
    assert fooled.sum() > by_chance, "gradients say more than noise of the same size"
