"""Where findings go: files in a folder, and sentences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matcaps.inspect.display import Display
from matcaps.inspect.numbers import save_arrays
from matcaps.inspect.style import save_figure
from matcaps.training.record import write_json


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

    def write(self, name: str, display: Display) -> None:
        """Write a view's figure and what is behind it, and report what it says."""
        save_figure(display.plot(), self.folder / name)
        if display.as_json:
            write_json(self.folder / f"{name}.json", _finite(display.numbers))
        else:
            save_arrays(self.folder / f"{name}.npz", display.numbers)
        self.figures.append(name)
        self.files.append(f"{name}.png, .svg, .{'json' if display.as_json else 'npz'}")
        for about, sentence in display.sentences.items():
            self.say(about, sentence)

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
