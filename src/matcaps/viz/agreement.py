"""Whether votes agree: what routing does for the true class by iteration, and how far votes lie from their mean."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matcaps._numbers import short_number
from matcaps.inspection import RoutingAgreement, VoteContrast
from matcaps.inspection.wording import contrast_in_words
from matcaps.viz.style import COLOURS, MARKERS, new_figure

_TRUE, _OTHER = COLOURS[0], COLOURS[1]


def draw_agreement(found: RoutingAgreement, title: str) -> Figure:
    """By iteration: shares of the data, ln σ, nearest votes, right answers, activation; and how active each layer is.

    Args:
        found: the numbers.
        title: of the figure.
    """
    figure = new_figure(5, width=2.7, height=3.1)
    panels = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1.25])
    steps = np.arange(1, len(found.share_true) + 1)
    others = [(1 - share) * found.chance / (1 - found.chance) for share in found.share_true]
    pairs = (
        ("share of the data, %", 100, found.share_true, others),
        ("mean ln σ of the votes", 1, found.log_deviation_true, found.log_deviation_others),
        ("activation", 1, found.activation_true, found.activation_others),
    )
    for axes, (name, factor, true, other) in zip((panels[0], panels[1], panels[3]), pairs, strict=True):
        for place, (values, label) in enumerate(((true, "true class"), (other, "one other class, mean"))):
            axes.plot(steps, factor * np.array(values), MARKERS[place] + "-", color=(_TRUE, _OTHER)[place], label=label)
        axes.set_title(name, fontsize=9)
    panels[2].plot(steps, 100 * np.array(found.nearest_is_true), "o-", color=_TRUE, label="true class's votes nearest")
    panels[2].plot(steps, 100 * np.array(found.accuracy), "^-", color=COLOURS[2], label="right, were it the last")
    panels[2].plot(steps[1:], 100 * np.array(found.changed[1:]), "D-", color=COLOURS[3], label="answer changed")
    panels[2].set_title("share of the images, %", fontsize=9)
    for axes in (panels[0], panels[2]):
        axes.axhline(100 * found.chance, color="black", linestyle=":", linewidth=1, label="chance")
        axes.set_ylim(-2, 102)
    panels[3].set_ylim(-0.02, 1.02)
    for axes in panels[:4]:
        axes.set_xticks(steps)
        axes.set_xlabel("iteration", fontsize=9)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    for axes in (panels[0], panels[2]):
        axes.legend(fontsize=7)
    _draw_layers(panels[4], found)
    figure.suptitle(f"{title}, {found.num_images} images", fontsize=9)
    return figure


def _draw_layers(axes: Axes, found: RoutingAgreement) -> None:
    """Of each layer the share of capsules that are off, between, and on."""
    names = list(found.layers)
    low, high = (np.array([100 * getattr(one, name) for one in found.layers.values()]) for name in _ENDS)
    places = np.arange(len(names))
    axes.barh(places, low, color="#8c8c8c", label="below 0.01")
    axes.barh(places, high, left=100 - high, color=COLOURS[4], label="above 0.99")
    for place, layer in enumerate(found.layers.values()):
        axes.plot(100 * layer.mean, place, "D", color="black", markersize=5, label="mean" if place == 0 else None)
    axes.set_yticks(places, [name.replace("_", " ").replace(" capsules", "\ncapsules") for name in names], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("capsules, %; mean activation × 100", fontsize=8)
    axes.set_title("activations of each layer", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)


_ENDS = ("share_low", "share_high")


def draw_vote_contrast(found: VoteContrast, true: str, wrong: str, title: str) -> Figure:
    """Histograms of vote distances of the true class and of a wrong one, by iteration, on the same axes.

    Iterations go downwards; across, the two classes with votes weighed by assignment, then by assignment × activation.

    Args:
        found: the numbers.
        true: what to call the true class.
        wrong: what to call the wrong class.
        title: of the figure.
    """
    iterations = found.counts.shape[2]
    figure = new_figure(4, iterations, width=2.5, height=1.6)
    panels = figure.subplots(iterations, 4, sharex=True, squeeze=False)
    edges = found.edges.numpy()
    for weighting, weighed in enumerate(("assignment", "assignment × activation")):
        top = 1.3 * max(float(found.counts[weighting].max()), 1e-12)  # room for the figures above the bars
        for place, (name, colour) in enumerate(((true, _TRUE), (wrong, _OTHER))):
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
