"""Writes the findings of an inspection: files in a folder, and sentences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matcaps.inspect.display import Display
from matcaps.inspect.numbers import save_arrays
from matcaps.inspect.style import save_figure
from matcaps.training.record import write_json


class FindingsWriter:
    """Writes and collects the findings of an inspection.

    Args:
        folder: where to write; it is created.
        report: called with each sentence.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.report = report
        self.files: list[str] = []
        self.figures: list[str] = []
        self.sentences: dict[str, str] = {}

    def write(self, name: str, display: Display) -> None:
        """Write a view's figure and its numbers, and report its sentences."""
        save_figure(display.plot(), self.folder / name)
        if display.as_json:
            write_json(self.folder / f"{name}.json", _finite(display.numbers))
        else:
            save_arrays(self.folder / f"{name}.npz", display.numbers)
        self.figures.append(name)
        self.files.append(f"{name}.png, .svg, .{'json' if display.as_json else 'npz'}")
        for topic, sentence in display.sentences.items():
            self.add_sentence(topic, sentence)

    def add_sentence(self, topic: str, sentence: str) -> None:
        """Report a finding, and add it to the record."""
        self.sentences[topic] = sentence
        self.report(f"{topic}: {sentence}")


def _finite(values: Any) -> Any:
    """Replace NaN, which JSON does not have, by null."""
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and values != values else values
