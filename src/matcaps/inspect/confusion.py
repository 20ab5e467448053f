"""Confusion matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from matcaps.data.names import short_name
from matcaps.inspect.style import new_figure


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: true classes in rows, predicted ones in columns, shares of the true class as shades.

    Args:
        confusion: ``confusion[true][predicted]``, counts.
        classes: the classes' names.
    """
    counts = np.asarray(confusion, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.45 * len(classes)
    figure = new_figure(width=side + 0.8, height=side)
    axes = figure.subplots()
    picture = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    for row, values in enumerate(counts):
        for column, count in enumerate(values):
            if count:
                dark = shares[row, column] > 0.5
                axes.text(
                    column,
                    row,
                    f"{count:,.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if dark else "black",
                )
    places, names = range(len(classes)), [short_name(name) for name in classes]
    axes.set_xticks(places, names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.colorbar(picture, ax=axes, label="share of the true class, %", shrink=0.8)
    return figure
