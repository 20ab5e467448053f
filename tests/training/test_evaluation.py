import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from matcaps import create_model
from matcaps.data import DataSettings, load_data, make_loader
from matcaps.data.loader import Batch
from matcaps.inspect import routing_agreement
from matcaps.losses import cross_entropy_loss
from matcaps.models.scores import class_scores
from matcaps.training import evaluate
from matcaps.training.log_loss import best_exponent, log_losses


class Oracle(nn.Module):
    """Knows the labels of the images that it sees in order, and calls every class 3 a 5."""

    def __init__(self, labels: torch.Tensor):
        super().__init__()
        self.labels, self.seen = torch.where(labels == 3, 5, labels), 0
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        labels = self.labels[self.seen : self.seen + len(images)]
        self.seen += len(images)
        return 10.0 * nn.functional.one_hot(labels, 10)


def test_counts():
    bundle = load_data(DataSettings(max_test_images=40))
    network = Oracle(bundle.test.labels).train()
    found = evaluate(network, bundle.loader("test", batch_size=7), bundle.classes)
    assert network.training
    assert found.num_images == 40
    assert found.accuracy == 0.9
    assert found.error_percent == pytest.approx(10)
    assert found.class_accuracy == tuple(0.0 if label == 3 else 1.0 for label in range(10))
    assert found.confusion[3] == tuple(4 if label == 5 else 0 for label in range(10))
    lead = (math.exp(10) - 1) / (math.exp(10) + 9)  # of two softmax scores
    assert [(one.label, one.predicted, one.lead) for one in found.worst] == [
        (found.classes[3], found.classes[5], pytest.approx(lead))
    ] * 4
    threes = (bundle.test.labels == 3).nonzero().flatten()
    assert {one.index for one in found.worst} == set(bundle.test.indices[threes].tolist())
    assert json.loads(json.dumps(found.to_dict()))["accuracy"] == 0.9


def test_accuracy_by_an_attribute():
    bundle = load_data(DataSettings(max_test_images=40))
    kind = torch.arange(40) % 3 - 1  # -1 is unknown
    images = replace(bundle.test, attributes={"kind": kind})
    loader = make_loader(images, bundle.transform, train=False, batch_size=7)
    found = evaluate(Oracle(images.labels), loader, bundle.classes, by="kind").class_accuracy_by
    assert list(found) == ["kind"]
    assert list(found["kind"]) == [-1, 0, 1]
    for value, accuracies in found["kind"].items():
        for label, accuracy in enumerate(accuracies):
            there = bool(((kind == value) & (images.labels == label)).any())
            assert accuracy == (None if not there else 0.0 if label == 3 else 1.0)
    with pytest.raises(ValueError, match="must have the attribute 'size'; they have kind"):
        evaluate(Oracle(images.labels), loader, bundle.classes, by=["size"])
    again = evaluate(Oracle(images.labels), loader, bundle.classes, by="kind")
    assert sum(sum(counts) for counts in again.num_images_by["kind"].values()) == 40
    total = sum(
        loss * count
        for value, losses in again.log_loss_by["kind"].items()
        for loss, count in zip(losses, again.num_images_by["kind"][value], strict=True)
        if loss is not None
    )
    assert again.log_loss == pytest.approx(total / 40)
    shuffled = make_loader(images, bundle.transform, train=True, batch_size=7)
    with pytest.raises(ValueError, match="must give every image once and in order"):
        evaluate(Oracle(images.labels), shuffled, bundle.classes, by=["kind"])


def test_several_crops_are_averaged():
    network = nn.Flatten(1)
    crops = torch.randn(4, 5, 1, 2, 3)
    expected = torch.stack([network(crops[:, index]).softmax(dim=1) for index in range(5)]).mean(dim=0)
    torch.testing.assert_close(class_scores(network, crops), expected)


@pytest.mark.parametrize("crops", [1, 5])
def test_agreement_is_measured_in_the_same_pass(crops):
    torch.manual_seed(0)
    sizes = {"stem_channels": 4, "primary_capsules": 2, "conv_capsules1": 2, "conv_capsules2": 2}
    network = create_model("quickstart", in_channels=1, num_classes=10, **sizes)
    bundle = load_data(DataSettings(max_test_images=20))
    batches = list(bundle.loader("test", batch_size=7))
    network.calibrate(batches[0].images)
    if crops > 1:
        random = torch.Generator().manual_seed(0)
        batches = [
            Batch(torch.stack([one.images, *torch.rand(4, *one.images.shape, generator=random)], 1), *one[1:])
            for one in batches
        ]
    plain = evaluate(network, batches, bundle.classes)
    passes: list[int] = []
    network.stem.register_forward_hook(lambda module, given, made: passes.append(len(made)))
    found = evaluate(network, batches, bundle.classes, agreement=True)
    assert passes == [7 * crops, 7 * crops, 6 * crops]
    expected = routing_agreement(network, batches)
    assert found.agreement.share_true == pytest.approx(expected.share_true, rel=1e-4)
    assert found.agreement.log_deviation_gap == pytest.approx(expected.log_deviation_gap, abs=1e-4)
    assert found.agreement.changed == expected.changed
    assert found.agreement.layers.keys() == expected.layers.keys()
    assert found.agreement.num_images == 20
    assert (found.confusion, [one.index for one in found.worst]) == (
        plain.confusion,
        [one.index for one in plain.worst],
    )
    with pytest.raises(ValueError, match="agreement is measured on capsule networks; got a Oracle"):
        evaluate(Oracle(bundle.test.labels), batches, bundle.classes, agreement=True)


def test_the_log_loss_does_not_depend_on_how_far_apart_a_loss_asks_scores_to_be():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(200, 5, generator=generator)
    labels = torch.multinomial(scores**3, 1, generator=generator).squeeze(1)
    exponents = [best_exponent(scores**power, labels) for power in (0.5, 1.0, 2.0)]
    losses = [
        float(log_losses(scores**power, labels, exponent).mean())
        for power, exponent in zip((0.5, 1.0, 2.0), exponents, strict=True)
    ]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)
    assert exponents[1] == pytest.approx(3, rel=0.3)
    for nearby in (0.9, 1.1):
        assert log_losses(scores, labels, nearby * exponents[1]).mean() > losses[1]


def test_a_log_loss_of_shares_is_the_cross_entropy_of_activations():
    scores, labels = torch.tensor([[0.3, 0.1, 0.0], [0.5, 0.5, 0.5]]), torch.tensor([0, 2])
    assert log_losses(scores, labels).tolist() == pytest.approx([math.log(4 / 3), math.log(3)], rel=1e-6)
    assert log_losses(scores, labels).mean() == pytest.approx(float(cross_entropy_loss(scores, labels)), rel=1e-5)
    assert log_losses(scores, torch.tensor([2, 2]))[0] == pytest.approx(math.log(0.4e8), rel=1e-5)  # and not infinite


def test_networks_that_are_always_right_have_no_log_loss():
    scores = torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    labels = torch.tensor([0, 1])
    assert log_losses(scores, labels, best_exponent(scores, labels)).mean() < 1e-6
