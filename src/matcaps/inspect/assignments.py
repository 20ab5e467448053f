"""Which capsules contribute to a class capsule, layer by layer back to the primary capsules."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display
from matcaps.inspect.inspection import Inspection
from matcaps.inspect.style import COLOURS, HEAT, LAYER_TITLES, new_figure, show_picture, to_picture
from matcaps.layers import ConvCapsules
from matcaps.models import EMCapsNet
from matcaps.models.geometry import Axis
from matcaps.routing import RoutingIteration


@dataclass(frozen=True, eq=False)
class Contributions:
    """The shares that the capsules of each layer have in one class capsule of each image.

    Attributes:
        classes: ``[B]``, int64, the class that is explained.
        shares: by the layer's name, from the last map back to the primary capsules: ``[B, H, W, I]``; they sum to 1
            over an image's capsules in every layer.
        fields: by the layer's name, the receptive fields of the rows and columns of its map.
    """

    classes: Tensor
    shares: "OrderedDict[str, Tensor]"
    fields: "OrderedDict[str, tuple[Axis, Axis]]"


@inspects
def contributions(network: EMCapsNet, images: Tensor, classes: Tensor | None = None) -> Contributions:
    """Divide a class capsule over the capsules below it, and each of these over those below.

    A parent's mean is the weighted mean of its children's votes. A child's weight in it, assignment times
    activation over the parent's mass (last iteration), is its share in the parent. A class has 1 to divide; each
    capsule divides what it got from all its parents in the same way. This tells where the pose came from, not what
    would happen to the activation without a capsule.

    Args:
        network: on any device; the results are on the CPU.
        images: ``[B, C, H, W]``, prepared as the network takes them.
        classes: ``[B]``, int64; None for the most active class of each image.

    Returns:
        The shares. A parent without data (mass 0) passes nothing on; only then is a layer's sum below 1.
    """
    outputs, states = network.layer_outputs(images), network.trace(images)
    if classes is None:
        classes = outputs["class_capsules"].activations.argmax(dim=1)
    last_state = states["class_capsules"][-1]
    below = outputs["conv_capsules2"].activations
    chosen = child_shares(last_state, below.flatten(1))[torch.arange(len(images), device=classes.device), :, classes]
    shares = OrderedDict(conv_capsules2=chosen.unflatten(1, below.shape[1:]))
    for name, child in (("conv_capsules2", "conv_capsules1"), ("conv_capsules1", "primary_capsules")):
        layer = network.get_submodule(name)
        assert isinstance(layer, ConvCapsules)
        shares[child] = _pass_down(layer, states[name][-1], outputs[child].activations, shares[name])
    height, width = images.shape[-2:]
    return Contributions(classes, shares, network.receptive_fields(height, width))


def child_shares(state: RoutingIteration, activations: Tensor) -> Tensor:
    """Each child's share in each parent's mean, ``[..., I, J]``: sums to 1 over children, or to 0 without data.

    Args:
        state: after an M-step.
        activations: ``[..., I]``, the children's.
    """
    data = state.assignment * activations.unsqueeze(-1)
    mass = data.sum(dim=-2, keepdim=True)
    return torch.where(mass > 0, data / torch.where(mass > 0, mass, 1), 0)


def _pass_down(layer: ConvCapsules, state: RoutingIteration, activations: Tensor, parents: Tensor) -> Tensor:
    """Divide the shares of parents ``[B, H', W', J]`` over the children ``[B, H, W, I]`` of all their windows."""
    kernel_size, stride = layer.weight.shape[0], layer.stride
    windows_BHWIKK = activations.unfold(1, kernel_size, stride).unfold(2, kernel_size, stride)
    windows_BHWKKI = windows_BHWIKK.movedim((-2, -1), (3, 4))
    shares = child_shares(state, windows_BHWKKI.flatten(3)) @ parents.unsqueeze(-1)
    shares_BHWKKI = shares.squeeze(-1).unflatten(3, windows_BHWKKI.shape[3:])
    children = torch.zeros_like(activations)
    rows, columns = stride * (parents.shape[1] - 1) + 1, stride * (parents.shape[2] - 1) + 1
    for row in range(kernel_size):
        for column in range(kernel_size):
            place = children[:, row : row + rows : stride, column : column + columns : stride]
            place += shares_BHWKKI[:, :, :, row, column]
    return children


@dataclass(frozen=True, eq=False)
class AssignmentsDisplay(Display):
    """The contributions to an image's class capsule; ``image`` ``[C, H, W]`` is the network's input."""

    numbers: Contributions
    image: Tensor
    title: str
    caption: ClassVar[str] = (
        "What the winning class is made from: the shares of positions and of child types, layer by layer, back"
        " to the primary capsules."
    )

    @classmethod
    def from_inspection(cls, inspection: Inspection) -> "AssignmentsDisplay":
        """Divide the most active class over the capsules of the inspected image."""
        shares = contributions(inspection.network, inspection.image)
        return cls(
            shares,
            inspection.image[0],
            f"{inspection.title}\nwhat the class capsule {inspection.classes[int(shares.classes[0])]} is made from "
            "(orange frame: the receptive field of the position with the largest share)",
        )

    def plot(self) -> Figure:
        """Draw the shares of each layer's positions over the image, and of each child type as bars."""
        parts, image, title = self.numbers, self.image, self.title
        names = list(parts.shares)
        figure = new_figure(len(names) + 1, 2, width=2.6, height=2.5)
        panels = figure.subplots(2, len(names) + 1, height_ratios=[1.25, 1])
        picture = to_picture(image)
        show_picture(panels[0][0], picture)
        panels[0][0].set_title("the network's input", fontsize=9)
        panels[1][0].axis("off")
        for column, name in enumerate(names, start=1):
            shares = 100 * parts.shares[name][0]
            rows, columns = parts.fields[name]
            axes = panels[0][column]
            show_picture(axes, picture)
            values = shares.sum(-1).numpy()
            heat = axes.imshow(
                values, cmap=HEAT, vmin=0, alpha=0.65, extent=_extent(rows, columns), interpolation="nearest"
            )
            _outline_field(axes, values, rows, columns)
            axes.set_xlim(-0.5, picture.shape[1] - 0.5)
            axes.set_ylim(picture.shape[0] - 0.5, -0.5)
            axes.set_title(f"{LAYER_TITLES[name]}\n{values.shape[0]}×{values.shape[1]} positions", fontsize=9)
            bar = figure.colorbar(heat, ax=axes, shrink=0.8)
            bar.ax.tick_params(labelsize=7)
            bar.set_label("share of a position, %", fontsize=7)
            _bars(panels[1][column], shares.sum((0, 1)).numpy())
        panels[1][1].set_ylabel("share of a type, %", fontsize=8)
        figure.suptitle(title, fontsize=10)
        return figure


def _extent(rows: Axis, columns: Axis) -> tuple[float, float, float, float]:
    """Where the cells of a map lie in the image: each about the centre of its receptive field, as wide as a step."""
    left, top = columns.first - columns.step / 2, rows.first - rows.step / 2
    return left, left + columns.size * columns.step, top + rows.size * rows.step, top


def _outline_field(axes: Axes, values: np.ndarray, rows: Axis, columns: Axis) -> None:
    """Draw the whole receptive field of the position with the largest share: it is larger than its cell."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    x, y = float(columns.centres()[column]), float(rows.centres()[row])
    axes.add_patch(
        Rectangle(
            (x - columns.extent / 2, y - rows.extent / 2), columns.extent, rows.extent,
            fill=False, edgecolor=COLOURS[1], linewidth=1.5,
        )
    )  # fmt: skip


def _bars(axes: Axes, values: np.ndarray) -> None:
    axes.bar(range(len(values)), values, color=COLOURS[0])
    axes.axhline(100 / len(values), color="black", linewidth=1, linestyle=":")  # equal shares
    axes.set_xticks(range(0, len(values), max(1, len(values) // 8)))
    axes.set_xlabel("child type", fontsize=8)
    axes.tick_params(labelsize=7)
