"""What routing does for the true class, against the trace and by hand."""

import json

import pytest
import torch

from matcaps.data.loader import Batch
from matcaps.inspection import measure_agreement, routing_agreement
from tests.inspection.conftest import make_network


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    random = torch.Generator().manual_seed(5)
    labels = torch.arange(7) % 3
    images = torch.rand(7, 1, 20, 20, generator=random)
    return [Batch(images[:4], labels[:4], torch.arange(4)), Batch(images[4:], labels[4:], torch.arange(4, 7))]


def test_every_figure_is_the_traces(batches):
    network = make_network()
    measured = routing_agreement(network, batches)
    images, labels = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "labels"))
    states = network.trace(images)["class_capsules"]
    answers = []
    for t, state in enumerate(states):
        share = true = others = nearest = right = 0.0
        answers.append(state.activation.argmax(1))
        for image, label in enumerate(labels.tolist()):
            mass, ln_sigma = state.mass[image], state.variance[image].sqrt().log().mean(1)
            share += (mass[label] / mass.sum()).item() / len(labels)
            true += ln_sigma[label].item() / len(labels)
            others += (ln_sigma.sum() - ln_sigma[label]).item() / (len(labels) * 2)
            nearest += float(state.variance[image].sum(1).argmin() == label) / len(labels)
            right += float(answers[-1][image] == label) / len(labels)
        assert measured.share_true[t] == pytest.approx(share, rel=1e-4)
        assert measured.log_deviation_true[t] == pytest.approx(true, rel=1e-4)
        assert measured.log_deviation_others[t] == pytest.approx(others, rel=1e-4)
        assert measured.log_deviation_gap[t] == pytest.approx(true - others, rel=1e-3)
        assert measured.nearest_is_true[t] == pytest.approx(nearest)
        assert measured.accuracy[t] == pytest.approx(right)
        changed = 0.0 if t == 0 else (answers[t] != answers[t - 1]).double().mean().item()
        assert measured.changed[t] == pytest.approx(changed)
    assert measured.num_images == 7
    assert measured.chance == pytest.approx(1 / 3)


def test_it_agrees_with_what_the_votes_say(batches):
    network = make_network()
    measured, by_votes = routing_agreement(network, batches), measure_agreement(network, batches)
    assert measured.share_true == pytest.approx(by_votes.share_true.tolist(), rel=1e-4)
    assert measured.activation_true == pytest.approx(by_votes.activation_true.tolist(), rel=1e-4)
    assert measured.activation_others == pytest.approx(by_votes.activation_others.tolist(), rel=1e-4)


def test_a_class_whose_votes_coincide_is_the_nearest_and_the_tightest(batches):
    network = make_network(coordinates="none")
    with torch.no_grad():
        network.class_capsules.weight[:, 1].mul_(1e-3)
    ones = [Batch(batch.images, torch.ones_like(batch.labels), batch.indices) for batch in batches]
    measured = routing_agreement(network, ones)
    assert measured.nearest_is_true == (1.0, 1.0, 1.0)
    assert max(measured.log_deviation_gap) < -1


def test_saturated_and_dead_layers_are_seen(batches):
    network = make_network()
    with torch.no_grad():
        network.primary_capsules.activation.weight.zero_()
        network.primary_capsules.activation.bias.copy_(torch.tensor([-20.0, 20.0]))
    primary = routing_agreement(network, batches).layers["primary_capsules"]
    assert (primary.share_low, primary.share_high, primary.dead_types) == (0.5, 0.5, 1)
    assert primary.mean == pytest.approx(0.5)


def test_it_fits_into_json(batches):
    found = json.loads(json.dumps(routing_agreement(make_network(), batches).to_dict()))
    assert found["layers"]["class_capsules"]["dead_types"] == 0
    assert len(found["log_deviation_gap"]) == 3


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="batches must hold at least one image; got none"):
        routing_agreement(make_network(), [])
