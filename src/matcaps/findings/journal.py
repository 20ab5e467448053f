"""Where findings go: files in a folder, and sentences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from matcaps.inspection import save_arrays
from matcaps.training.record import write_json
from matcaps.viz.style import save_figure


class Journal:
    """Keeps what an inspection finds.

    Args:
        folder: is made.
        report: is given each sentence as it is found.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.report = report
        self.files: list[str] = []
        self.figures: list[str] = []
        self.sentences: dict[str, str] = {}

    def write(self, name: str, figure: Figure, numbers: Any, *, as_json: bool = False) -> None:
        """Write a figure and what is behind it: few plain values as JSON, else, tensors in any nesting, as NPZ."""
        save_figure(figure, self.folder / name)
        if as_json:
            write_json(self.folder / f"{name}.json", _finite(numbers))
        else:
            save_arrays(self.folder / f"{name}.npz", numbers)
        self.figures.append(name)
        self.files.append(f"{name}.png, .svg, .{'json' if as_json else 'npz'}")

    def say(self, name: str, sentence: str) -> None:
        """Report a finding, and keep it."""
        self.sentences[name] = sentence
        self.report(f"{name}: {sentence}")


def _finite(values: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and values != values else values
