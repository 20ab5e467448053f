"""Votes for the true class compared with those for a wrong class: are they nearer to their mean, and come together?"""

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
from matcaps.inspect.inspection import Inspection
from matcaps.inspect.style import COLOURS, new_figure
from matcaps.inspect.votes import VoteDistances, vote_distances
from matcaps.inspect.wording import NOTICEABLE, arrows, change, direction, rises

if TYPE_CHECKING:
    from matcaps.inspect.opening import SavedInspection


WEIGHTINGS = ("assignment", "data")
"""How votes may be weighted: as in the tutorial, or as in the mean itself; see :meth:`VoteDistances.mean`."""

_NUM_FINE = 4096
_SHOWN = 0.95
"""At least this share of the weight lies within the last edge, for both classes after every iteration."""


@dataclass(frozen=True, eq=False)
class VoteContrast:
    """Distances of votes to their mean, for each image's true class and for the wrong class with most data at the end.

    The first dimension is the weighting, as in :data:`WEIGHTINGS`; the second is 0 for the true class, 1 for the wrong
    one; T are the iterations. A class without data on an image has no mean distance there, and is left out; a value is
    NaN where this holds for all images.

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


def vote_contrast(distances: VoteDistances, labels: Tensor, num_bins: int = 30) -> VoteContrast:
    """Compare the true class's votes with those of a wrong class, over some images.

    Args:
        distances: from :func:`matcaps.inspect.vote_distances`.
        labels: ``[B]``, int64.
        num_bins: of the histograms, at most.

    Raises:
        ValueError: there are no images, or a distance is not finite.
    """
    tally = ContrastTally()
    tally.add(distances, labels)
    return tally.result(num_bins)


class ContrastTally:
    """Measures :class:`VoteContrast` batch by batch."""

    def __init__(self) -> None:
        self._histogram = _GrowingHistogram()
        self._means: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, distances: VoteDistances, labels: Tensor) -> None:
        """Add a batch; arguments as :func:`vote_contrast` takes them."""
        if len(labels) == 0:
            return
        data_BJ = distances.weights("data")[:, -1].sum(1)
        wrong = data_BJ.scatter(1, labels[:, None], -1.0).argmax(1)
        pair_BC = torch.stack([labels, wrong], 1)
        at = pair_BC[:, None, None].expand(*distances.distances.shape[:3], 2)
        distances_CTN = _by_class(distances.distances.gather(3, at))
        means, weights = [], []
        for weighting in WEIGHTINGS:
            weights_BTNJ = distances.weights(weighting)
            weights.append(_by_class(weights_BTNJ.gather(3, at)))
            means_BTJ = distances.mean(weighting).double().masked_fill(weights_BTNJ.sum(2) <= 0, torch.nan)
            means.append(means_BTJ.gather(2, at[:, :, 0]))
        self._histogram.add(distances_CTN.expand(len(WEIGHTINGS), -1, -1, -1), torch.stack(weights))
        self._means.append(torch.stack(means).transpose(2, 3))
        self._labels.append(pair_BC)

    def result(self, num_bins: int = 30) -> VoteContrast:
        """The contrast over all batches added; raises as :func:`vote_contrast` does."""
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
    """Weighted counts in fine bins from 0; the width of the bins doubles when a value lies beyond the last."""

    def __init__(self) -> None:
        self._counts = torch.zeros(0)
        self._width = 0.0

    def add(self, values: Tensor, weights: Tensor) -> None:
        """Add values ``[..., N]``, each counted by its weight."""
        largest = float(values.max())
        if not torch.isfinite(values).all():
            raise ValueError("distances must be finite; got NaN or ∞: look for NaN or ∞ in the network's weights")
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
        cumulative = self._counts.cumsum(-1)
        reach = int((cumulative < _SHOWN * cumulative[..., -1:]).sum(-1).max()) + 1
        group = -(-reach // num_bins)
        shown = min(-(-reach // group), _NUM_FINE // group)
        counts = self._counts[..., : shown * group].unflatten(-1, (shown, group)).sum(-1)
        edges = self._width * group * torch.arange(shown + 1, dtype=torch.float64)
        return edges, counts, self._counts[..., shown * group :].sum(-1)


def _by_class(values_BTNC: Tensor) -> Tensor:
    """Join the images: ``[B, T, N, C]`` to ``[C, T, B·N]``."""
    return values_BTNC.permute(3, 1, 0, 2).flatten(2)


def _share_smaller(one: Tensor, other: Tensor) -> Tensor:
    """Share of the images (the second dimension) on which ``one`` is smaller; images with NaN are left out."""
    known = ~(one.isnan() | other.isnan())
    return (one < other).double().sum(1) / known.double().sum(1)


def contrast_in_words(contrast: VoteContrast) -> str:
    """Describe whether the true class's votes come together, more than the wrong one's, and whether it gains votes."""
    number, changes = contrast.num_images, []
    clauses = []
    for place, weighting in enumerate(("weighted by assignment", "weighted by assignment × activation")):
        true, wrong = contrast.mean_distance[place].tolist()
        changes.append((change(true), change(wrong)))
        clauses.append(
            f"{weighting} {arrows(true)} for the true class ({_moves(true)}) and {arrows(wrong)} for the wrong class "
            f"with most data ({_moves(wrong)})"
        )
    if contrast.mean_distance.shape[2] == 1:
        judgement = "With one iteration votes cannot come together"
    elif not all(true <= -NOTICEABLE for true, _ in changes):  # NaN, too
        judgement = "Votes for the true class do not come together"
    elif all(not wrong - true < NOTICEABLE for true, wrong in changes):
        judgement = "Votes for the true class come together, more than those for the wrong class"
    else:
        judgement = "Votes for the true class come together, but no more than those for the wrong class"
    weight = (contrast.counts.sum(-1) + contrast.beyond)[1, 0].tolist()
    gain = {1: "gains votes", -1: "loses votes", 0: "keeps as many votes"}[direction(weight)]
    images = "one image" if number == 1 else f"{number} images"
    sentence = (
        f"{judgement}; the true class {gain} ({arrows(weight)} by weight); mean distance on {images} by iteration, in "
        f"pose units: {'; '.join(clauses)}"
    )
    if number > 1:
        nearer = contrast.true_is_nearer[1].tolist()
        sentence += f"; the true class's is the smaller of the two on {arrows(nearer, 100)} % of the images"
    return sentence


def _moves(distances: Sequence[float]) -> str:
    """Describe how distances change from the first iteration to the last."""
    difference, way = change(distances), direction(distances)
    if not way:
        return "about the same"
    if way > 0:
        return f"{100 * difference:.0f} % farther"
    steady = ", with every iteration" if rises([-one for one in distances]) else ""
    return f"{-100 * difference:.0f} % closer{steady}"


@dataclass(frozen=True, eq=False)
class ContrastDisplay(Display):
    """Vote distances of the true class beside those of a wrong one; ``true`` and ``wrong`` are their labels."""

    numbers: VoteContrast
    true: str
    wrong: str
    title: str

    def plot(self) -> Figure:
        """Draw histograms of vote distances of the true class and of a wrong one, by iteration, on the same axes.

        Rows are iterations. Columns are the two classes, with votes weighted by assignment, then by assignment ×
        activation.
        """
        contrast, true, wrong, title = self.numbers, self.true, self.wrong, self.title
        iterations = contrast.counts.shape[2]
        figure = new_figure(4, iterations, width=2.5, height=1.6)
        panels = figure.subplots(iterations, 4, sharex=True, squeeze=False)
        edges = contrast.edges.numpy()
        for weighting, weighting_name in enumerate(("assignment", "assignment × activation")):
            top = 1.3 * max(float(contrast.counts[weighting].max()), 1e-12)  # room for the figures above the bars
            for place, (name, colour) in enumerate(((true, COLOURS[0]), (wrong, COLOURS[1]))):
                for row in range(iterations):
                    axes = panels[row][2 * weighting + place]
                    counts = contrast.counts[weighting, place, row].numpy()
                    axes.stairs(counts, edges, fill=True, color=colour)
                    mean = float(contrast.mean_distance[weighting, place, row])
                    if mean == mean:
                        axes.axvline(mean, ymax=0.7, color="black", linewidth=1, linestyle="--")
                    total = float(counts.sum() + contrast.beyond[weighting, place, row])
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
                panels[0][2 * weighting + place].set_title(
                    f"{name}\nweighted by {weighting_name}", fontsize=8, color=colour
                )
        for row in range(iterations):
            panels[row][0].set_ylabel(f"iteration {row + 1}", fontsize=8)
        caption = textwrap.fill(contrast_in_words(contrast), 150)
        figure.suptitle(f"{title}\n{caption}", fontsize=8)
        figure.supxlabel(
            "distance of a vote to the class capsule's mean, in pose units (at most 5 % by weight lie beyond)",
            fontsize=9,
        )
        figure.supylabel("votes by weight", fontsize=9)
        return figure


class ImageContrastDisplay(ContrastDisplay):
    """The contrast on one image."""

    caption: ClassVar[str] = (
        "The true class's votes and those of the wrong class that has most data, on the same axes. Where "
        "routing finds agreement, the true class's bars move to the left from iteration to iteration, and grow."
    )

    @classmethod
    def from_inspection(cls, inspection: Inspection) -> "ImageContrastDisplay":
        """Measure on the inspected image; where its class is unknown, the predicted class takes its place."""
        contrast = vote_contrast(vote_distances(inspection.network, inspection.image), torch.tensor([inspection.label]))
        true, wrong = (short_name(inspection.classes[label]) for label in contrast.labels[0].tolist())
        true = f"{true}, {'predicted' if inspection.truth is None else 'true'}"
        return cls(contrast, true, f"{wrong}, most data of the others", inspection.title)

    @property
    def sentences(self) -> dict[str, str]:
        return {"vote distances": contrast_in_words(self.numbers)}


class SetContrastDisplay(ContrastDisplay):
    """The contrast over a labelled set, each image with its own wrong class."""

    caption: ClassVar[str] = "The same comparison over many images."

    @classmethod
    def of_images(cls, contrast: VoteContrast, title: str) -> "SetContrastDisplay":
        """Make a display from a contrast that is already measured."""
        return cls(contrast, "true class", "wrong class with most data", title)

    @classmethod
    def from_inspection(cls, inspection: "SavedInspection") -> "SetContrastDisplay | None":
        """Measure over the labelled set; None without one."""
        if inspection.survey is None:
            return None
        contrast = inspection.survey.contrast
        return cls.of_images(contrast, f"{inspection.set_title}, mean of {contrast.num_images} images")

    @property
    def sentences(self) -> dict[str, str]:
        return {"vote distances over the set": contrast_in_words(self.numbers)}
