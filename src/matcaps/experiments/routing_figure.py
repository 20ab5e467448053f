"""A figure of the bench of routings: what each reaches on toys left out, with intervals, and what it costs."""

import numpy as np
from matplotlib.figure import Figure

from matcaps.experiments.fold_statistics import estimate
from matcaps.experiments.fold_table import MEASURES
from matcaps.experiments.routing_bench import NO_ROUTING
from matcaps.experiments.routing_table import GatheredBench, rows_with_results, table_of
from matcaps.inspect.style import COLOURS, GREY, new_figure

_CONTROLS = ("cnn", "stem")


def draw_routings(gathered: GatheredBench) -> Figure | None:
    """Draw each row's error, log-loss and seconds an epoch; None where no row was run.

    Bars are 95 % intervals over toys and seeds; small dots are toys. Controls without capsules have another colour.
    """
    rows = rows_with_results(gathered)
    if not rows:
        return None
    figure = new_figure(3, width=3.3, height=0.9 + 0.3 * len(rows))
    panels = figure.subplots(1, 3, sharey=True, width_ratios=[1, 1, 0.8])
    places = np.arange(len(rows))
    for axes, measure in zip(panels, MEASURES, strict=False):
        for place, row in zip(places, rows, strict=True):
            own = table_of(gathered, row, measure)
            assert own is not None
            own = own.rows(own.known)
            interval = estimate(own)
            colour = COLOURS[1] if row.contender.name in _CONTROLS else COLOURS[0]
            axes.plot(own.by_object, np.full(len(own.by_object), place), "o", color=GREY, markersize=2, zorder=1)
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2, zorder=2)
            axes.plot(interval.mean, place, "o", color=colour, markersize=6, zorder=3)
            if row.contender.name == NO_ROUTING:
                axes.axvline(interval.mean, color=colour, linestyle=":", linewidth=1, zorder=0)
        axes.set_xlabel(f"{measure.title}, on toys left out")
        axes.set_xlim(left=0)
    seconds = [
        [one["num_train_images"] / one["images_per_second"] for one in row.results if one["images_per_second"]]
        for row in rows
    ]
    for place, values in zip(places, seconds, strict=True):
        panels[2].plot(values, np.full(len(values), place), "D", color=COLOURS[2], markersize=5)
    panels[2].set_xscale("log")
    panels[2].set_xlabel("seconds an epoch")
    for axes in panels:
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(places, [row.contender.title for row in rows], fontsize=8)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure
