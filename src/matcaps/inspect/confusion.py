"""What was taken for what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure

from matcaps.data.names import short_name
from matcaps.inspect.display import Display
from matcaps.inspect.style import new_figure


@dataclass(frozen=True)
class ConfusionDisplay(Display):
    """A confusion matrix, ``numbers[true][predicted]``: counts."""

    numbers: Sequence[Sequence[int]]
    classes: Sequence[str]
    caption: ClassVar[str] = (
        "Each row holds the test images of one true class, by the class that the network took them for; what lies off "
        "the diagonal is wrong."
    )

    @property
    def sentences(self) -> dict[str, str]:
        """Each row in words, and which class has the fewest right."""
        rows, hits = [], []
        for place, (name, counts) in enumerate(zip(self.classes, self.numbers, strict=True)):
            taken = zip(counts, self.classes, strict=True)
            wrong = [f"{count} as {other}" for column, (count, other) in enumerate(taken) if count and column != place]
            rows.append(", ".join([f"{name}: {counts[place]} right", *wrong]))
            hits.append(counts[place] / max(1, sum(counts)))
        worst = hits.index(min(hits))
        right, images = self.numbers[worst][worst], sum(self.numbers[worst])
        fewest = f"{right:,} of {images:,} images of {self.classes[worst]} are right, the fewest"
        return {"rows": "; ".join(rows), "fewest": fewest}

    def plot(self) -> Figure:
        """True classes in rows, predicted ones in columns, shares of the true class as shades."""
        counts = np.asarray(self.numbers, dtype=float)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        side = 1.6 + 0.45 * len(self.classes)
        figure = new_figure(width=side + 0.8, height=side)
        axes = figure.subplots()
        picture = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count:,.0f}", ha="center", va="center", fontsize=7, color=colour)
        places, names = range(len(self.classes)), [short_name(name) for name in self.classes]
        axes.set_xticks(places, names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(places, names, fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        figure.colorbar(picture, ax=axes, label="share of the true class, %", shrink=0.8)
        return figure
