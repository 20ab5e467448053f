"""A run's curves by epoch: loss and accuracy, how active its capsules are, and measures of its routing."""

import re
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from matcaps.data.names import short_name
from matcaps.inspect.style import COLOURS, new_figure

Rows = Sequence[Mapping[str, str]]
"""Rows of a run's metrics.csv, one for each epoch."""


def draw_curves(runs: Mapping[str, Rows]) -> Figure:
    """Draw loss and, below it, accuracy by epoch, of one run or of several in one picture.

    Args:
        runs: the metrics of each run, by its name.
    """
    figure = new_figure(1, 2, width=5.5, height=2.8)
    upper, lower = figure.subplots(2, 1, sharex=True)
    parts = {"train": "-", "validation": "--", "test": ":"}
    for (name, rows), colour in zip(runs.items(), _endless(COLOURS), strict=False):
        shown = short_name(name)
        shown = f" {shown}" if shown.startswith("_") else shown  # matplotlib's legend leaves out names with "_"
        for part, style in parts.items():
            label = part if len(runs) == 1 else f"{shown}, {part}"
            _draw_column(upper, rows, f"{part}/loss", style, colour, label)
            _draw_column(lower, rows, f"{part}/accuracy", style, colour, label, factor=100)
    upper.set_ylabel("loss")
    lower.set_ylabel("accuracy, %")
    _count_epochs(lower)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    return figure


def draw_health_by_epoch(rows: Rows) -> Figure | None:
    """Draw each layer's mean activation and, below it, its share of dead types by epoch; None without capsules."""
    layers = list(dict.fromkeys(name.split("/")[1] for row in rows for name in row if name.startswith("activation/")))
    if not layers:
        return None
    figure = new_figure(1, 2, width=5.5, height=2.8)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for layer, colour in zip(layers, _endless(COLOURS), strict=False):
        _draw_column(upper, rows, f"activation/{layer}", "-", colour, layer.replace("_", " "))
        _draw_column(lower, rows, f"dead/{layer}", "-", colour, layer.replace("_", " "), factor=100)
    upper.set_ylabel("mean activation")
    upper.set_ylim(-0.02, 1.02)
    lower.set_ylabel("dead capsule types, %")
    lower.set_ylim(-2, 102)
    _count_epochs(lower)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    upper.legend(fontsize=8)
    return figure


def measured_iterations(rows: Rows) -> int:
    """The last iteration for which a run's metrics have measures of agreement; 0: they have none."""
    matches = (re.fullmatch(r"agreement/share_true_(\d+)", name) for row in rows for name in row if row[name])
    return max((int(match[1]) for match in matches if match), default=0)


def draw_agreement_by_epoch(rows: Rows, chance: float) -> Figure | None:
    """Draw measures of agreement by epoch, one line for each iteration; None where none was measured.

    Args:
        rows: of a run's metrics.csv.
        chance: share of the data, and of the images, that each class would have by chance.
    """
    iterations = measured_iterations(rows)
    if not iterations:
        return None
    figure = new_figure(1, 3, width=5.5, height=2.5)
    panels: Sequence[Axes] = figure.subplots(3, 1, sharex=True)
    described: Mapping[str, tuple[str, float, float]] = {
        "share_true": ("true class's share\nof the data, %", 100, chance),
        "log_deviation_gap": ("ln σ of its votes,\nless the others'", 1, 0.0),
        "nearest_is_true": ("its votes nearest to\ntheir mean, % of images", 100, chance),
    }
    for axes, (name, (label, factor, level)) in zip(panels, described.items(), strict=True):
        axes.axhline(factor * level, color="black", linestyle=":", linewidth=1, label="chance" if level else None)
        for iteration in range(1, iterations + 1):
            column, colour = f"agreement/{name}_{iteration}", COLOURS[(iteration - 1) % len(COLOURS)]
            _draw_column(axes, rows, column, "-", colour, f"iteration {iteration}", factor=factor, marker=True)
        axes.set_ylabel(label, fontsize=9)
        axes.grid(alpha=0.3)
        if factor == 100:
            axes.set_ylim(-2, 102)
    _count_epochs(panels[-1])
    panels[0].legend(fontsize=8)
    return figure


def _draw_column(
    axes: Axes,
    rows: Rows,
    name: str,
    style: str,
    colour: str,
    label: str,
    *,
    factor: float = 1.0,
    marker: bool = False,
) -> None:
    """Draw one column of the metrics, if it has values; a single epoch, or with ``marker`` each epoch, as a point."""
    points = [(int(row["epoch"]), factor * float(row[name])) for row in rows if row.get(name)]
    if points:
        shape = "o" if marker or len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=shape)


def _count_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _endless(colours: Sequence[str]) -> list[str]:
    """Colours for many lines; they repeat after the last."""
    return [*colours] * 10
