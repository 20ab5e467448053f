"""The notebooks: pages of MyST Markdown whose cells are run from top to bottom, in one namespace."""

import re
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")

_CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.M | re.S)


def header(path: Path) -> dict[str, Any]:
    """What a page says at its head: that it is a notebook, and its kernel."""
    return yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])


def cells(path: Path) -> Iterator[tuple[int, str]]:
    """The line on which each cell of code begins, and the code."""
    text = path.read_text(encoding="utf-8")
    for cell in _CELL.finditer(text):
        yield text[: cell.start(1)].count("\n") + 1, cell[1]


def run(path: Path) -> None:
    """Run all cells.

    Raises:
        Exception: whatever a cell raises; a traceback names the page and its line.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, code in cells(path):
        exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)


def main() -> int:
    """Run the notebooks that are named, or all; say how long each took."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    failed = []
    for path in [path for path in NOTEBOOKS if path.stem in sys.argv[1:] or len(sys.argv) == 1]:
        print(f"== {path.stem}", flush=True)
        started = time.perf_counter()
        try:
            run(path)
        except Exception:
            traceback.print_exc()
            failed.append(path.stem)
        pyplot.close("all")
        print(f"== {path.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
