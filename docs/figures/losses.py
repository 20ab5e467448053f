"""The spread loss of one wrong class, its slope, and the margin over a training."""

import torch
from matplotlib.figure import Figure

from matcaps.losses import authors_margin, spread_loss, tutorial_margin

from .style import Theme, legend, new

MARGINS = (0.2, 0.5, 0.9)


def loss_and_slope(lead: torch.Tensor, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and its derivative by the true class's activation, where that leads the other one by ``lead``."""
    true = (0.5 + lead / 2).requires_grad_()
    wrong = (0.5 - lead / 2).detach()
    pairs = torch.stack([true, wrong], dim=1)
    loss = torch.stack([spread_loss(pair[None], torch.tensor([0]), margin) for pair in pairs])
    (slope,) = torch.autograd.grad(loss.sum(), true)
    return loss.detach(), slope


def draw(theme: Theme) -> Figure:
    figure, (value, slope_panel, schedule) = new(theme, 1, 3, 2.7)
    lead = torch.linspace(-1, 1, 101)
    for margin, colour in zip(MARGINS, theme.colours, strict=False):
        loss, slope = loss_and_slope(lead, margin)
        value.plot(lead, loss, color=colour, label=f"margin {margin}")
        slope_panel.plot(lead, slope, color=colour)
    value.set_title("loss")
    slope_panel.set_title("slope")
    for panel in (value, slope_panel):
        panel.set_xlabel("lead of the true class")
    legend(value, theme)
    epochs = torch.linspace(0, 10, 201)
    schedule.plot(epochs, [tutorial_margin(int(100 * epoch), 100) for epoch in epochs], color=theme.colours[0])
    schedule.plot(epochs, [authors_margin(int(100 * epoch), 25) for epoch in epochs], color=theme.colours[1])
    schedule.text(5.2, 0.44, "tutorial's", color=theme.colours[0], fontsize=8)
    schedule.text(2.6, 0.9, "authors', scaled", color=theme.colours[1], fontsize=8)
    schedule.set_ylim(0, 1.05)
    schedule.set_title("margin")
    schedule.set_xlabel("epoch of 10")
    return figure
