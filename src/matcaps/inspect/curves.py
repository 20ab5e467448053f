"""A run's curves by epoch: loss and accuracy, how active its capsules are, and measures of its routing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import ClassVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from matcaps.data.names import short_name
from matcaps.inspect.agreement import measures_in_words
from matcaps.inspect.display import Display
from matcaps.inspect.style import COLOURS, new_figure

Rows = Sequence[Mapping[str, str]]
"""Rows of a run's metrics.csv, one for each epoch."""


@dataclass(frozen=True)
class CurvesDisplay(Display):
    """Loss and, below it, accuracy, of one run or of several in one picture: by the run's name its metrics."""

    numbers: Mapping[str, Rows]
    caption: ClassVar[str] = (
        "How training went: the loss is what is minimised (its margin may rise on the way, and the loss with it), "
        "the accuracy the share of images whose most active class is the true one."
    )

    def plot(self) -> Figure:
        """A line each of the parts that were looked at."""
        figure, (upper, lower) = _panels(2, 2.8)
        parts = {"train": "-", "validation": "--", "test": ":"}
        for (name, rows), colour in zip(self.numbers.items(), cycle(COLOURS), strict=False):
            shown = short_name(name)
            shown = f" {shown}" if shown.startswith("_") else shown  # matplotlib's legend leaves out names with "_"
            for part, style in parts.items():
                label = part if len(self.numbers) == 1 else f"{shown}, {part}"
                _draw_column(upper, rows, f"{part}/loss", style, colour, label)
                _draw_column(lower, rows, f"{part}/accuracy", style, colour, label, factor=100)
        upper.set_ylabel("loss")
        lower.set_ylabel("accuracy, %")
        for axes in (upper, lower):
            if axes.lines:
                axes.legend(fontsize=8)
        return figure


@dataclass(frozen=True)
class HealthByEpochDisplay(Display):
    """Each layer's mean activation and, below it, its share of dead types."""

    numbers: Rows
    layers: Sequence[str]
    caption: ClassVar[str] = (
        "How awake the capsules are: near 0 a layer sleeps, near 1 it says nothing by being awake; a dead type is "
        "active on none of the images that are watched."
    )

    @classmethod
    def from_metrics(cls, rows: Rows) -> "HealthByEpochDisplay | None":
        """Of a run's metrics; None without capsules."""
        names = [name.split("/")[1] for row in rows for name in row if name.startswith("activation/")]
        return cls(rows, list(dict.fromkeys(names))) if names else None

    def plot(self) -> Figure:
        """A line a layer."""
        figure, (upper, lower) = _panels(2, 2.8)
        for layer, colour in zip(self.layers, cycle(COLOURS), strict=False):
            label = layer.replace("_", " ")
            _draw_column(upper, self.numbers, f"activation/{layer}", "-", colour, label)
            _draw_column(lower, self.numbers, f"dead/{layer}", "-", colour, label, factor=100)
        upper.set_ylabel("mean activation")
        upper.set_ylim(-0.02, 1.02)
        lower.set_ylabel("dead capsule types, %")
        lower.set_ylim(-2, 102)
        upper.legend(fontsize=8)
        return figure


@dataclass(frozen=True)
class AgreementByEpochDisplay(Display):
    """Share of the data, ln σ less the others', nearest votes, after each of the iterations.

    ``chance`` is the share of the data, and of the images, that each class would have by chance.
    """

    numbers: Rows
    chance: float
    iterations: int
    caption: ClassVar[str] = (
        "How routing treats the true class, by epoch. Routing should give the true class more data from iteration to "
        "iteration, and bring its votes together: ln σ below that of the others, and falling."
    )

    @classmethod
    def from_metrics(cls, rows: Rows, chance: float) -> "AgreementByEpochDisplay | None":
        """Of a run's metrics; None where agreement was not measured."""
        found = (re.fullmatch(r"agreement/share_true_(\d+)", name) for row in rows for name in row if row[name])
        iterations = max((int(match[1]) for match in found if match), default=0)
        return cls(rows, chance, iterations) if iterations else None

    @property
    def sentences(self) -> dict[str, str]:
        """What was found after the last epoch that was looked at."""
        row = [row for row in self.numbers if row.get(f"agreement/share_true_{self.iterations}")][-1]
        share, gap, nearest, changed = (
            [float(row.get(f"agreement/{name}_{step}") or "nan") for step in range(first, self.iterations + 1)]
            for name, first in (("share_true", 1), ("log_deviation_gap", 1), ("nearest_is_true", 1), ("changed", 2))
        )
        said = ". ".join(measures_in_words(share, gap, nearest, changed, self.chance))
        return {f"After epoch {row['epoch']}": f"{said}."}

    def plot(self) -> Figure:
        """A line an iteration."""
        figure, panels = _panels(3, 2.5)
        described: Mapping[str, tuple[str, float, float]] = {
            "share_true": ("true class's share\nof the data, %", 100, self.chance),
            "log_deviation_gap": ("ln σ of its votes,\nless the others'", 1, 0.0),
            "nearest_is_true": ("its votes nearest to\ntheir mean, % of images", 100, self.chance),
        }
        for axes, (name, (label, factor, level)) in zip(panels, described.items(), strict=True):
            axes.axhline(factor * level, color="black", linestyle=":", linewidth=1, label="chance" if level else None)
            for iteration in range(1, self.iterations + 1):
                column, colour = f"agreement/{name}_{iteration}", COLOURS[(iteration - 1) % len(COLOURS)]
                shown = f"iteration {iteration}"
                _draw_column(axes, self.numbers, column, "-", colour, shown, factor=factor, marker="o")
            axes.set_ylabel(label, fontsize=9)
            if factor == 100:
                axes.set_ylim(-2, 102)
        panels[0].legend(fontsize=8)
        return figure


def _panels(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    """Panels one below the other, with whole epochs along them."""
    figure = new_figure(1, count, width=5.5, height=height)
    panels: Sequence[Axes] = figure.subplots(count, 1, sharex=True)
    for axes in panels:
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, panels


def _draw_column(
    axes: Axes, rows: Rows, name: str, style: str, colour: str, label: str, factor: float = 1, marker: str | None = None
) -> None:
    """Draw what one column holds, where it holds anything; a single epoch as a point."""
    points = [(int(row["epoch"]), factor * float(row[name])) for row in rows if row.get(name)]
    if points:
        shape = "o" if len(points) == 1 else marker
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=shape)
