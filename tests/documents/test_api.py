"""Every public name has an entry in docs/api, and every entry is of a name that is there; nothing is built for it."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENTRY = re.compile(r"^\.\. (?:auto(?:function|class|exception|data)|py:(?:module|data)):: (matcaps[\w.]*)$", re.M)


def entries() -> list[str]:
    """The names that the pages of the API have entries for."""
    return [name for page in sorted((ROOT / "docs" / "api").glob("*.rst")) for name in ENTRY.findall(page.read_text())]


def public_modules() -> list[str]:
    """The modules whose files say by ``__all__`` what is public in them."""
    package = ROOT / "src" / "matcaps"
    found = []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(line, ast.Assign) and "__all__" in ast.unparse(line.targets[0]) for line in tree.body):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def thing(name: str) -> Any:
    """What a dotted name stands for, or its name where an extra that is not installed would be needed."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            try:
                found = getattr(found, part)
            except ImportError:  # the demo's page, without Gradio
                return name
        return found
    raise AttributeError(name)


def public_names() -> list[str]:
    return [f"{name}.{one}" for name in public_modules() for one in importlib.import_module(name).__all__]


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_has_an_entry(name):
    """Under this name or, for a function or class that several packages show, under another of its names."""
    listed = entries()
    one = thing(name)
    others = [entry for entry in listed if entry.rpartition(".")[2] == name.rpartition(".")[2]]
    assert name in listed or (not inspect.ismodule(one) and any(thing(entry) is one for entry in others)), (
        f"docs/api has no entry for {name}"
    )


@pytest.mark.parametrize("name", entries())
def test_an_entry_is_of_a_name_that_is_there(name):
    thing(name)


def test_no_name_has_two_entries():
    listed = entries()
    assert len(set(listed)) == len(listed)


def test_a_name_without_an_entry_is_noticed():
    with pytest.raises(AssertionError, match="has no entry"):
        test_a_public_name_has_an_entry("matcaps.routing.choice.choose_implementation")
    with pytest.raises(AttributeError):
        test_an_entry_is_of_a_name_that_is_there("matcaps.models.fetch_folder")
