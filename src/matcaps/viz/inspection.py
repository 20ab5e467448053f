"""What a network found in one image, drawn from the results of :mod:`matcaps.inspection`."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from torch import Tensor

from matcaps._numbers import short_number
from matcaps.data.names import short_name
from matcaps.inspection import Contributions, EMSteps, PoseTraversal, VoteHistogram
from matcaps.models.geometry import Axis
from matcaps.viz.style import COLOURS, new_figure

LAYER_TITLES = {
    "primary_capsules": "primary capsules",
    "conv_capsules1": "conv capsules 1",
    "conv_capsules2": "conv capsules 2",
    "class_capsules": "class capsules",
}
_HEAT = "viridis"  # its lightness rises evenly, so that it reads without colour too
_TRUE, _OTHER = COLOURS[0], "#8c8c8c"


def draw_votes(found: VoteHistogram, classes: Sequence[str], chosen: int, title: str) -> Figure:
    """Histograms of vote distances: iterations downwards, classes across, each class with its own distances.

    Args:
        found: the numbers.
        classes: the classes' names.
        chosen: the class to colour.
        title: of the figure.
    """
    iterations, num_classes = found.mean_distance.shape
    figure = new_figure(num_classes, iterations, width=max(1.15, 8.5 / num_classes), height=1.55)
    panels = figure.subplots(iterations, num_classes, sharex="col", sharey=True, squeeze=False)
    for row in range(iterations):
        for column in range(num_classes):
            axes = panels[row][column]
            colour = _TRUE if column == chosen else _OTHER
            edges = found.edges[column].numpy()
            axes.stairs(found.counts[row, column].numpy(), edges, fill=True, color=colour)
            mean = float(found.mean_distance[row, column])
            total = float(found.counts[row, column].sum() + found.beyond[row, column])
            axes.axvline(mean, ymax=0.66, color="black", linewidth=1, linestyle="--")  # below the figures
            activation = float(found.activations[row, column])
            axes.text(
                0.97, 0.95, f"mean {short_number(mean)}\nsum {short_number(total)}\na = {activation:.2g}",
                transform=axes.transAxes, ha="right", va="top", fontsize=7,
            )  # fmt: skip
            axes.tick_params(labelsize=7)
            axes.set_xlim(0, edges[-1])
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            if row == 0:
                weight = "bold" if column == chosen else "normal"
                axes.set_title(
                    short_name(classes[column], 16),
                    fontsize=9,
                    color=colour if column == chosen else "black",
                    weight=weight,
                )
        panels[row][0].set_ylabel(f"iteration {row + 1}", fontsize=8)
    # room for the figures above the bars
    panels[0][0].set_ylim(0, 1.3 * float(found.counts.max()))
    figure.suptitle(title, fontsize=10)
    figure.supxlabel("distance of a vote to the class capsule's mean, in pose units", fontsize=9)
    figure.supylabel("votes, each weighted by its assignment", fontsize=9)
    return figure


def draw_assignments(found: Contributions, image: Tensor, title: str, index: int = 0) -> Figure:
    """Shares of each layer's positions over the image, and of each child type as bars.

    Args:
        found: the numbers.
        image: ``[C, H, W]``, what the network saw.
        title: of the figure.
        index: which of the images in ``found`` it is.
    """
    names = list(found.shares)
    figure = new_figure(len(names) + 1, 2, width=2.6, height=2.5)
    panels = figure.subplots(2, len(names) + 1, height_ratios=[1.25, 1])
    picture = to_picture(image)
    _show(panels[0][0], picture)
    panels[0][0].set_title("what the network saw", fontsize=9)
    panels[1][0].axis("off")
    for column, name in enumerate(names, start=1):
        shares = 100 * found.shares[name][index]
        rows, columns = found.fields[name]
        axes = panels[0][column]
        _show(axes, picture)
        values = shares.sum(-1).numpy()
        heat = axes.imshow(
            values, cmap=_HEAT, vmin=0, alpha=0.65, extent=_extent(rows, columns), interpolation="nearest"
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
    """The whole receptive field of the position with the largest share: it sees more than its own cell."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    x, y = float(columns.centres()[column]), float(rows.centres()[row])
    axes.add_patch(
        Rectangle(
            (x - columns.extent / 2, y - rows.extent / 2), columns.extent, rows.extent,
            fill=False, edgecolor=COLOURS[1], linewidth=1.5,
        )
    )  # fmt: skip


