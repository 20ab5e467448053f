"""What tests share stands in tests/support; a test file is imported by nobody."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted([*TESTS.rglob("*.py"), *(TESTS.parent / "benchmarks").rglob("*.py")])


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of whatever a source imports, inside functions too; a relative import as ``.name``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def foreign_imports(source: str) -> list[tuple[int, str]]:
    """The imports of a source that take something from a test file or a conftest."""
    return [
        (line, name)
        for line, name in imported(source)
        if name.startswith(".") or (name.split(".")[0] == "tests" and name.split(".")[1:2] != ["support"])
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS.parent).as_posix())
def test_no_test_imports_a_test(path):
    assert not foreign_imports(path.read_text(encoding="utf-8")), "move what is shared to tests/support"


def test_imports_of_tests_are_seen_however_they_are_written():
    for line in (
        "from tests.routing.test_laws import RUNS",
        "from tests.data.conftest import norb_root",
        "import tests.test_cli",
        "from tests import test_cli",
        "def f():\n    from .test_laws import RUNS",
    ):
        assert foreign_imports(line)
    assert not foreign_imports("from tests.support.runs import Stop\nfrom tests.support import budget")


def test_support_holds_no_tests():
    assert not list((TESTS / "support").rglob("test_*.py"))
