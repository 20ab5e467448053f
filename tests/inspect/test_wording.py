"""Sentences claim what the numbers show, and nothing else."""

from dataclasses import replace

import pytest
import torch

from matcaps.inspect import vote_contrast
from matcaps.inspect.agreement import measures_in_words
from matcaps.inspect.contrast import contrast_in_words
from tests.support.votes import hand_made

NEAREST, CHANGED = (0.4, 0.6, 0.9), (0.2, 0.1)


@pytest.mark.parametrize(
    ("share", "gap", "judgement", "of_share", "of_gap"),
    [
        ((0.2, 0.31, 0.59), (-0.14, -0.45, -0.83), "gives the true class data and brings its", "gains", "with every"),
        ((0.2, 0.28, 0.012), (-0.25, -0.2, -0.25), "neither gives", "less than chance", "but not by coming closer"),
        ((0.2, 0.28, 0.25), (0.3, 0.2, 0.1), "neither gives", "more than chance", "end no closer"),
        ((0.2, 0.28, 0.29), (0.3, 0.4, 0.1), "data, but does not bring", "gains", "end no closer"),
        ((0.2, 0.21, 0.201), (-0.1, -0.2, -0.3), "together, but does not give", "about what chance", "with every"),
    ],
)
def test_agreement_is_claimed_where_it_is_and_denied_where_it_is_not(share, gap, judgement, of_share, of_gap):
    said = measures_in_words(share, gap, NEAREST, CHANGED, 0.2)
    assert judgement in said[0]
    assert of_share in said[1]
    assert of_gap in said[2]
    assert "40 → 60 → 90 %" in said[3]
    assert "20 → 10 %" in said[4]


def test_numbers_that_are_missing_claim_nothing():
    nan = float("nan")
    said = measures_in_words((nan, nan), (nan, nan), (nan, nan), (nan,), 0.2)
    assert "neither" in said[0]


def test_one_iteration_routes_nothing():
    assert measures_in_words((0.2,), (-1.0,), (0.9,), (), 0.2) == [
        "With one iteration nothing is routed: every class has the same data"
    ]


def test_votes_are_said_to_come_closer_where_they_do():
    found = hand_made()
    said = contrast_in_words(vote_contrast(found, torch.tensor([0])))
    assert said.startswith("Votes for the true class come together, more than those for the wrong class; the true")
    assert "4 → 1.64 for the true class (59 % closer, with every iteration)" in said
    assert "7 → 9 for the wrong class with most data (29 % farther)" in said
    assert "; the true class gains votes (0.6 → 0.95 by weight);" in said
    said = contrast_in_words(vote_contrast(found, torch.tensor([2])))
    assert said.startswith(
        "Votes for the true class do not come together; the true class gains votes (0.3 → 0.4 by weight);"
    )
    said = contrast_in_words(vote_contrast(found, torch.tensor([1])))
    assert "; the true class loses votes (0.6 → 0.15 by weight);" in said
    both = replace(found, distances=found.distances * torch.tensor([1.0, 0.3]).view(1, 2, 1, 1))
    both.distances[0, 1, :, 0] = torch.tensor([0.5, 0.6])
    said = contrast_in_words(vote_contrast(both, torch.tensor([2])))
    assert said.startswith("Votes for the true class come together, but no more than those for the wrong class;")
    same = replace(found, distances=torch.full_like(found.distances, 2000.0))
    said = contrast_in_words(vote_contrast(same, torch.tensor([0])))
    assert said.startswith("Votes for the true class do not come together;")
    assert said.count("2,000 → 2,000") == said.count("about the same") == 4


def test_distances_that_are_not_known_claim_nothing():
    found = hand_made()
    assignment = torch.zeros_like(found.assignment)
    assignment[..., 0] = 1
    contrast = vote_contrast(replace(found, assignment=assignment), torch.tensor([1]))  # no vote for the true class
    assert contrast_in_words(contrast).startswith("Votes for the true class do not come together;")
