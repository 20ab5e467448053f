"""Among whom a child divides itself: all parents that see it, or those of one window at a time."""

import torch
from matplotlib.figure import Figure

from matcaps.routing import RoutingIteration, trace_conv_em_routing

from .style import Theme, bare, new

SIZE, KERNEL, STRIDE, PARENTS = 14, 3, 2, 4
CHILD = (4, 4)
"""Row and column of the child that is shown; four windows cover it."""


def route(competition: str) -> RoutingIteration:
    """Three iterations over one map of children, of one type; the last state."""
    generator = torch.Generator().manual_seed(2)
    poses = torch.randn(1, SIZE, SIZE, 1, 4, 4, generator=generator)
    weight = torch.randn(KERNEL, KERNEL, 1, PARENTS, 4, 4, generator=generator) * 0.5
    zeros = torch.zeros(PARENTS)
    settings = {"stride": STRIDE, "inverse_temperature": [1e-3] * 3, "annealing": 1 / 8}
    ones = torch.ones(1, SIZE, SIZE, 1)
    return trace_conv_em_routing(poses, ones, weight, zeros, zeros, competition=competition, **settings)[-1]


def handed_out(state: RoutingIteration) -> torch.Tensor:
    """What each child gives to all parents together, ``[H, W]``."""
    total = torch.zeros(SIZE, SIZE)
    windows = state.assignment[0].sum(dim=-1).unflatten(-1, (KERNEL, KERNEL))
    for row in range(windows.shape[0]):
        for column in range(windows.shape[1]):
            top, left = row * STRIDE, column * STRIDE
            total[top : top + KERNEL, left : left + KERNEL] += windows[row, column]
    return total


def shares_of(state: RoutingIteration, child: tuple[int, int]) -> torch.Tensor:
    """What one child gives to each parent of each window that covers it, ``[windows, J]``."""
    shares = state.assignment[0].unflatten(2, (KERNEL, KERNEL))
    found = []
    for row in range(shares.shape[0]):
        for column in range(shares.shape[1]):
            place = child[0] - row * STRIDE, child[1] - column * STRIDE
            if all(0 <= one < KERNEL for one in place):
                found.append(shares[row, column, place[0], place[1]])
    return torch.stack(found)


def draw(theme: Theme) -> Figure:
    figure, panels = new(theme, 2, 2, 4.6, gridspec_kw={"width_ratios": [1, 1.7]})
    for row, competition in enumerate(("child", "window")):
        state = route(competition)
        total = handed_out(state)
        heat, bars = panels[2 * row], panels[2 * row + 1]
        image = heat.imshow(total, cmap=theme.heat, vmin=0, vmax=4.6)
        heat.plot(*CHILD[::-1], marker="s", markersize=8, fillstyle="none", color=theme.colours[1], markeredgewidth=1.6)
        bare(heat)
        heat.set_title(f"{competition} competition: handed out")
        bar = figure.colorbar(image, ax=heat, ticks=range(5), shrink=0.8)
        bar.ax.tick_params(colors=theme.text, labelsize=8)
        bar.outline.set_visible(False)  # type: ignore[operator]
        shares = shares_of(state, CHILD)
        for window, one in enumerate(shares):
            places = [window * (PARENTS + 1.5) + parent for parent in range(PARENTS)]
            bars.bar(places, one.tolist(), color=theme.colours[window], width=0.85)
            middle = sum(places) / PARENTS
            bars.text(middle, 0.92, f"Σ {float(one.sum()):.2f}", ha="center", color=theme.text, fontsize=8)
        bars.set_ylim(0, 1)
        bars.set_xticks([window * (PARENTS + 1.5) + 1.5 for window in range(len(shares))])
        bars.set_xticklabels([f"window {window + 1}" for window in range(len(shares))])
        bars.set_title(f"the marked child: Σ of all {float(shares.sum()):.0f}")
        bars.set_ylabel("assignment")
    return figure
