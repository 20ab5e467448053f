"""How far votes lie from their mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from matcaps._numbers import short_number
from matcaps.capsules import Capsules
from matcaps.data.names import short_name
from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display
from matcaps.inspect.inspection import Inspection
from matcaps.inspect.style import COLOURS, GREY, new_figure
from matcaps.models import EMCapsNet
from matcaps.routing import RoutingIteration


@dataclass(frozen=True, eq=False)
class VoteDistances:
    """Distances of votes to the class capsules' means after each iteration's M-step.

    The distance is Euclidean over the 16 components of the pose, coordinates included, in the pose's own units. A
    vote's weight is the child's assignment to the class in the M-step that made the mean, or (``data``) this assignment
    times the child's activation, as in the mean itself.

    Attributes:
        distances: ``[B, T, N, J]``, of each child's vote to each class's mean; N = H·W·I children.
        assignment: ``[B, T, N, J]``, in [0, 1].
        child_activations: ``[B, N]``, in [0, 1].
        activations: ``[B, T, J]``, of the class capsules.
    """

    distances: Tensor
    assignment: Tensor
    child_activations: Tensor
    activations: Tensor

    def mean(self, weigh: str = "assignment") -> Tensor:
        """Weighted mean distance, ``[B, T, J]``.

        Args:
            weigh: ``"assignment"`` (the tutorial), or ``"data"``, assignment times the child's activation.

        Raises:
            ValueError: ``weigh`` is neither.
        """
        weights = self.weights(weigh)
        return (weights * self.distances).sum(2) / weights.sum(2).clamp_min(1e-20)

    def weights(self, weigh: str = "assignment") -> Tensor:
        """The weight of each vote, ``[B, T, N, J]``; see :meth:`mean`."""
        if weigh == "assignment":
            return self.assignment
        if weigh == "data":
            return self.assignment * self.child_activations[:, None, :, None]
        raise ValueError(f'weigh must be "assignment" or "data"; got {weigh!r}')


@dataclass(frozen=True, eq=False)
class VoteHistogram:
    """One image's histograms of vote distances: one row per iteration, one column per class.

    Attributes:
        edges: ``[J, M + 1]``, of each class's bins, from 0, the same for all iterations. Each class has its own,
            because the votes of two classes can differ in size by a factor of a hundred.
        counts: ``[T, J, M]``, sums of assignment in each bin.
        beyond: ``[T, J]``, sum of assignment beyond the last edge.
        mean_distance: ``[T, J]``, weighted by assignment.
        data_mean_distance: ``[T, J]``, weighted by assignment times the child's activation.
        activations: ``[T, J]``, of the class capsules.
    """

    edges: Tensor
    counts: Tensor
    beyond: Tensor
    mean_distance: Tensor
    data_mean_distance: Tensor
    activations: Tensor


def distances_to_means(votes: Tensor, states: list[RoutingIteration]) -> Tensor:
    """Euclidean distance of votes ``[..., I, J, P]`` to each state's means: ``[T, ..., I, J]``."""
    return torch.stack([(votes - state.mean.unsqueeze(-3)).norm(dim=-1) for state in states])


@inspects
def vote_distances(network: EMCapsNet, images: Tensor) -> VoteDistances:
    """Measure the distances of all votes for the class capsules.

    Args:
        network: on any device; the results are on the CPU.
        images: ``[B, C, H, W]``, prepared as the network takes them; some hundreds at a time.
    """
    children, coordinates = network.layer_outputs(images)["conv_capsules2"], network.class_coordinates(images)
    states = network.class_capsules.trace(children, coordinates)
    return distances_of(network, children, coordinates, states)


def distances_of(
    network: EMCapsNet, children: Capsules, coordinates: Tensor | None, states: list[RoutingIteration]
) -> VoteDistances:
    """:func:`vote_distances` from the class capsules' children and states, where these are already known."""
    votes = network.class_capsules.votes(children, coordinates)
    return VoteDistances(
        distances=distances_to_means(votes, states).movedim(0, 1),
        assignment=torch.stack([state.assignment for state in states], 1),
        child_activations=children.activations.flatten(1),
        activations=torch.stack([state.activation for state in states], 1),
    )


