"""Three iterations of EM on votes of two numbers each: two parents, fourteen children."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from matcaps.routing import RoutingIteration, trace_em_routing

from .style import Theme, bare, new

CHILDREN_OF_FIRST = 8
SCHEDULE = (0.2, 0.4, 0.6)


def make_votes() -> torch.Tensor:
    """Votes ``[I = 14, J = 2, P = 2]``: eight children agree about the first parent, and none about the second."""
    generator = torch.Generator().manual_seed(5)
    votes = torch.empty(14, 2, 2).uniform_(-2.0, 2.0, generator=generator)
    close = torch.randn(CHILDREN_OF_FIRST, 2, generator=generator) * 0.18
    votes[:CHILDREN_OF_FIRST, 0] = torch.tensor([0.6, 0.4]) + close
    return votes


def trace(votes: torch.Tensor) -> list[RoutingIteration]:
    """The state after each M-step."""
    children = torch.ones(len(votes))
    beta_use, beta_activation = torch.full((2,), 0.4), torch.full((2,), -4.0)
    return trace_em_routing(votes, children, beta_use, beta_activation, inverse_temperature=SCHEDULE)


def draw(theme: Theme) -> Figure:
    votes = make_votes()
    states = trace(votes)
    figure, panels = new(theme, 2, 3, 4.9)
    for row, colour in enumerate(theme.colours[:2]):
        for column, state in enumerate(states):
            panel = panels[row * 3 + column]
            share = state.assignment[:, row].numpy()
            x, y = votes[:, row].T.numpy()
            panel.scatter(x, y, s=12 + 110 * share, c=colour, alpha=np.clip(0.25 + 0.65 * share, 0, 1), linewidths=0)
            mean, deviation = state.mean[row].numpy(), state.variance[row].sqrt().numpy()
            panel.add_patch(Ellipse(tuple(mean), *(2 * deviation), facecolor=colour, alpha=0.12, edgecolor="none"))
            panel.add_patch(Ellipse(tuple(mean), *(2 * deviation), fill=False, edgecolor=colour, linewidth=1.4))
            panel.plot(*mean, marker="+", color=theme.text, markersize=9, markeredgewidth=1.4)
            panel.set_title(f"iteration {column + 1}: activation {float(state.activation[row]):.2f}")
            bare(panel)
            panel.set_xlim(-2.3, 2.3)
            panel.set_ylim(-2.3, 2.3)
            for spine in panel.spines.values():
                spine.set_visible(True)
        panels[row * 3].set_ylabel(("first parent", "second parent")[row])
    return figure
