"""How far the compiled core is from what bounds it: the newest record of ``python -m benchmarks.cpu.roofline``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .style import Theme, legend, new

RECORDS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
POSSIBLE = {"forward": 0.69, "backward": 0.72}
"""The share of the peak that the passes' instructions allow: counted in matcaps/routing/README.md."""


def newest() -> dict[str, Any]:
    """The newest record."""
    return json.loads(max(RECORDS.glob("roofline-*.json")).read_text())


def roofs(record: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """The peak, and each level's bytes a second: the most that any mixture of loads and multiply-adds moved."""
    rows = record["multiply_adds"]
    # four multiply-adds are eight operations a lane, each load four bytes a lane
    bytes_of = {row["level"]: 0.0 for row in rows}
    for row in rows:
        bytes_of[row["level"]] = max(bytes_of[row["level"]], row["rate"] * row["loads"] * 4 / 8)
    return max(row["rate"] for row in rows), bytes_of


def draw(theme: Theme) -> Figure:
    record = newest()
    peak, bytes_of = roofs(record)
    figure, [panel] = new(theme, 1, 1, 3.4)
    x = np.geomspace(0.25, 32, 200)
    for level, style in zip(bytes_of, ("-", "--", ":"), strict=True):
        panel.plot(
            x,
            np.minimum(peak, bytes_of[level] * x) / 1e9,
            style,
            color=theme.text,
            lw=1,
            label=f"operands from {level}",
        )
    for kind, share in POSSIBLE.items():
        panel.plot([4, 32], [share * peak / 1e9] * 2, color=theme.faint, lw=1)
        above = kind == "backward"
        panel.annotate(
            f"the most of its instructions, {kind}: {share:.0%}",
            (32, share * peak / 1e9),
            xytext=(0, 3 if above else -3),
            textcoords="offset points",
            va="bottom" if above else "top",
            ha="right",
            fontsize=7.5,
            color=theme.text,
        )
    for layer, marker in zip(record["layers"], ("o", "s"), strict=True):
        for place, (kind, colour) in enumerate(zip(("forward", "backward"), theme.colours, strict=False)):
            operations = layer["operations"][place]
            rate = operations / layer["seconds"][place]
            panel.plot(
                operations / layer["bytes"][place],
                rate / 1e9,
                marker,
                color=colour,
                ms=7,
                label=f"{layer['name']} {kind}: {rate / peak:.0%} of the peak",
            )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.set_xticks([0.25, 1, 4, 16])
    panel.set_xticklabels(["¼", "1", "4", "16"])
    ticks = [8, 16, 32, 64, 128, 256]
    panel.set_yticks(ticks)
    panel.set_yticklabels([str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_ylim(8, 1.3 * peak / 1e9)
    panel.set_xlabel("operations a byte that leaves the first-level cache")
    panel.set_ylabel("10⁹ operations a second")
    legend(panel, theme, loc="lower right")
    return figure
