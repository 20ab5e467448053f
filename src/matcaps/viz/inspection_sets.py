"""What holds over a set of images: health of the capsule types, what poses know of the viewpoint."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matcaps.inspection import LayerHealth, PoseResponse, ViewpointProbe
from matcaps.inspection.activations import DEAD_BELOW, SATURATED_ABOVE
from matcaps.viz.inspection import LAYER_TITLES
from matcaps.viz.style import COLOURS, new_figure


def draw_health(found: Mapping[str, LayerHealth], title: str) -> Figure:
    """Range and mean of each capsule type's activation; dead and saturated types marked.

    Args:
        found: by the layer's name.
        title: of the figure.
    """
    names = list(found)
    widths = [max(9, len(found[name].mean)) for name in names]
    figure = new_figure(width=3.2 + 0.14 * sum(widths), height=3.4)
    panels = figure.subplots(1, len(names), sharey=True, width_ratios=widths, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        health = found[name]
        types = np.arange(len(health.mean))
        colours = np.array([COLOURS[0]] * len(types), dtype=object)
        colours[health.dead] = COLOURS[1]
        colours[health.saturated] = COLOURS[4]
        axes.axhspan(0, DEAD_BELOW, color=COLOURS[1], alpha=0.25, linewidth=0)
        axes.axhspan(SATURATED_ABOVE, 1, color=COLOURS[4], alpha=0.35, linewidth=0)
        axes.vlines(types, health.minimum.numpy(), health.maximum.numpy(), colors=list(colours), linewidth=2)
        axes.scatter(types, health.mean.numpy(), c=list(colours), s=16, zorder=3)
        axes.set_xticks(types[:: max(1, len(types) // 8)])
        axes.set_xlim(-0.8, len(types) - 0.2)
        axes.set_xlabel("class" if name == "class_capsules" else "type", fontsize=8)
        axes.set_title(
            f"{LAYER_TITLES[name]}\n{len(health.dead)} dead, {len(health.saturated)} saturated types\n"
            f"{100 * health.layer_low:.0f} % below {DEAD_BELOW:g}, "
            f"{100 * health.layer_high:.0f} % above {SATURATED_ABOVE:g}",
            fontsize=7,
        )
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylim(-0.02, 1.02)
    panels[0].set_ylabel("activation: least, mean, most")
    figure.suptitle(f"{title}, {next(iter(found.values())).num_images} images", fontsize=9)
    return figure


def draw_viewpoint_probe(found: ViewpointProbe, title: str) -> Figure:
    """R² of each target for each kind of features, on objects held out.

    Args:
        found: the numbers.
        title: of the figure.
    """
    figure = new_figure(width=7.5, height=3.6)
    axes = figure.subplots()
    places = np.arange(len(found.targets))
    width = 0.8 / len(found.features)
    values = found.r_squared.numpy()
    lowest = -0.25
    for row, name in enumerate(found.features):
        left = places + (row - (len(found.features) - 1) / 2) * width
        bars = axes.bar(left, np.maximum(values[row], lowest), 0.92 * width, color=COLOURS[row], label=name)
        for bar, value in zip(bars, values[row], strict=True):
            axes.text(
                bar.get_x() + bar.get_width() / 2, max(value, 0) + 0.015, f"{value:.2f}",
                ha="center", va="bottom", fontsize=7,
            )  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(places, found.targets)
    axes.set_ylim(min(0.0, max(lowest, float(values.min()) - 0.05)), 1.05)
    axes.set_ylabel("R² on held-out objects")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, loc="upper right", ncols=2)
    fitted, judged = (", ".join(map(str, which)) for which in (found.fit_instances, found.test_instances))
    figure.suptitle(
        f"{title}; fitted on objects {fitted} ({found.num_fit} images), judged on {judged} ({found.num_test})",
        fontsize=9,
    )
    return figure


def draw_pose_response(found: PoseResponse, title: str) -> Figure:
    """How the pose's components move with known shifts and rotations: a panel a distortion.

    Args:
        found: the numbers.
        title: of the figure.
    """
    figure = new_figure(len(found.amounts), width=3.6, height=4.2)
    panels = figure.subplots(1, len(found.amounts), sharey=True)
    largest = max(float(change.abs().max()) for change in found.change.values())
    heat = None
    for axes, (name, amounts) in zip(panels, found.amounts.items(), strict=True):
        heat = axes.imshow(
            found.change[name].T.numpy(),
            cmap="PuOr",
            vmin=-largest,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_xticks(range(len(amounts)), [f"{amount:g}" for amount in amounts], fontsize=7)
        axes.set_xlabel(name, fontsize=8)
        axes.set_title(f"R² of the amount from the pose: {found.r_squared[name]:.2f}", fontsize=8)
    _component_ticks(panels[0])
    bar = figure.colorbar(heat, ax=panels, shrink=0.8)  # type: ignore[arg-type]
    bar.set_label("mean change, standard deviations of the component", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=9)
    return figure


def _component_ticks(axes: Axes) -> None:
    axes.set_yticks(range(16), [f"{place // 4 + 1}, {place % 4 + 1}" for place in range(16)], fontsize=7)
    axes.set_ylabel("component of the pose: row, column", fontsize=8)
