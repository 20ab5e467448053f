"""Every Python block of the documents and every example of a docstring runs, each from a fresh start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil.document import Document, PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser
from sybil.python import import_path

from tests.support.integrations import imported, needs

pytestmark = pytest.mark.filterwarnings("ignore:.*starts anew:UserWarning")  # what fine-tuning says of its examples

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "matcaps"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(PACKAGE.rglob("*.md"))]


def test_no_example_is_left_out():
    """An example that is skipped, or written where it is not looked for, is one that nobody tries."""
    for path in [*PAGES, *PACKAGE.rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "+SKIP" not in text, written(path)
        assert path.suffix == ".md" or "\n```" not in text, f"{written(path)}: examples of docstrings start with >>>"


def written(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[int]:
    """The lines of a page on which a block of Python begins."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if line.lstrip().startswith(("```python", "```py"))]


def code_blocks() -> Iterator[Any]:
    for path in PAGES:
        for place, line in enumerate(blocks(path)):
            yield pytest.param(path, place, id=f"{written(path)}:{line}")


@pytest.mark.parametrize(("path", "place"), code_blocks())
def test_a_block_of_python_runs_by_itself(path, place, work):
    """A reader copies one block, not the page: it imports what it needs."""
    examples = list(Document.parse(str(path), PythonCodeBlockParser()))
    assert len(examples) == len(blocks(path)), f"{written(path)} has blocks that are not found: ```python at the margin"
    needs(*imported(str(examples[place].parsed)))
    examples[place].evaluate()


def with_examples() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", with_examples(), ids=written)
@pytest.mark.usefixtures("undrawn")
def test_the_examples_of_docstrings_run(path, work):
    """With the names of their module, and none of another docstring."""
    module, tried = import_path(path), 0
    for _, _, text in PythonDocStringDocument.extract_docstrings(path.read_text(encoding="utf-8")):
        document = Document(text, str(path))
        document.namespace.update(vars(module))
        for region in DocTestParser()(document):
            document.add(region)
        for example in document:
            example.evaluate()
            tried += 1
    assert tried
