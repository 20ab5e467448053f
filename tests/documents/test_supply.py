"""Hashes, licences and the list of dependencies say the same as pyproject.toml and constraints.txt."""

import base64
import csv
import hashlib
import importlib.util
import json
import re
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "constraints.txt").is_file(), reason="needs a checkout")


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


licences, sboms = tool("write_licences"), tool("add_sbom")


def pinned(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    return {
        licences.canonical(name): version for name, version in re.findall(r"^([\w.\-]+)==([^\s;]+)", text, re.MULTILINE)
    }


@pytest.mark.parametrize("name", ["ci.txt", "runtime.txt", "tools.txt"])
def test_every_pin_has_a_hash_and_names_no_place(name):
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.match(r"[\w.\-]+==\S+( ;[^\\-]*(-[^-]+)*?)? +--hash=sha256:[0-9a-f]{64}", line), line[:100]
        assert "://" not in line
        assert "file:" not in line


@pytest.mark.parametrize("name", ["ci.txt", "runtime.txt"])
def test_hashes_are_of_the_versions_of_constraints(name):
    locked, constrained = pinned(ROOT / "requirements" / name), pinned(ROOT / "constraints.txt")
    other = {
        one: (version, constrained[one]) for one, version in locked.items() if constrained.get(one, version) != version
    }
    assert not other, "run make lock"


def test_what_matcaps_asks_for_is_locked():
    of_runtime = [name for name, by in licences.asked_for().items() if "matcaps" in by.split(", ")]
    of_ci = [name for name, by in licences.asked_for().items() if re.search(r"\[(dev|docs)\]", by)]
    assert set(of_runtime) <= pinned(ROOT / "requirements" / "runtime.txt").keys(), "run make lock"
    assert {*of_runtime, *of_ci} - {"torch"} <= pinned(ROOT / "requirements" / "ci.txt").keys(), "run make lock"


def test_every_dependency_is_among_the_licences():
    text = licences.PAGE.read_text(encoding="utf-8").partition("| --- | --- | --- |\n")[2]
    rows = [line.removeprefix("| ").split(" | ") for line in text.splitlines()]
    listed = {licences.canonical(re.sub(r"\[(.*)\]\(.*", r"\1", row[0])): row for row in rows}
    for name, by in licences.asked_for().items():
        assert name in listed, f"{name} is not in {licences.PAGE.name}: run make licences"
        assert listed[name][2].removesuffix(" |") == by, f"{name}: run make licences"
    for name, row in listed.items():
        assert name in licences.KNOWN or licences.is_compatible(row[1]), f"{name}: {row[1]}"


def test_unknown_licences_stop():
    assert licences.is_compatible("Apache-2.0 AND MIT")
    for licence in (
        "",
        "UNKNOWN",
        "GPL-3.0-only",
        "MIT; GNU General Public License v3",
        "AGPL-3.0",
        "Apache-2.0 AND Other",
    ):
        assert not licences.is_compatible(licence)
    listed = [{"Name": name, "License": "MIT", "URL": ""} for name in licences.asked_for()]
    assert "| torch | MIT | matcaps |" in licences.page(listed)
    with pytest.raises(SystemExit, match=r"evil has the licence 'AGPL-3.0'"):
        licences.page([*listed, {"Name": "evil", "License": "AGPL-3.0", "URL": ""}])
    with pytest.raises(SystemExit, match="not installed where the list was made: "):
        licences.page(listed[1:])


def test_a_wheel_gets_its_sbom_and_its_record_says_so(tmp_path):
    wheel = tmp_path / "matcaps-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("matcaps/a.py", "A = 1\n")
        archive.writestr("matcaps-1.dist-info/RECORD", "matcaps/a.py,sha256=x,6\nmatcaps-1.dist-info/RECORD,,\n")
    sbom = json.dumps({"bomFormat": "CycloneDX", "components": []}).encode()
    for content in (b"earlier", sbom):  # twice is as once
        name = sboms.add_sbom(wheel, content)
    assert name == "matcaps-1.dist-info/sboms/matcaps.cdx.json"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted({*archive.namelist()})
        assert archive.read(name) == sbom
        rows = {row[0]: row[1:] for row in csv.reader(archive.read("matcaps-1.dist-info/RECORD").decode().splitlines())}
    digest = base64.urlsafe_b64encode(hashlib.sha256(sbom).digest()).rstrip(b"=").decode()
    assert rows[name] == [f"sha256={digest}", str(len(sbom))]
    assert rows["matcaps-1.dist-info/RECORD"] == ["", ""]
    assert set(rows) == {"matcaps/a.py", name, "matcaps-1.dist-info/RECORD"}
