"""Votes for the true class beside those for a wrong one: do they lie nearer to their mean, and come together?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from matcaps.inspection.votes import VoteDistances

WEIGHTINGS = ("assignment", "data")
"""What may weigh a vote: the tutorial's weight, and that of the mean itself; see :meth:`VoteDistances.mean`."""

_NUM_FINE = 4096
_SHOWN = 0.95
"""Share of the weight within the last edge, for either class after every iteration."""


@dataclass(frozen=True, eq=False)
class VoteContrast:
    """Distances of votes to the mean, of each image's true class and of the wrong class that has most data at the end.

    The first dimension is the weighting, as in :data:`WEIGHTINGS`; the second is 0 for the true class, 1 for the wrong
    one; T are the iterations. A class without data on an image has no mean distance there, and is left out; NaN where
    that is so on all images.

    Attributes:
        edges: ``[M + 1]``, of the bins, from 0, the same for both classes and all iterations, in pose units.
        counts: ``[2, 2, T, M]``, sum of the weights in each bin, mean over the images.
        beyond: ``[2, 2, T]``, the same beyond the last edge.
        mean_distance: ``[2, 2, T]``, mean over the images of the weighted mean distance.
        came_closer: ``[2, 2]``, share of images on which that is smaller after the last iteration than the first.
        true_is_nearer: ``[2, T]``, share of images on which that of the true class is the smaller one.
        labels: ``[N, 2]``, of each image the true class and the wrong one.
    """

    edges: Tensor
    counts: Tensor
    beyond: Tensor
    mean_distance: Tensor
    came_closer: Tensor
    true_is_nearer: Tensor
    labels: Tensor

    @property
    def num_images(self) -> int:
        """Images measured."""
        return len(self.labels)


def vote_contrast(found: VoteDistances, labels: Tensor, num_bins: int = 30) -> VoteContrast:
    """Set the true class's votes against those of a wrong class, over some images.

    Args:
        found: from :func:`matcaps.inspection.vote_distances`.
        labels: ``[B]``, int64.
        num_bins: of the histograms, at most.

    Raises:
        ValueError: there are no images, or a distance is not finite.
    """
    tally = ContrastTally()
    tally.add(found, labels)
    return tally.result(num_bins)


class ContrastTally:
    """Measures :class:`VoteContrast` batch by batch."""

    def __init__(self) -> None:
        self._histogram = _GrowingHistogram()
        self._means: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, found: VoteDistances, labels: Tensor) -> None:
        """Count a batch in; arguments as :func:`vote_contrast` takes them."""
        if len(labels) == 0:
            return
        data_BJ = found.weights("data")[:, -1].sum(1)
        wrong = data_BJ.scatter(1, labels[:, None], -1.0).argmax(1)
        pair_BC = torch.stack([labels, wrong], 1)
        at = pair_BC[:, None, None].expand(*found.distances.shape[:3], 2)
        distances_CTN = _by_class(found.distances.gather(3, at))
        means, weights = [], []
        for weighting in WEIGHTINGS:
            weights_BTNJ = found.weights(weighting)
            weights.append(_by_class(weights_BTNJ.gather(3, at)))
            means_BTJ = found.mean(weighting).double().masked_fill(weights_BTNJ.sum(2) <= 0, torch.nan)
            means.append(means_BTJ.gather(2, at[:, :, 0]))
        self._histogram.add(distances_CTN.expand(len(WEIGHTINGS), -1, -1, -1), torch.stack(weights))
        self._means.append(torch.stack(means).transpose(2, 3))
        self._labels.append(pair_BC)

    def result(self, num_bins: int = 30) -> VoteContrast:
        """Of all that was counted; raises as :func:`vote_contrast` does."""
        if not self._labels:
            raise ValueError("batches must hold at least one image; got none")
        means_WNCT, labels = torch.cat(self._means, 1), torch.cat(self._labels)
        edges, counts, beyond = self._histogram.coarse(num_bins)
        true, wrong = means_WNCT[:, :, 0], means_WNCT[:, :, 1]
        return VoteContrast(
            edges=edges,
            counts=counts / len(labels),
            beyond=beyond / len(labels),
            mean_distance=means_WNCT.nanmean(1),
            came_closer=_share_smaller(means_WNCT[..., -1], means_WNCT[..., 0]),
            true_is_nearer=_share_smaller(true, wrong),
            labels=labels,
        )


class _GrowingHistogram:
    """Weighted counts in fine bins from 0, whose width doubles when a value lies beyond the last."""

    def __init__(self) -> None:
        self._counts = torch.zeros(0)
        self._width = 0.0

    def add(self, values: Tensor, weights: Tensor) -> None:
        """Count ``[..., N]`` values in by their weights."""
        largest = float(values.max())
        if not torch.isfinite(values).all():
            raise ValueError("distances must be finite; got some that are not: look for NaN or ∞ in the network")
        if self._width == 0.0:
            self._width = max(largest, 1e-6) / _NUM_FINE
            self._counts = torch.zeros(*values.shape[:-1], _NUM_FINE, dtype=torch.float64)
        while largest > self._width * _NUM_FINE:
            merged = self._counts.unflatten(-1, (-1, 2)).sum(-1)
            self._counts = torch.cat([merged, torch.zeros_like(merged)], -1)
            self._width *= 2
        bins = (values.double() / self._width).long().clamp_max(_NUM_FINE - 1)
        self._counts.scatter_add_(-1, bins, weights.double())

    def coarse(self, num_bins: int) -> tuple[Tensor, Tensor, Tensor]:
        """Edges ``[M + 1]``, counts ``[..., M]`` and what lies beyond ``[...]``, M at most ``num_bins``."""
        so_far = self._counts.cumsum(-1)
        reach = int((so_far < _SHOWN * so_far[..., -1:]).sum(-1).max()) + 1
        group = -(-reach // num_bins)
        shown = min(-(-reach // group), _NUM_FINE // group)
        counts = self._counts[..., : shown * group].unflatten(-1, (shown, group)).sum(-1)
        edges = self._width * group * torch.arange(shown + 1, dtype=torch.float64)
        return edges, counts, self._counts[..., shown * group :].sum(-1)


def _by_class(values_BTNC: Tensor) -> Tensor:
    """Of all images together: ``[C, T, B·N]``."""
    return values_BTNC.permute(3, 1, 0, 2).flatten(2)


def _share_smaller(one: Tensor, other: Tensor) -> Tensor:
    """Share of the images, the second dimension, on which one is smaller, where neither is NaN."""
    known = ~(one.isnan() | other.isnan())
    return (one < other).double().sum(1) / known.double().sum(1)
