"""Votes written out, against the trace; distances by hand."""

from dataclasses import replace

import pytest
import torch

from matcaps.inspect import VoteDistances, vote_distances, vote_histogram
from tests.support.networks import make_network


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"competition": "window"},
        {"pose": "vector"},
        {"coordinates": "grid", "coordinate_components": (0, 1)},
        {"coordinates": "none"},
        {"stem_padding": "valid"},
    ],
    ids=str,
)
def test_votes_give_the_traces_means_variances_and_masses(changes, images):
    network = make_network(**changes)
    outputs, states = network.layer_outputs(images), network.trace(images)
    below = {"conv_capsules1": "primary_capsules", "conv_capsules2": "conv_capsules1"}
    for name, iterations in states.items():
        votes = network.votes(images, name)
        children = outputs[below.get(name, "conv_capsules2")].activations
        if name == "class_capsules":
            children = children.flatten(1)
        else:
            layer = network.get_submodule(name)
            # as a loop over windows, which the layer is not
            rows, columns = votes.shape[1:3]
            children = torch.stack(
                [
                    torch.stack(
                        [
                            children[
                                :,
                                layer.stride * row : layer.stride * row + 3,
                                layer.stride * column : layer.stride * column + 3,
                            ].flatten(1)
                            for column in range(columns)
                        ],
                        1,
                    )
                    for row in range(rows)
                ],
                1,
            )
        for state in iterations:
            data = state.assignment * children.unsqueeze(-1)
            mass = data.sum(-2)
            mean = (data.unsqueeze(-1) * votes).sum(-3) / mass.unsqueeze(-1)
            variance = (data.unsqueeze(-1) * (votes - mean.unsqueeze(-3)) ** 2).sum(-3) / mass.unsqueeze(-1)
            torch.testing.assert_close(state.mass, mass, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(state.mean, mean, rtol=1e-3, atol=1e-3)
            floor = network.config.variance_floor
            torch.testing.assert_close(state.variance, variance + floor, rtol=2e-3, atol=1e-3)


def test_no_such_layer(network, images):
    with pytest.raises(ValueError, match="layer must be conv_capsules1, conv_capsules2 or class_capsules; got 'stem'"):
        network.votes(images, "stem")


def test_distances_by_hand(network, images):
    found = vote_distances(network, images)
    with torch.no_grad():
        votes, states = network.votes(images, "class_capsules"), network.trace(images)["class_capsules"]
    assert found.distances.shape == (3, 3, 2 * 2 * 4, 3)
    expected = sum((float(votes[1, 5, 2, h]) - float(states[2].mean[1, 2, h])) ** 2 for h in range(16)) ** 0.5
    assert float(found.distances[1, 2, 5, 2]) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(found.assignment.sum(3), torch.ones(3, 3, 16))
    torch.testing.assert_close(found.activations[:, -1], network(images).activations)


def hand_made() -> VoteDistances:
    """Two children, one class, one iteration."""
    return VoteDistances(
        distances=torch.tensor([1.0, 3.0]).view(1, 1, 2, 1),
        assignment=torch.tensor([0.5, 0.25]).view(1, 1, 2, 1),
        child_activations=torch.tensor([[0.1, 0.9]]),
        activations=torch.ones(1, 1, 1),
    )


def test_means_are_weighted():
    found = hand_made()
    assert found.mean().item() == pytest.approx((0.5 * 1 + 0.25 * 3) / 0.75)
    assert found.mean("data").item() == pytest.approx((0.05 * 1 + 0.225 * 3) / 0.275)
    with pytest.raises(ValueError, match="weigh must be"):
        found.mean("votes")


def test_histogram_counts_all_assignment(network, images):
    histogram = vote_histogram(hand_made(), num_bins=3)
    assert histogram.edges.tolist() == [[0, 1, 2, 3]]
    assert histogram.counts.flatten().tolist() == [0.5, 0, 0.25]
    found = vote_distances(network, images)
    histogram = vote_histogram(found, 2)
    torch.testing.assert_close(histogram.counts.sum(2) + histogram.beyond, found.assignment[2].sum(1))
    assert float((histogram.beyond / found.assignment[2].sum(1)).max()) < 0.01 + 1e-6
    torch.testing.assert_close(histogram.mean_distance, found.mean()[2])


@pytest.mark.parametrize("farthest", [1.6886, 2.8227, 4.9009, 6.9767])
@pytest.mark.parametrize("num_bins", [3, 7, 49])
def test_the_farthest_vote_is_in_the_last_bin(farthest, num_bins):
    """Whatever the rounding: half of its votes were beyond a class's last bin on some processors."""
    found = replace(hand_made(), distances=torch.tensor([farthest / 2, farthest]).view(1, 1, 2, 1))
    assert vote_histogram(found, num_bins=num_bins).beyond.item() == 0


def test_each_class_has_its_own_bins(network, images):
    """In a trained network one class's votes may be a thousand times as large as another's."""
    found = vote_distances(network, images)
    alone = vote_histogram(found)
    sizes = torch.tensor([1.0, 1000.0, 1.0])
    larger = vote_histogram(replace(found, distances=found.distances * sizes))
    torch.testing.assert_close(larger.edges, alone.edges * sizes[:, None])
    torch.testing.assert_close(larger.counts, alone.counts)
