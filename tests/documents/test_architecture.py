"""What docs/architecture.md names is there: files, folders, functions and classes, in backticks."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from matcaps import cli

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def names_in(text: str) -> list[str]:
    """The names in backticks, each once; a name may go over the end of a line."""
    return sorted({" ".join(name.split()) for name in re.findall(r"`([^`]+)`", text)})


def is_path(name: str) -> bool:
    return " " not in name and ("/" in name or re.search(r"\.(py|md|json|yaml|toml)$", name) is not None)


def resolve(name: str) -> Any:
    """What a dotted name such as ``matcaps.data.Transform.train`` stands for; None for an attribute of instances.

    Raises:
        AttributeError: there is no such thing.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if isinstance(thing, type) and not hasattr(thing, part) and is_set_in(thing, part):
                return None
            thing = getattr(thing, part)
        return thing
    raise AttributeError(f"no module {parts[0]}")


def is_set_in(kind: type, name: str) -> bool:
    """Whether a class's file sets an attribute of this name."""
    path = importlib.import_module(kind.__module__).__file__
    assert path is not None
    return f"self.{name} = " in Path(path).read_text(encoding="utf-8")


def exists(name: str) -> bool:
    """Whether a path stands in the repository, in the package, or in a run's folder."""
    return any((base / name).exists() for base in (ROOT, ROOT / "src" / "matcaps")) or name == "results.json"


SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "matcaps").rglob("*.py"))


def check(name: str) -> None:
    """Fail unless a name in backticks is of something that exists."""
    if name.startswith("matcaps."):
        resolve(name)
    elif name.startswith("matcaps "):
        assert name.split()[1] in cli.COMMANDS
    elif is_path(name):
        assert exists(name), f"there is no {name}"
    elif re.fullmatch(r"[A-Za-z_][\w.]*", name):
        assert re.search(rf"\b{re.escape(name.rstrip('.'))}", SOURCES), f"no source has the word {name}"


@pytest.mark.parametrize("name", names_in(PAGE.read_text(encoding="utf-8")))
def test_what_the_page_names_exists(name):
    check(name)


@pytest.mark.parametrize(
    "name",
    [
        "matcaps.data.load_dataa",
        "matcaps.data.Transform.trained",
        "matcaps.models.EMCapsNet.stems",
        "matcaps.nowhere.load",
        "matcaps fly",
        "src/matcaps/routing/nowhere.py",
        "tests/nowhere/",
        "nowhere.py",
        "no_source_has_this",
    ],
)
def test_what_is_not_there_is_noticed(name):
    with pytest.raises((AssertionError, AttributeError)):
        check(name)


def test_the_page_names_enough_to_be_worth_a_test():
    names = names_in(PAGE.read_text(encoding="utf-8"))
    assert sum(name.startswith("matcaps.") for name in names) > 40
    assert sum(is_path(name) for name in names) > 40


def test_every_part_of_the_package_is_in_a_room_of_the_page():
    """A folder with a slash, a file with its ending, in the rows of the table of rooms."""
    table = re.search(r"^## Three layers.*?^A layer imports", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert table
    package = ROOT / "src" / "matcaps"
    parts = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    parts |= {path.name for path in package.glob("*.py") if not path.name.startswith("_")}
    assert parts <= set(names_in(table[0])), "a part of the package has no room in the page"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).exists(), target
