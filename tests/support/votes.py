"""Distances of votes that can be reckoned by hand."""

import torch

from matcaps.inspect import VoteDistances


def hand_made() -> VoteDistances:
    """One image, two iterations, two children, three classes."""
    return VoteDistances(
        distances=torch.tensor([[[[4.0, 1, 7], [4, 3, 7]], [[1, 2, 9], [2, 4, 9]]]]),
        assignment=torch.tensor([[[[0.4, 0.4, 0.2], [0.4, 0.4, 0.2]], [[0.5, 0.1, 0.4], [0.9, 0.1, 0.0]]]]),
        child_activations=torch.tensor([[1.0, 0.5]]),
        activations=torch.ones(1, 2, 3),
    )
