"""Which capsules are active at which positions, iteration by iteration."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from matcaps.data.names import short_name
from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display
from matcaps.inspect.inspection import Inspection
from matcaps.inspect.style import HEAT, LAYER_TITLES, new_figure
from matcaps.models import EMCapsNet


@inspects
def activation_maps(network: EMCapsNet, images: Tensor) -> "OrderedDict[str, Tensor]":
    """Return the activations of every layer after every iteration, by the layer's name.

    Args:
        network: on any device; the results are on the CPU.
        images: ``[B, C, H, W]``, prepared as the network takes them.

    Returns:
        ``[B, T, H, W, I]``: T is 1 for the primary capsules, which are not routed; H and W are 1 for the classes.
    """
    primary = network.layer_outputs(images)["primary_capsules"].activations
    maps = OrderedDict(primary_capsules=primary.unsqueeze(1))
    for name, states in network.trace(images).items():
        values = torch.stack([state.activation for state in states], 1)
        maps[name] = values if values.ndim == 5 else values[:, :, None, None]
    return maps


@dataclass(frozen=True, eq=False)
class ActivationsDisplay(Display):
    """Activation maps of one image, from :func:`activation_maps`."""

    numbers: Mapping[str, Tensor]
    classes: Sequence[str]
    title: str
    caption: ClassVar[str] = "Every capsule's activation: one tile for each type, one row for each iteration."

    @classmethod
    def from_inspection(cls, inspection: Inspection) -> "ActivationsDisplay":
        """Compute the maps of the inspected image."""
        return cls(activation_maps(inspection.network, inspection.image), inspection.classes, inspection.title)

    def plot(self) -> Figure:
        """Draw a band for each layer, and in it a row for each iteration and a tile for each capsule type."""
        maps, classes = self.numbers, self.classes
        names = [name for name in maps if name != "class_capsules"]
        mosaics = [_mosaic(maps[name][0]) for name in names]
        heights = [0.35 + 10.0 * mosaic.shape[0] / mosaic.shape[1] for mosaic in mosaics]
        table = maps["class_capsules"][0, :, 0, 0]
        heights.append(0.45 + 0.3 * len(table))
        figure = new_figure(width=11.0, height=sum(heights) + 1.0)
        panels = figure.subplots(len(heights), 1, height_ratios=heights)
        for axes, name, mosaic in zip(panels, names, mosaics, strict=False):
            iterations, height, width, types = maps[name].shape[1:]
            axes.imshow(mosaic, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([(width + 1) * kind + (width - 1) / 2 for kind in range(types)], range(types), fontsize=7)
            axes.set_yticks(
                [(height + 1) * row + (height - 1) / 2 for row in range(iterations)],
                [f"iteration {row + 1}" if name != "primary_capsules" else "not routed" for row in range(iterations)],
                fontsize=7,
            )
            axes.set_title(
                f"{LAYER_TITLES[name]}: one tile per type, {height}×{width} positions each", fontsize=9, loc="left"
            )
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
        _class_table(panels[-1], table, classes)
        scale = ScalarMappable(Normalize(0, 1), HEAT)
        bar = figure.colorbar(scale, ax=panels, shrink=0.5, aspect=30, pad=0.01)
        bar.set_label("activation", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        figure.suptitle(self.title, fontsize=10)
        return figure


def _mosaic(maps: Tensor) -> np.ndarray:
    """Maps ``[T, H, W, I]`` beside each other, types across and iterations downwards, with a gap of one cell."""
    padded = torch.nn.functional.pad(maps.permute(0, 3, 1, 2), (0, 1, 0, 1), value=float("nan"))
    iterations, types, height, width = padded.shape
    return padded.permute(0, 2, 1, 3).reshape(iterations * height, types * width)[:-1, :-1].numpy()


def _class_table(axes: Axes, table: Tensor, classes: Sequence[str]) -> None:
    axes.imshow(table.numpy(), cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            value = float(table[row, column])
            axes.text(
                column, row, f"{value:.2g}", ha="center", va="center", fontsize=7,
                color="white" if value < 0.6 else "black",
            )  # fmt: skip
    axes.set_xticks(range(len(classes)), [short_name(name, 16) for name in classes], fontsize=7)
    axes.set_yticks(range(len(table)), [f"iteration {row + 1}" for row in range(len(table))], fontsize=7)
    axes.set_title(LAYER_TITLES["class_capsules"], fontsize=9, loc="left")
    axes.tick_params(length=0)
