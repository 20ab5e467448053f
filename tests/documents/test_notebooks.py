"""Every notebook runs from top to bottom, on small settings; what it asserts holds."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.notebooks import FOLDER, NOTEBOOKS, cells, header

ROOT = Path(__file__).resolve().parents[2]


def name(path: Path) -> str:
    return path.stem


def test_there_are_five_and_the_page_about_them_names_each():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        assert f"]({path.name})" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_one_to_jupyter_and_holds_no_outputs(path):
    head = header(path)
    assert head["jupytext"]["text_representation"]["format_name"] == "myst"
    assert head["kernelspec"]["name"] == "python3"
    text = path.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(list(cells(path))), "blocks of code are cells, and all are found"
    assert not list(FOLDER.rglob("*.ipynb")), "outputs stay out of the repository"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_measures_its_figures_and_asserts_what_it_says(path):
    """Each has claims that can fail."""
    code = "\n".join(code for _, code in cells(path))
    nodes = list(ast.walk(ast.parse(code)))
    assert any(isinstance(node, ast.Assert) for node in nodes)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_runs_on_small_settings(path, tmp_path):
    environment = {**os.environ, "MATCAPS_NOTEBOOKS": "small", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["MATCAPS_DATA"] = str(tmp_path / "no-data")
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.notebooks", path.stem]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"== {path.stem}:" in done.stdout
