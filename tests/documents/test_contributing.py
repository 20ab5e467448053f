"""What a contributor is given works: hooks run the project's own tools, forms are whole, links lead somewhere."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PAGES = ["CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"]


def hooks() -> list[dict]:
    return [
        hook | {"repo": repo["repo"]}
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
        for hook in repo["hooks"]
    ]


def test_hooks_fetch_nothing():
    assert {(hook["repo"], hook["language"]) for hook in hooks()} == {("local", "system")}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks())
    assert all("additional_dependencies" not in hook for hook in hooks())


def test_hooks_are_the_steps_of_make_lint_in_pinned_versions():
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert lint
    steps = [line.replace("$(BIN)/", "").split() for line in lint[1].splitlines()]
    assert [step[:2] if step[0] == "ruff" else step[:1] for step in steps] == [hook["name"].split() for hook in hooks()]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for step in steps:
        assert re.search(rf"^{step[0]}==", pins, re.M)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_are_whole(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names)
    assert all(field["attributes"]["label"] for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_there_is_a_form_for_an_error_and_one_for_a_wish():
    assert [path.stem for path in FORMS] == ["bug", "feature"]


@pytest.mark.parametrize("name", PAGES)
def test_links_and_files_are_there(name):
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target
    for target in re.findall(r"`((?:tests|src|docs|benchmarks|tools|native)/[\w./-]*)`", text):
        assert (ROOT / target).exists(), target
