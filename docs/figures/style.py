"""What the figures share: two themes, and how a figure is written."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INCHES = 7.6
"""The width of a figure, which the page shows at the width of its text."""


@dataclass(frozen=True)
class Theme:
    """Colours on a page's own ground, which shows through.

    The first two to four colours are of Okabe and Ito's "Color Universal Design" (2008), lighter on a dark ground.

    Attributes:
        name: ends the file's name.
        text: of letters and axes.
        faint: of what is there for orientation.
        colours: of what is compared.
        heat: a colour map whose low end is near the ground.
    """

    name: str
    text: str
    faint: str
    colours: tuple[str, ...]
    heat: str


LIGHT = Theme("light", "#24292f", "#b4bac1", ("#0072B2", "#D55E00", "#009E73", "#AA4499"), "Blues")
DARK = Theme("dark", "#d5d9de", "#5c636b", ("#56B4E9", "#F0935A", "#3CC79F", "#D98CC0"), "Blues_r")


def new(theme: Theme, rows: int, columns: int, height: float, **settings: object) -> tuple[Figure, list[Axes]]:
    """A figure of panels in rows, and the panels row by row.

    Args:
        theme: its colours.
        rows: of panels.
        columns: of panels.
        height: in inches.
        **settings: of ``Figure.subplots``.
    """
    figure = Figure(figsize=(INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    panels = list(figure.subplots(rows, columns, squeeze=False, **settings).flat)  # type: ignore[arg-type]
    for panel in panels:
        panel.patch.set_alpha(0)
        panel.tick_params(colors=theme.text, labelsize=8)
        panel.title.set_color(theme.text)
        panel.title.set_fontsize(9.5)
        for label in (panel.xaxis.label, panel.yaxis.label):
            label.set_color(theme.text)
            label.set_fontsize(9)
        for side, spine in panel.spines.items():
            spine.set_color(theme.faint)
            spine.set_visible(side in ("left", "bottom"))
    return figure, panels


def bare(panel: Axes) -> None:
    """A panel that shows places, not numbers: no ticks, no frame, one scale for both directions."""
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_aspect("equal")
    for spine in panel.spines.values():
        spine.set_visible(False)


def legend(panel: Axes, theme: Theme, **settings: object) -> None:
    """A legend without a frame."""
    panel.legend(frameon=False, fontsize=8, labelcolor=theme.text, **settings)  # type: ignore[arg-type]


def save(figure: Figure, path: Path) -> None:
    """Write an SVG without a date or names by chance: the same figure is the same file."""
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, format="svg", metadata={"Date": None}, transparent=True)
