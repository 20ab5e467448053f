"""The package has three rooms with doors in one direction; this walks the imports and holds it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import matcaps

PACKAGE = Path(matcaps.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOMS = {
    "operator": {"capsules", "routing"},
    "model room": {"layers", "losses", "models"},
    "workshop": {"data", "training", "inference", "experiments", "inspect", "report", "demo", "cli", "__main__"},
}
ORDER = list(ROOMS)
OF_COMMAND = ("cli", "__main__")
FOR_ALL = {"_version", "_numbers", "_paths", "_progress"}
"""Small helpers with no room: they import nothing of the package."""


def room_of(part: str) -> str | None:
    return next((room for room, parts in ROOMS.items() if part in parts), None)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of whatever a file imports, inside functions and type-checking blocks too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the whole name"
            if node.module == "matcaps":
                yield from ((node.lineno, f"matcaps.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, str(node.module)


def own_imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, name and first part, ``layers`` of ``matcaps.layers.conv``, of what a file imports of the package."""
    for line, name in imported(path):
        parts = name.split(".")
        if parts[0] == "matcaps":
            yield line, name, parts[1] if len(parts) > 1 else ""


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_module_has_a_room():
    for path in MODULES:
        part = part_of(path)
        assert part in FOR_ALL | {"__init__"} or room_of(part), f"{relative(path)} belongs to no room"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_doors_open_one_way(path):
    own = room_of(part_of(path))
    for line, name, part in own_imports(path):
        there = room_of(part)
        if own is None or there is None:
            continue
        assert ORDER.index(there) <= ORDER.index(own), f"{relative(path)}:{line}: the {own} imports {name}"


def test_helpers_import_nothing_of_the_package():
    for part in FOR_ALL:
        assert not list(own_imports(PACKAGE / f"{part}.py"))


COMPILER = "routing/cuda_program.py"
"""What compiles and starts the CUDA kernels: imported inside a function, when a routing first asks for them."""


def test_one_module_alone_imports_nvidias_packages_and_is_imported_late():
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            at_once = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            assert "cuda_program" not in at_once, f"{relative(path)}: {at_once}"
        for line, name in imported(path):
            if relative(path) != COMPILER:
                assert name.split(".")[0] not in ("cuda", "nvidia"), f"{relative(path)}:{line}: imports {name}"
    allowed = {"torch", "matcaps", "cuda", "platformdirs", *sys.stdlib_module_names}
    for line, name in imported(PACKAGE / COMPILER):
        assert name.split(".")[0] in allowed, f"{COMPILER}:{line}: imports {name}"


def test_operator_imports_torch_and_itself():
    allowed = {"torch", "matcaps", *sys.stdlib_module_names}
    for path in MODULES:
        if room_of(part_of(path)) == "operator" and relative(path) != COMPILER:
            for line, name in imported(path):
                assert name.split(".")[0] in allowed, f"{relative(path)}:{line}: the operator imports {name}"


def test_model_room_imports_the_operators_public_names():
    for path in MODULES:
        if room_of(part_of(path)) == "model room":
            for line, name, part in own_imports(path):
                if room_of(part) == "operator":
                    assert name in ("matcaps.capsules", "matcaps.routing"), f"{relative(path)}:{line}: {name}"


EARLIER_PLACE = "training/inference.py"
"""Where what is in ``inference`` was once, so that code that imports it from there goes on working."""


def test_within_the_workshop():
    forbidden = {
        "data": {
            "models",
            "layers",
            "losses",
            "routing",
            "training",
            "inference",
            "experiments",
            "inspect",
            "report",
            "demo",
            "cli",
        },
        "experiments": {"cli", "report", "demo"},
        "training": {"inference", "cli", "experiments", "report", "demo"},
        "inference": {"inspect", "cli", "experiments", "report", "demo"},
        "inspect": {"cli", "experiments", "report", "demo"},
        "report": {"demo", "cli"},
        "demo": {"report", "cli"},
    }
    for path in MODULES:
        if relative(path) == EARLIER_PLACE:
            continue
        for line, name, part in own_imports(path):
            assert part not in forbidden.get(part_of(path), set()), f"{relative(path)}:{line}: imports {name}"


OF_THE_COMMAND = {"run", "opening", "writer", "settings"}
"""What ``matcaps inspect`` does around its views: it opens a run, writes records, and has a decoder trained."""


def test_views_never_train():
    for path in MODULES:
        if part_of(path) == "inspect" and path.stem not in OF_THE_COMMAND:
            for line, name, part in own_imports(path):
                assert part not in ("training", "inference"), f"{relative(path)}:{line}: imports {name}"


def test_training_knows_views_and_not_the_command():
    for path in MODULES:
        if part_of(path) == "training":
            for line, name, part in own_imports(path):
                asked = name.split(".")[2:3]
                assert part != "inspect" or not OF_THE_COMMAND & set(asked), f"{relative(path)}:{line}: imports {name}"


def test_the_page_alone_imports_gradio():
    pages = ("demo/app.py", "demo/viewpoint_page.py")
    for path in MODULES:
        for line, name in imported(path):
            assert name.split(".")[0] != "gradio" or relative(path) in pages, f"{relative(path)}:{line}: {name}"


def test_nobody_imports_the_command():
    for path in MODULES:
        for line, _, part in own_imports(path):
            assert part != "cli" or part_of(path) in OF_COMMAND, f"{relative(path)}:{line}"


def test_implementations_are_strangers():
    folder = PACKAGE / "routing"
    names = {name for name in ("reference", "native", "cuda") if (folder / f"{name}.py").exists()}
    for name in names:
        for line, other, _ in own_imports(folder / f"{name}.py"):
            assert other.split(".")[-1] not in names - {name}, f"routing/{name}.py:{line}: imports {other}"


@pytest.mark.parametrize("path", [path for path in MODULES if part_of(path) not in OF_COMMAND], ids=relative)
def test_only_the_command_prints_parses_and_exits(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "input", "exit", "sys.exit"), f"{relative(path)}:{node.lineno}: {called}"
    for line, name in imported(path):
        assert name.split(".")[0] not in ("argparse", "jsonargparse", "rich"), f"{relative(path)}:{line}: {name}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_file_grows_beyond_500_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
