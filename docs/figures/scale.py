"""What the scale of votes does to activations, rule by rule."""

import torch
from matplotlib.figure import Figure

from matcaps.routing import em_routing

from .style import Theme, legend, new

RULES = ("paper", "standardised", "relative")


def make_votes() -> torch.Tensor:
    """Votes ``[I = 40, J = 5, P = 16]``; those for the first parent lie closer together than the others."""
    generator = torch.Generator().manual_seed(1)
    votes = torch.randn(40, 5, 16, generator=generator)
    votes[:, 0] *= 0.7
    return votes


def activations(scale: float, rule: str) -> torch.Tensor:
    """Activations ``[J]`` of one iteration on votes that are ``scale`` times as far apart."""
    temperature = {"paper": 0.03, "relative": 0.15, "standardised": 1.0}[rule]
    zeros = torch.zeros(5)
    _, active = em_routing(
        make_votes() * scale,
        torch.ones(40),
        zeros,
        zeros,
        inverse_temperature=[temperature],
        activation_rule=rule,
        variance_floor=1e-12,
    )
    return active


def draw(theme: Theme) -> Figure:
    figure, panels = new(theme, 1, 3, 2.6, sharey=True)
    scales = torch.logspace(-0.7, 0.7, 29, base=2).tolist()
    for panel, rule in zip(panels, RULES, strict=True):
        values = torch.stack([activations(scale, rule) for scale in scales])
        panel.plot(scales, values[:, 1:].mean(dim=1), color=theme.colours[1], label="the four others, mean")
        panel.plot(scales, values[:, 0], color=theme.colours[0], label="parent whose votes agree")
        panel.set_xscale("log", base=2)
        panel.set_xticks([2**-0.5, 1, 2**0.5])
        panel.set_xticklabels(["0.71", "1", "1.41"])
        panel.minorticks_off()
        panel.set_ylim(0, 1.03)
        panel.set_title(f'"{rule}"')
        panel.set_xlabel("scale of all votes")
    panels[0].set_ylabel("activation")
    legend(panels[1], theme, loc="lower left")
    return figure
