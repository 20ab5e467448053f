"""What routing does for the true class, against the trace and by hand."""

import json
import math

import pytest
import torch

from matcaps.capsules import Capsules
from matcaps.data.loader import Batch
from matcaps.inspect import (
    RoutingAgreement,
    capsule_health,
    routing_agreement,
    survey,
    vote_contrast,
    vote_distances,
)
from tests.support.networks import make_network


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


def test_a_survey_finds_in_one_pass_what_each_look_finds_alone(batches):
    network = make_network()
    found, passes = survey(network, batches), []
    images, labels = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "labels"))
    assert found.agreement == routing_agreement(network, batches)
    whole = vote_contrast(vote_distances(network, images), labels)
    torch.testing.assert_close(found.contrast.mean_distance, whole.mean_distance, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.contrast.labels, whole.labels)
    alone = capsule_health(network, [batch.images for batch in batches])
    assert {name: layer.to_dict() for name, layer in found.health.items()} == {
        name: layer.to_dict() for name, layer in alone.items()
    }
    hook = network.conv_capsules1.register_forward_hook(lambda *_: passes.append(1))
    survey(network, batches)
    hook.remove()
    assert len(passes) == len(batches)


def test_of_several_crops_the_first_is_taken(batches):
    network = make_network()
    crops = [Batch(torch.stack([one.images, 0 * one.images], 1), one.labels, one.indices) for one in batches]
    assert routing_agreement(network, crops) == routing_agreement(network, batches)


def test_a_class_without_data_is_left_out_of_what_is_said_of_votes(batches):
    """Its variance is the floor, which would make its votes the tightest of all."""
    network = make_network()
    network.conv_capsules2.register_forward_hook(lambda *given: Capsules(given[2].poses, 0 * given[2].activations))
    measured = routing_agreement(network, batches)
    assert all(math.isnan(one) for one in (*measured.log_deviation_true, *measured.log_deviation_gap))
    assert measured.nearest_is_true == (0, 0, 0)
    values = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert values["log_deviation_gap"] == [None] * 3


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
    measured = routing_agreement(make_network(), batches)
    found = json.loads(json.dumps(measured.to_dict()))
    assert RoutingAgreement.from_dict({"part": "validation", **found}) == measured
    assert found["layers"]["class_capsules"]["dead_types"] == 0
    assert len(found["log_deviation_gap"]) == 3


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="batches must hold at least one image; got none"):
        routing_agreement(make_network(), [])


@pytest.mark.parametrize(
    "change",
    [{"share_true": None}, {"layers": {"one": {"colour": 1}}}, {"changed": [0.0]}, {"share_true": [], "accuracy": []}],
    ids=str,
)
def test_malformed_measures_are_refused(change, batches):
    values = routing_agreement(make_network(), batches).to_dict() | change
    with pytest.raises(ValueError, match=r"not a result of RoutingAgreement\.to_dict|one number an iteration"):
        RoutingAgreement.from_dict(values)
