"""The figures of the site, drawn from what matcaps computes: one function a figure, light and dark.

They are drawn when the site is built; ``python -m docs.figures`` writes the README's, which stands in the repository.
"""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from . import annealing, competition, iterations, losses, roofline, scale, votes
from .style import DARK, LIGHT, Theme, save

FIGURES: dict[str, Callable[[Theme], Figure]] = {
    "vote": votes.draw,
    "iterations": iterations.draw,
    "competition": competition.draw,
    "spread-loss": losses.draw,
    "annealing": annealing.draw,
    "scale": scale.draw,
    "roofline": roofline.draw,
}
README = "iterations"
"""The figure that the README shows."""


def write(name: str, folder: Path) -> None:
    """Draw a figure and write ``NAME-light.svg`` and ``NAME-dark.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    for theme in (LIGHT, DARK):
        save(FIGURES[name](theme), folder / f"{name}-{theme.name}.svg")
