"""The figures of the experiments: ours beside the paper's, drawn from their records."""

import statistics
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matcaps.experiments.plan import Experiment
from matcaps.experiments.records import TrialRecord
from matcaps.experiments.tables import AIMS, ATTACKS, BOXES, Group, attack_curve, groups, viewpoint_matches
from matcaps.experiments.viewpoints import read_curve
from matcaps.inspect.style import COLOURS, MARKERS, NETWORK_COLOURS, new_figure


def draw_experiment(experiment: Experiment, records: Sequence[TrialRecord]) -> Figure | None:
    """Draw an experiment's figure; None where there is nothing to draw yet.

    Args:
        experiment: which.
        records: see :func:`matcaps.experiments.gather`.
    """
    return _FIGURES[experiment.name](experiment, records)


def _table1(experiment: Experiment, records: Sequence[TrialRecord]) -> Figure | None:
    done = groups(record for record in records if record.state == "done")
    if not done:
        return None
    names = [row.name for row in experiment.rows]
    figure = new_figure(width=6.8, height=0.8 + 0.36 * len(names))
    axes = figure.subplots()
    for place, row in enumerate(experiment.rows):
        paper = dict(row.paper).get("test")
        if paper is not None:
            axes.plot(paper, place, MARKERS[1], color=COLOURS[1], label="paper, 310 K", fillstyle="none", markersize=8)
    for index, epochs in enumerate(sorted({group[0].epochs for group in done})):
        for group in done:
            if group[0].epochs == epochs:
                axes.errorbar(
                    *_centre([record.error_percent for record in group], names.index(group[0].row.name)),
                    fmt="o",
                    color=COLOURS[0],
                    alpha=1 / (1 + 0.5 * index),
                    markersize=4 + 2 * index,
                    capsize=3,
                    label=f"matcaps, {epochs} epochs",
                )
    axes.set_yticks(range(len(names)), [row.title for row in experiment.rows], fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")  # a row that fails is tenfold the others
    axes.set_xticks(ticks := [1, 2, 3, 5, 10, 20, 30, 50, 100], [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    least = min(record.error_percent for group in done for record in group)
    axes.set_xlim(left=0.9 * min(1.5, max(least, 0.1)))
    axes.set_xlabel("smallNORB test error, %; logarithmic")
    axes.grid(axis="x", alpha=0.3)
    _legend(axes)
    return figure


def _centre(errors: Sequence[float], place: int) -> tuple[float, int, None, float | None]:
    """The arguments of an error bar: mean, place, no vertical bar, standard deviation of the sample."""
    return statistics.mean(errors), place, None, statistics.stdev(errors) if len(errors) > 1 else None


def _viewpoints(experiment: Experiment, records: Sequence[TrialRecord]) -> Figure | None:
    curves = {id(record): read_curve(record.metrics) for record in records}
    if not any(curves.values()):
        return None
    figure = new_figure(2)
    matches = viewpoint_matches(records)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, angle in zip(panels, ("elevation", "azimuth"), strict=True):
        for record in records:
            name, network = record.row.name.split("-")
            curve = curves[id(record)]
            if name != angle or not curve:
                continue
            colour = NETWORK_COLOURS[network]
            epochs = [errors.epoch for errors in curve]
            axes.plot(epochs, [errors.novel for errors in curve], color=colour, label=f"{network}, novel")
            axes.plot(epochs, [errors.familiar for errors in curve], "--", color=colour, label=f"{network}, familiar")
        for (name, _), found in matches.items():
            for network, (_, errors) in found.items() if name == angle else ():
                style = {"color": NETWORK_COLOURS[network], "zorder": 3}
                axes.plot(
                    [errors.epoch] * 2, [errors.novel, errors.familiar], "o", label="at matched familiar", **style
                )
        axes.set_title(f"novel {angle}s", fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.lines:
            _legend(axes)
        else:
            axes.text(0.5, 0.5, "not run yet", ha="center", va="center", transform=axes.transAxes)
            axes.set_xticks([])
    panels[0].set_ylabel("error on test objects, %")
    return figure


def _attacks(experiment: Experiment, records: Sequence[TrialRecord]) -> Figure | None:
    measured = groups(record for record in records if record.measured)
    if not measured:
        return None
    figure = new_figure(2, 2, height=3.0)
    found = measured[0][0].measured["attacks"]
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, (aim, what) in zip(panels, AIMS.items(), strict=True):
        for axes, (box, where) in zip(row, BOXES.items(), strict=True):
            for group in measured:
                _attack_lines(axes, group, aim, box, found["epsilon"]["values"])
            axes.set_title(f"{aim}, {where}", fontsize=10)
            axes.set_ylim(-3, 103)
            axes.grid(alpha=0.3)
        row[0].set_ylabel(what)
    for axes in panels[1]:
        axes.set_xlabel(f"ε, in units of {found['epsilon']['unit']}", fontsize=9)
    lines, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    return figure


def _attack_lines(axes: Axes, group: Group, aim: str, box: str, epsilons: Sequence[float]) -> None:
    network = group[0].row.name
    for (attack, name), style in zip(ATTACKS.items(), ("-", ":"), strict=True):
        values = [statistics.mean(one) for one in attack_curve(group, attack, aim, box)]
        axes.plot(
            epsilons, values, style, marker=MARKERS[network == "cnn"], markersize=4, color=NETWORK_COLOURS[network],
            label=f"{network}, {name}",
        )  # fmt: skip


def _mnist(experiment: Experiment, records: Sequence[TrialRecord]) -> Figure | None:
    measured = groups(record for record in records if record.measured)
    if not measured:
        return None
    figure = new_figure(2)
    for axes, (kind, unit) in zip(figure.subplots(1, 2), (("rotation", "degrees"), ("shift", "pixels")), strict=True):
        for group in measured:
            entries = [record.measured["distortions"][kind] for record in group]
            network = group[0].row.name
            axes.plot(
                [entry[unit] for entry in entries[0]],
                [statistics.mean(entry["error_percent"] for entry in same) for same in zip(*entries, strict=True)],
                marker=MARKERS[list(NETWORK_COLOURS).index(network)],
                markersize=4,
                color=NETWORK_COLOURS[network],
                label=f"{network}, {group[0].epochs} epochs",
            )
        axes.set_xlabel(f"{kind} of the test digits, {unit}")
        axes.set_ylabel("test error, %")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        _legend(axes)
    return figure


def _legend(axes: Axes) -> None:
    """A legend that names each kind of line once."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys(), fontsize=7)


_FIGURES: dict[str, Callable[[Experiment, Sequence[TrialRecord]], Figure | None]] = {
    "table1": _table1,
    "viewpoints": _viewpoints,
    "attacks": _attacks,
    "mnist": _mnist,
}
