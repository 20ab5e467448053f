"""A figure of paired dots: the errors of recipes on objects that they never trained on."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from matcaps.data.names import short_name
from matcaps.experiments.fold_records import FoldRecipe
from matcaps.experiments.fold_table import MEASURES, object_names, tabulate
from matcaps.inspect.style import COLOURS, MARKERS, new_figure

_MOST_OBJECTS = 60
_SCALES = {
    "error_percent": (1.0, (0, 1, 2, 5, 10, 20, 50, 100)),
    "log_loss": (0.02, (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)),
}
"""For each measure, where its logarithmic part begins, and the ticks."""


def draw_folds(recipes: Sequence[FoldRecipe]) -> Figure | None:
    """Draw each object's error and log-loss by each recipe, the objects in order of the first one's error.

    Args:
        recipes: see :func:`matcaps.experiments.gather_folds`; without any, the result is None.

    Of more than 60 objects, only those hardest for the first recipe are shown.
    """
    objects = object_names(recipes)
    if not objects:
        return None
    tables = [[tabulate(recipe, objects, measure) for recipe in recipes] for measure in MEASURES]
    means = np.array([[_means(table.values) for table in own] for own in tables])  # measures, recipes, objects
    hardest = np.where(np.isnan(means[0, 0]), np.nanmax(means[0], axis=0), means[0, 0])
    order = np.argsort(-hardest, kind="stable")[:_MOST_OBJECTS]
    figure = new_figure(2, width=4.2, height=1.4 + 0.19 * len(order))
    panels = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(order))
    for axes, measure, own, values in zip(panels, MEASURES, tables, means[:, :, order], strict=True):
        known_places = ~np.isnan(values).all(axis=0)
        if known_places.any():
            known = values[:, known_places]
            axes.hlines(
                places[known_places],
                np.nanmin(known, axis=0),
                np.nanmax(known, axis=0),
                color="0.75",
                linewidth=1,
                zorder=1,
            )
        else:
            axes.text(0.5, 0.5, "not known", ha="center", va="center", transform=axes.transAxes)
        for index, (recipe, table, row) in enumerate(zip(recipes, own, values, strict=True)):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            if table.values.shape[1] > 1:
                for seed in table.values[order].T:
                    axes.plot(seed, places, marker, color=colour, markersize=2, alpha=0.5, zorder=2)
            label = short_name(recipe.name, 40)
            axes.plot(row, places, marker, color=colour, markersize=5, zorder=3, label=f"{label}, mean {_mean(row)}")
        linear, ticks = _SCALES[measure.attribute]
        axes.set_xscale("symlog", linthresh=linear, linscale=0.5)
        axes.set_xlim(-0.1 * linear, 1.3 * max(2 * linear, float(np.nanmax(values, initial=0.0))))
        shown = [tick for tick in ticks if tick < axes.get_xlim()[1]]
        axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(f"{measure.title}; logarithmic from {linear:g} on")
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    panels[0].set_yticks(places, [short_name(objects[place], 24) for place in order], fontsize=7)
    panels[0].set_ylim(len(order) - 0.5, -0.5)
    return figure


def _means(values: np.ndarray) -> np.ndarray:
    """The mean of each row over its known values; NaN where none is known."""
    known = ~np.isnan(values)
    return np.where(known.any(axis=1), np.nansum(values, axis=1) / np.maximum(1, known.sum(axis=1)), np.nan)


def _mean(values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "not known"
    # a mean over fewer objects must not be compared with the others
    some = "" if len(known) == len(values) else f" of {len(known)} of {len(values)}"
    return f"{known.mean():.3g}{some}"
