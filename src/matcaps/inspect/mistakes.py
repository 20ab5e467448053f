"""Images that were taken for another class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from matcaps.data.names import short_name
from matcaps.inspect.display import Display
from matcaps.inspect.style import new_figure

_COLUMNS = 4


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class.

    Attributes:
        index: its place in the published part.
        label: the true class's name.
        predicted: the name of the class that it was taken for.
        lead: by how much that class's score exceeds the true one's.
    """

    index: int
    label: str
    predicted: str
    lead: float


@dataclass(frozen=True, eq=False)
class ShownMistake:
    """A mistake and its picture.

    Attributes:
        mistake: which image was taken for what.
        image: ``[C, H, W]``, uint8, as stored: grey levels or colours, C is 1, 2 or 3.
    """

    mistake: Mistake
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MistakesDisplay(Display):
    """Stored images, each with what it is and what it was taken for."""

    numbers: Sequence[ShownMistake]
    caption: ClassVar[str] = (
        "The test images that are wrong by most: above each its true class and the one that it was taken for."
    )

    @property
    def sentences(self) -> dict[str, str]:
        mistakes = [shown.mistake for shown in self.numbers]
        said = [f"{one.label} taken for {one.predicted} (number {one.index})" for one in mistakes]
        return {"mistakes": "; ".join(said)}

    def plot(self) -> Figure:
        """A grid; of a stereo pair the left image."""
        rows = -(-len(self.numbers) // _COLUMNS)
        figure = new_figure(_COLUMNS, rows, width=1.25, height=1.55)
        grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, shown in zip(grid, self.numbers, strict=False):
            image, mistake = shown.image, shown.mistake
            if len(image) == 3:
                axes.imshow(image.transpose(1, 2, 0))
            else:
                axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"{short_name(mistake.label, 20)}\n→ {short_name(mistake.predicted, 20)}", fontsize=7)
        return figure