def _bars(axes: Axes, values: np.ndarray) -> None:
    axes.bar(range(len(values)), values, color=_TRUE)
    axes.axhline(100 / len(values), color="black", linewidth=1, linestyle=":")  # equal shares
    axes.set_xticks(range(0, len(values), max(1, len(values) // 8)))
    axes.set_xlabel("child type", fontsize=8)
    axes.tick_params(labelsize=7)


def draw_activations(maps: Mapping[str, Tensor], classes: Sequence[str], title: str, index: int = 0) -> Figure:
    """Activation maps: a band a layer, in it a row an iteration and a tile a capsule type.

    Args:
        maps: from :func:`matcaps.inspection.activation_maps`.
        classes: the classes' names.
        title: of the figure.
        index: which image.
    """
    names = [name for name in maps if name != "class_capsules"]
    mosaics = [_mosaic(maps[name][index]) for name in names]
    heights = [0.35 + 10.0 * mosaic.shape[0] / mosaic.shape[1] for mosaic in mosaics]
    table = maps["class_capsules"][index, :, 0, 0]
    heights.append(0.45 + 0.3 * len(table))
    figure = new_figure(width=11.0, height=sum(heights) + 1.0)
    panels = figure.subplots(len(heights), 1, height_ratios=heights)
    for axes, name, mosaic in zip(panels, names, mosaics, strict=False):
        iterations, height, width, types = maps[name].shape[1:]
        axes.imshow(mosaic, cmap=_HEAT, vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([(width + 1) * kind + (width - 1) / 2 for kind in range(types)], range(types), fontsize=7)
        axes.set_yticks(
            [(height + 1) * row + (height - 1) / 2 for row in range(iterations)],
            [f"iteration {row + 1}" if name != "primary_capsules" else "not routed" for row in range(iterations)],
            fontsize=7,
        )
        axes.set_title(f"{LAYER_TITLES[name]}: a tile a type, {height}×{width} positions each", fontsize=9, loc="left")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    _class_table(panels[-1], table, classes)
    scale = ScalarMappable(Normalize(0, 1), _HEAT)
    bar = figure.colorbar(scale, ax=panels, shrink=0.5, aspect=30, pad=0.01)
    bar.set_label("activation", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    return figure


def _mosaic(maps: Tensor) -> np.ndarray:
    """Maps ``[T, H, W, I]`` beside each other, types across and iterations downwards, with a gap of one cell."""
    padded = torch.nn.functional.pad(maps.permute(0, 3, 1, 2), (0, 1, 0, 1), value=float("nan"))
    iterations, types, height, width = padded.shape
    return padded.permute(0, 2, 1, 3).reshape(iterations * height, types * width)[:-1, :-1].numpy()


def _class_table(axes: Axes, table: Tensor, classes: Sequence[str]) -> None:
    axes.imshow(table.numpy(), cmap=_HEAT, vmin=0, vmax=1, aspect="auto")
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


def draw_em_steps(found: Sequence[EMSteps], names: Sequence[str], title: str) -> Figure:
    """Votes and Gaussians in a plane: a row a parent, a column an iteration.

    Args:
        found: one for each parent to show.
        names: what to call the parents.
        title: of the figure.
    """
    iterations = len(found[0].activations)
    figure = new_figure(iterations, len(found), width=3.1, height=2.9)
    panels = figure.subplots(len(found), iterations, squeeze=False)
    largest = max(float(one.assignment.max()) for one in found)
    for row, (one, name) in enumerate(zip(found, names, strict=True)):
        reach = _reach(one)
        for column in range(iterations):
            axes = panels[row][column]
            order = one.assignment[column].argsort()
            axes.scatter(
                *one.points[order].T.numpy(),
                s=2 + 16 * one.child_activations[order].numpy(),
                c=one.assignment[column][order].numpy(),
                cmap=_HEAT,
                vmin=0,
                vmax=largest,
                alpha=0.75,
                linewidths=0,
            )
            _ellipses(axes, one, column)
            axes.set_xlim(-reach, reach)
            axes.set_ylim(-reach, reach)
            axes.set_aspect("equal")
            axes.locator_params(nbins=5)
            axes.tick_params(labelsize=7)
            mass, activation = float(one.masses[column]), float(one.activations[column])
            axes.set_title(
                f"{short_name(name)}, iteration {column + 1}\nmass {mass:.3g}, a = {activation:.2g}", fontsize=8
            )
        first, second = (100 * float(value) for value in one.explained)
        panels[row][0].set_ylabel(f"second axis, pose units ({second:.0f} % of variance)", fontsize=7)
        for axes in panels[row]:
            axes.set_xlabel(f"first axis, pose units ({first:.0f} %)", fontsize=7)
    scale = ScalarMappable(Normalize(0, largest), _HEAT)
    bar = figure.colorbar(scale, ax=panels, shrink=0.7, aspect=30, pad=0.01)
    bar.set_label("assignment of the child to this parent", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(
        f"{title}\ndots: votes, larger where the child is more active; ellipses: 1σ and 2σ of the parent's Gaussian",
        fontsize=9,
    )
    return figure


def _reach(one: EMSteps) -> float:
    """Half the side of a panel that shows all but the farthest votes, and every Gaussian's 2σ."""
    votes = float(one.points.abs().amax(1).quantile(0.97))
    ends = one.means.abs().amax(1) + 2 * one.covariances.diagonal(dim1=1, dim2=2).amax(1).sqrt()
    return 1.05 * max(votes, float(ends.max()), 1e-6)


def _ellipses(axes: Axes, one: EMSteps, iteration: int) -> None:
    mean = one.means[iteration].tolist()
    values, vectors = torch.linalg.eigh(one.covariances[iteration])
    height, width = (2 * values.clamp_min(0).sqrt()).tolist()
    angle = float(torch.rad2deg(torch.atan2(vectors[1, 1], vectors[0, 1])))
    for deviations, style in ((1, "-"), (2, "--")):
        axes.add_patch(
            Ellipse(
                (mean[0], mean[1]), deviations * width, deviations * height, angle=angle,
                fill=False, edgecolor=COLOURS[1], linewidth=1.6, linestyle=style,
            )
        )  # fmt: skip
    axes.plot(*mean, "+", color=COLOURS[1], markersize=9, markeredgewidth=1.8)


def draw_poses(found: PoseTraversal, title: str) -> Figure:
    """The reconstruction as each component of the pose goes through its range: eight components in each half.

    Args:
        found: the numbers.
        title: of the figure.
    """
    components, steps = found.values.shape
    side = found.image.shape[-1]
    figure = new_figure(width=11.5, height=9.6)
    # a row for the image and its reconstruction above eight rows of two components each
    grid = figure.add_gridspec(9, 12, height_ratios=[1.35] + [1] * 8)
    for column, (picture, name) in enumerate(((found.image, "input"), (found.reconstruction, "reconstruction"))):
        axes = figure.add_subplot(grid[0, 4 + 2 * column : 6 + 2 * column])
        _show(axes, to_picture(picture, reference=found.image))
        axes.set_title(name, fontsize=8)
    for component in range(components):
        row, half = component % 8 + 1, component // 8
        axes = figure.add_subplot(grid[row, 6 * half : 6 * half + 6])
        frames = [to_picture(frame, reference=found.image) for frame in found.reconstructions[component]]
        axes.imshow(np.concatenate(frames, axis=1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        low, high = float(found.values[component, 0]), float(found.values[component, -1])
        centre = (side - 1) / 2
        axes.set_xticks([centre, (steps - 1) * side + centre], [f"{low:.2f}", f"{high:.2f}"], fontsize=7)
        axes.set_yticks([])
        axes.tick_params(length=2, pad=1)
        axes.set_ylabel(
            f"row {component // 4 + 1}, col {component % 4 + 1}\nΔ {float(found.effect[component]):.2f}",
            fontsize=7, rotation=0, ha="right", va="center",
        )  # fmt: skip
        for step in range(1, steps):
            axes.axvline(step * side - 0.5, color=_OTHER, linewidth=0.8)
        place = (float(found.pose[component]) - low) / max(high - low, 1e-12)
        if -0.02 <= place <= 1.02:  # where the image's own value lies
            axes.plot(centre + place * (steps - 1) * side, -0.5, "v", color=COLOURS[1], markersize=5, clip_on=False)
    figure.suptitle(title, fontsize=10)
    return figure


def to_picture(image: Tensor, reference: Tensor | None = None) -> np.ndarray:
    """A network's input as a picture in [0, 1]: ``[H, W]``, of a stereo pair the first, or ``[H, W, 3]`` of colour.

    Args:
        image: ``[C, H, W]``.
        reference: whose darkest and lightest pixel are black and white; None: the image's own.
    """
    shown = image if image.shape[0] == 3 else image[:1]
    measure = shown if reference is None else (reference if reference.shape[0] == 3 else reference[:1])
    low, high = float(measure.min()), float(measure.max())
    picture = ((shown - low) / max(high - low, 1e-12)).clamp(0, 1).movedim(0, -1).numpy()
    return picture if picture.shape[-1] == 3 else picture[..., 0]


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
