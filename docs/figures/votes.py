"""What a vote is: four parts of a boat, each saying where the whole is."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matcaps.layers.transformation import transform_poses

from .style import Theme, bare, new

PARTS = {  # place and size of each part in the frame of the whole, and its outline in its own frame
    "hull": ((0.0, -0.45, 1.0), [(-1, 0.25), (1, 0.25), (0.6, -0.25), (-0.6, -0.25)]),
    "mast": ((0.0, 0.25, 1.0), [(-0.05, 0.5), (0.05, 0.5), (0.05, -0.5), (-0.05, -0.5)]),
    "sail": ((0.4, 0.3, 0.8), [(-0.4, 0.5), (0.5, -0.4), (-0.4, -0.4)]),
    "flag": ((-0.2, 0.75, 0.5), [(0.3, 0.2), (0.3, -0.2), (-0.4, 0.0)]),
}


def frame(x: float, y: float, scale: float, angle: float = 0.0) -> torch.Tensor:
    """A pose ``[4, 4]``: what is at the origin of its own frame lies at (x, y), turned and scaled."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, scale, 0], [0, 0, 0, 1]])


def vote_of_parts(poses: torch.Tensor) -> torch.Tensor:
    """Each part's vote for the pose of the whole, ``[I, 4, 4]``: its own pose times its matrix, which never changes."""
    in_whole = torch.stack([frame(*place) for place, _ in PARTS.values()])
    weight = in_whole.inverse().unsqueeze(1)  # [I, J = 1, 4, 4]
    return transform_poses(poses[None, None, None], weight)[0, 0, 0, :, 0].unflatten(-1, (4, 4))


def draw(theme: Theme) -> Figure:
    in_whole = torch.stack([frame(*place) for place, _ in PARTS.values()])
    seen = frame(0.15, -0.1, 0.85, math.radians(35)) @ in_whole
    moved = in_whole.clone()
    moves = (frame(-0.2, -0.2, 0.9, 0.3), frame(0.8, 0.2, 1, -0.6), frame(-1.1, 0.2, 1, 0.4), frame(0.9, 0.1, 1, 1.0))
    for part, move in enumerate(moves):
        moved[part] = move @ in_whole[part]
    figure, panels = new(theme, 1, 3, 2.75)
    titles = ("upright: agreed", "turned and smaller: agreed", "parts astray: no agreement")
    for panel, poses, title in zip(panels, (in_whole, seen, moved), titles, strict=True):
        panel.set_title(title)
        _draw_scene(panel, theme, poses)
        bare(panel)
        panel.set_xlim(-1.7, 1.7)
        panel.set_ylim(-1.4, 1.5)
    return figure


def _draw_scene(panel: Axes, theme: Theme, poses: torch.Tensor) -> None:
    votes = vote_of_parts(poses)
    for (name, (_, outline)), pose, vote, colour in zip(PARTS.items(), poses, votes, theme.colours, strict=True):
        corners = np.array([(pose @ torch.tensor([x, y, 0.0, 1.0]))[:2].tolist() for x, y in outline])
        panel.fill(*corners.T, facecolor=colour, alpha=0.3, edgecolor=colour, linewidth=1.2, label=name)
        start, end = pose[:2, 3].tolist(), vote[:2, 3].tolist()
        panel.plot(*zip(start, end, strict=True), color=colour, linewidth=0.9, linestyle=(0, (3, 2)))
        for axis in range(2):
            tip = vote[:2, axis] * 0.55
            panel.annotate(
                "",
                (end[0] + float(tip[0]), end[1] + float(tip[1])),
                end,
                arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0},
            )
