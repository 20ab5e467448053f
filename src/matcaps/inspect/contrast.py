"""Votes for the true class beside those for a wrong one: do they lie nearer to their mean, and come together?"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from matcaps._numbers import short_number
from matcaps.data.names import short_name
from matcaps.inspect.display import Display
from matcaps.inspect.style import COLOURS, new_figure
from matcaps.inspect.subject import Subject
from matcaps.inspect.votes import VoteDistances, vote_distances
from matcaps.inspect.wording import NOTICEABLE, arrows, change, direction, rises

if TYPE_CHECKING:
    from matcaps.inspect.opening import SavedSubject


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
        found: from :func:`matcaps.inspect.vote_distances`.
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


def contrast_in_words(found: VoteContrast) -> str:
    """Whether votes for the true class come together, and more than those for the wrong one; whether it gains votes."""
    number, changes = found.num_images, []
    said = []
    for place, weighed in enumerate(("weighed by assignment", "weighed by assignment × activation")):
        true, wrong = found.mean_distance[place].tolist()
        changes.append((change(true), change(wrong)))
        said.append(
            f"{weighed} {arrows(true)} for the true class ({_moves(true)}) and {arrows(wrong)} for the wrong class "
            f"with most data ({_moves(wrong)})"
        )
    if found.mean_distance.shape[2] == 1:
        judgement = "With one iteration votes cannot come together"
    elif not all(true <= -NOTICEABLE for true, _ in changes):  # NaN, too
        judgement = "Votes for the true class do not come together"
    elif all(not wrong - true < NOTICEABLE for true, wrong in changes):
        judgement = "Votes for the true class come together, more than those for the wrong class"
    else:
        judgement = "Votes for the true class come together, but no more than those for the wrong class"
    weight = (found.counts.sum(-1) + found.beyond)[1, 0].tolist()
    held = {1: "gains votes", -1: "loses votes", 0: "keeps as many votes"}[direction(weight)]
    images = "one image" if number == 1 else f"{number} images"
    sentence = (
        f"{judgement}; the true class {held} ({arrows(weight)} by weight); mean distance on {images} by iteration, in "
        f"pose units: {'; '.join(said)}"
    )
    if number > 1:
        nearer = found.true_is_nearer[1].tolist()
        sentence += f"; the true class's is the smaller of the two on {arrows(nearer, 100)} % of the images"
    return sentence


def _moves(distances: Sequence[float]) -> str:
    """What votes do from the first iteration to the last."""
    difference, way = change(distances), direction(distances)
    if not way:
        return "about the same"
    if way > 0:
        return f"{100 * difference:.0f} % farther"
    steady = ", with every iteration" if rises([-one for one in distances]) else ""
    return f"{-100 * difference:.0f} % closer{steady}"


@dataclass(frozen=True, eq=False)
class ContrastDisplay(Display):
    """Vote distances of the true class beside those of a wrong one; ``true`` and ``wrong`` are what to call them."""

    numbers: VoteContrast
    true: str
    wrong: str
    title: str

    def plot(self) -> Figure:
        """Histograms of vote distances of the true class and of a wrong one, by iteration, on the same axes.

        Iterations go downwards; across, the two classes with votes weighed by assignment, then by assignment ×
        activation.
        """
        found, true, wrong, title = self.numbers, self.true, self.wrong, self.title
        iterations = found.counts.shape[2]
        figure = new_figure(4, iterations, width=2.5, height=1.6)
        panels = figure.subplots(iterations, 4, sharex=True, squeeze=False)
        edges = found.edges.numpy()
        for weighting, weighed in enumerate(("assignment", "assignment × activation")):
            top = 1.3 * max(float(found.counts[weighting].max()), 1e-12)  # room for the figures above the bars
            for place, (name, colour) in enumerate(((true, COLOURS[0]), (wrong, COLOURS[1]))):
                for row in range(iterations):
                    axes = panels[row][2 * weighting + place]
                    counts = found.counts[weighting, place, row].numpy()
                    axes.stairs(counts, edges, fill=True, color=colour)
                    mean = float(found.mean_distance[weighting, place, row])
                    if mean == mean:
                        axes.axvline(mean, ymax=0.7, color="black", linewidth=1, linestyle="--")
                    total = float(counts.sum() + found.beyond[weighting, place, row])
                    axes.text(
                        0.97, 0.95, f"mean {short_number(mean)}\nsum {short_number(total)}",
                        transform=axes.transAxes, ha="right", va="top", fontsize=7,
                    )  # fmt: skip
                    axes.set_ylim(0, top)
                    axes.set_xlim(0, edges[-1])
                    axes.locator_params(axis="x", nbins=4)
                    axes.tick_params(labelsize=7)
                    for side in ("top", "right"):
                        axes.spines[side].set_visible(False)
                    if place == 1:
                        axes.tick_params(labelleft=False)
                panels[0][2 * weighting + place].set_title(f"{name}\nweighed by {weighed}", fontsize=8, color=colour)
        for row in range(iterations):
            panels[row][0].set_ylabel(f"iteration {row + 1}", fontsize=8)
        caption = textwrap.fill(contrast_in_words(found), 150)
        figure.suptitle(f"{title}\n{caption}", fontsize=8)
        figure.supxlabel(
            "distance of a vote to the class capsule's mean, in pose units (at most 5 % by weight lie beyond)",
            fontsize=9,
        )
        figure.supylabel("votes by weight", fontsize=9)
        return figure


class ImageContrastDisplay(ContrastDisplay):
    """Of one image."""

    caption: ClassVar[str] = (
        "The true class's votes beside those of the wrong class that has most data, on the same axes: where "
        "routing finds agreement, the true class's bars move to the left from iteration to iteration, and grow."
    )

    @classmethod
    def from_subject(cls, subject: Subject) -> "ImageContrastDisplay":
        """Measure on the subject's image; where its class is not known, of the one that it is taken for."""
        found = vote_contrast(vote_distances(subject.network, subject.image), torch.tensor([subject.label]))
        true, wrong = (short_name(subject.classes[label]) for label in found.labels[0].tolist())
        true = f"{true}, {'taken for it' if subject.truth is None else 'true'}"
        return cls(found, true, f"{wrong}, most data of the others", subject.title)

    @property
    def sentences(self) -> dict[str, str]:
        return {"vote distances": contrast_in_words(self.numbers)}


class SetContrastDisplay(ContrastDisplay):
    """The same over a labelled set, each image with its own wrong class."""

    caption: ClassVar[str] = "The same over many images."

    @classmethod
    def of_images(cls, found: VoteContrast, title: str) -> "SetContrastDisplay":
        """Of numbers that are there already."""
        return cls(found, "true class", "wrong class with most data", title)

    @classmethod
    def from_subject(cls, subject: "SavedSubject") -> "SetContrastDisplay | None":
        """Measure over the subject's set; None without one."""
        if subject.survey is None:
            return None
        found = subject.survey.contrast
        return cls.of_images(found, f"{subject.set_title}, mean of {found.num_images} images")

    @property
    def sentences(self) -> dict[str, str]:
        return {"vote distances over the set": contrast_in_words(self.numbers)}
