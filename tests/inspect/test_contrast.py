"""Votes for the true class beside those for a wrong one, by hand."""

from dataclasses import replace

import pytest
import torch

from matcaps.inspect import VoteDistances, vote_contrast, vote_distances
from matcaps.inspect.contrast import ContrastTally
from tests.support.votes import hand_made


def test_the_wrong_class_is_the_one_with_most_data_in_the_end():
    found = vote_contrast(hand_made(), torch.tensor([1]))
    assert found.labels.tolist() == [[1, 0]]
    assert vote_contrast(hand_made(), torch.tensor([0])).labels.tolist() == [[0, 2]]  # 0.4 against 0.15


def test_mean_distances_are_weighted_both_ways():
    found = vote_contrast(hand_made(), torch.tensor([0]))
    by_assignment, by_data = found.mean_distance
    assert by_assignment[0].tolist() == pytest.approx([4, (0.5 * 1 + 0.9 * 2) / 1.4])
    assert by_data[0].tolist() == pytest.approx([4, (0.5 * 1 + 0.45 * 2) / 0.95])
    assert by_data[1].tolist() == pytest.approx([7, 9])
    assert found.came_closer.tolist() == [[1, 0], [1, 0]]
    assert found.true_is_nearer.tolist() == [[1, 1], [1, 1]]


def test_both_classes_and_all_iterations_share_their_bins_which_hold_all_weight(network, images):
    found, labels = vote_distances(network, images), torch.tensor([0, 2, 1])
    contrast = vote_contrast(found, labels)
    assert contrast.edges[0] == 0
    assert len(contrast.edges) <= 31
    for weighting, name in enumerate(("assignment", "data")):
        weights = found.weights(name)
        for place in range(2):
            expected = sum(weights[i, ..., contrast.labels[i, place]].sum(1) for i in range(3)) / 3
            whole = contrast.counts[weighting, place].sum(-1) + contrast.beyond[weighting, place]
            torch.testing.assert_close(whole, expected.double())
    assert float((contrast.beyond / contrast.counts.sum(-1)).max()) < 0.06
    one = vote_contrast(vote_distances(network, images[:1]), torch.tensor([0]))
    for place, label in enumerate(one.labels[0].tolist()):
        counted, _ = torch.histogram(
            found.distances[0, 2, :, label].double(), one.edges, weight=found.assignment[0, 2, :, label].double()
        )
        torch.testing.assert_close(one.counts[0, place, 2], counted)
    assert one.num_images == 1


def test_batches_of_whatever_size_of_distances_count_as_the_whole(network, images):
    found, labels = vote_distances(network, images), torch.tensor([0, 2, 1])
    larger = replace(found, distances=found.distances * torch.tensor([0.01, 1.0, 900.0]).view(3, 1, 1, 1))
    whole, tally = vote_contrast(larger, labels), ContrastTally()
    for place in range(3):  # the bins widen twice
        one = VoteDistances(*(value[place : place + 1] for value in vars(larger).values()))
        tally.add(one, labels[place : place + 1])
    parts = tally.result()
    torch.testing.assert_close(parts.mean_distance, whole.mean_distance)
    torch.testing.assert_close(
        parts.counts.sum(-1) + parts.beyond, whole.counts.sum(-1) + whole.beyond, rtol=1e-6, atol=1e-9
    )
    assert float(parts.edges[-1]) == pytest.approx(float(whole.edges[-1]), rel=0.1)


def test_a_class_without_data_has_no_distance():
    found = hand_made()
    assignment = torch.zeros_like(found.assignment)
    assignment[..., 0] = 1
    contrast = vote_contrast(replace(found, assignment=assignment), torch.tensor([0]))
    assert contrast.mean_distance[:, 1].isnan().all()
    assert contrast.true_is_nearer.isnan().all()
    assert float(contrast.mean_distance[0, 0, 1]) == 1.5


def test_refusals(network, images):
    with pytest.raises(ValueError, match="at least one image"):
        ContrastTally().result()
    found = hand_made()
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="distances must be finite"):
            vote_contrast(replace(found, distances=found.distances * value), torch.tensor([0]))
