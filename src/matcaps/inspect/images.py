"""Images with their predicted classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from matcaps.inspect.style import new_figure


def draw_images(images: NDArray[np.uint8], captions: Sequence[str], *, columns: int = 6) -> Figure:
    """Draw stored images in a grid, each under its caption; of a stereo pair, the left image.

    Args:
        images: ``[N, C, H, W]``, grey levels or colours; C is 1, 2 or 3.
        captions: one for each.
        columns: images in a row.
    """
    rows = -(-len(images) // columns)
    figure = new_figure(columns, rows, width=1.25, height=1.55)
    grid = np.atleast_1d(figure.subplots(rows, columns)).reshape(-1)
    for axes in grid:
        axes.axis("off")
    for axes, image, caption in zip(grid, images, captions, strict=False):
        if len(image) == 3:
            axes.imshow(image.transpose(1, 2, 0))
        else:
            axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=7)
    return figure