def vote_histogram(distances: VoteDistances, image: int = 0, num_bins: int = 30) -> VoteHistogram:
    """Count one image's votes by their distance, each weighted by its assignment.

    Args:
        distances: from :func:`vote_distances`.
        image: which of its images.
        num_bins: a class's bins, from 0 to the distance within which 99 % of its assignment lies after every
            iteration.
    """
    distances_TJN = distances.distances[image].transpose(1, 2)
    weights_TJN = distances.assignment[image].transpose(1, 2)
    reach_J = _weighted_quantile(distances_TJN, weights_TJN, 0.99).amax(0).clamp_min(1e-6)
    edges_JM = reach_J[:, None] * (torch.arange(num_bins + 1) / num_bins)  # so that the last equals the reach exactly
    # a vote beyond the last edge gets index num_bins, an extra bin
    bins_TJN = torch.searchsorted(
        edges_JM[:, 1:].expand(len(distances_TJN), -1, -1).contiguous(), distances_TJN.contiguous()
    )
    counts = torch.zeros(*distances_TJN.shape[:2], num_bins + 1)
    counts.scatter_add_(2, bins_TJN, weights_TJN.to(counts))
    return VoteHistogram(
        edges=edges_JM,
        counts=counts[..., :num_bins],
        beyond=counts[..., num_bins],
        mean_distance=distances.mean()[image],
        data_mean_distance=distances.mean("data")[image],
        activations=distances.activations[image],
    )


def _weighted_quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """The weighted quantile over the last dimension: ``[..., N]`` to ``[...]``."""
    values, order = values.sort(dim=-1)
    total = weights.gather(-1, order).cumsum(-1)
    place = torch.searchsorted(total, share * total[..., -1:]).clamp_max(values.shape[-1] - 1)
    return values.gather(-1, place).squeeze(-1)


@dataclass(frozen=True, eq=False)
class VotesDisplay(Display):
    """Histograms of one image's vote distances; ``chosen`` is the class to colour."""

    votes: VoteDistances
    histogram: VoteHistogram
    classes: Sequence[str]
    chosen: int
    title: str
    caption: ClassVar[str] = (
        "For each class and after each iteration, how far the votes lie from the class capsule's mean, each vote "
        "weighted by the assignment of its child to the class."
    )

    @classmethod
    def from_inspection(cls, inspection: Inspection) -> "VotesDisplay":
        """Measure the votes on the inspected image."""
        votes = vote_distances(inspection.network, inspection.image)
        return cls(votes, vote_histogram(votes), inspection.classes, inspection.label, inspection.title)

    @property
    def numbers(self) -> dict[str, Any]:
        return {"histogram": self.histogram, **vars(self.votes)}

    def plot(self) -> Figure:
        """Draw histograms of vote distances: iterations in rows, classes in columns, each with its own distances."""
        histogram, classes, chosen, title = self.histogram, self.classes, self.chosen, self.title
        iterations, num_classes = histogram.mean_distance.shape
        figure = new_figure(num_classes, iterations, width=max(1.15, 8.5 / num_classes), height=1.55)
        panels = figure.subplots(iterations, num_classes, sharex="col", sharey=True, squeeze=False)
        for row in range(iterations):
            for column in range(num_classes):
                axes = panels[row][column]
                colour = COLOURS[0] if column == chosen else GREY
                edges = histogram.edges[column].numpy()
                axes.stairs(histogram.counts[row, column].numpy(), edges, fill=True, color=colour)
                mean = float(histogram.mean_distance[row, column])
                total = float(histogram.counts[row, column].sum() + histogram.beyond[row, column])
                axes.axvline(mean, ymax=0.66, color="black", linewidth=1, linestyle="--")  # below the text
                activation = float(histogram.activations[row, column])
                axes.text(
                    0.97, 0.95, f"mean {short_number(mean)}\nsum {short_number(total)}\na = {activation:.2g}",
                    transform=axes.transAxes, ha="right", va="top", fontsize=7,
                )  # fmt: skip
                axes.tick_params(labelsize=7)
                axes.set_xlim(0, edges[-1])
                for side in ("top", "right"):
                    axes.spines[side].set_visible(False)
                if row == 0:
                    weight = "bold" if column == chosen else "normal"
                    axes.set_title(
                        short_name(classes[column], 16),
                        fontsize=9,
                        color=colour if column == chosen else "black",
                        weight=weight,
                    )
            panels[row][0].set_ylabel(f"iteration {row + 1}", fontsize=8)
        # space for the text above the bars
        panels[0][0].set_ylim(0, 1.3 * float(histogram.counts.max()))
        figure.suptitle(title, fontsize=10)
        figure.supxlabel("distance of a vote to the class capsule's mean, in pose units", fontsize=9)
        figure.supylabel("votes, each weighted by its assignment", fontsize=9)
        return figure
