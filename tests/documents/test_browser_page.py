"""What ``make docs`` does for the page with networks where npm or its registry is missing."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("browser_page", ROOT / "tools" / "browser_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "MADE", tmp_path / "browser")
    monkeypatch.delenv("MATCAPS_DOCS_BROWSER", raising=False)
    return module


def test_without_npm_the_site_is_built_without_networks(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None)
    assert tool.main() == 0
    assert capsys.readouterr().err == "docs/browser.md has no network in it: npm is missing\n"
    assert not (tool.MADE / "files.json").exists()


def test_where_it_is_required_that_is_an_error(tool, monkeypatch):
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("MATCAPS_DOCS_BROWSER", "required")
    assert tool.main() == 1


def test_an_npm_that_fails_is_told_in_one_line(tool, monkeypatch, capsys):
    failing = "import sys; sys.exit('npm error code ECONNREFUSED\\nnpm error more')"
    monkeypatch.setattr(tool, "_npm", lambda: [sys.executable, "-c", failing])
    assert tool.main() == 0
    assert capsys.readouterr().err == (
        "docs/browser.md has no network in it: npm ci failed: npm error code ECONNREFUSED\n"
    )


def test_what_was_made_from_the_same_files_is_kept(tool, capsys):
    tool.MADE.mkdir()
    (tool.MADE / "files.json").write_text(json.dumps({"key": tool._key(), "sizes": {}}), encoding="utf-8")
    assert tool.main() == 0
    assert capsys.readouterr() == ("", "")


def test_the_lock_file_pins_the_package_and_names_no_registry():
    lock = json.loads((ROOT / "docs" / "_browser" / "package-lock.json").read_text(encoding="utf-8"))
    package = lock["packages"]["node_modules/onnxruntime-web"]
    wanted = json.loads((ROOT / "docs" / "_browser" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert wanted == {"onnxruntime-web": package["version"]}
    assert all(entry["integrity"].startswith("sha512-") for name, entry in lock["packages"].items() if name)
    assert not any("resolved" in entry for entry in lock["packages"].values())
    assert not re.search("https?://", json.dumps(lock))
