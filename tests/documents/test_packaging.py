"""What describes the packages: workflows, the recipe for conda, and pyproject.toml say the same."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "PyYAML": "pyyaml", "Jinja2": "jinja2"}

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="only a checkout has workflows")


def jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits_and_get_no_rights(path):
    text = path.read_text(encoding="utf-8")
    uses = re.findall(r"uses: (\S+)(.*)", text)
    assert uses
    for action, comment in uses:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), action
            assert re.match(r" # v\d+\.\d+\.\d+$", comment), action
    assert yaml.safe_load(text)["permissions"] == {}
    for name, job in jobs(path).items():
        assert set(job["permissions"]) <= {"contents", "id-token", "pages"}, name
    for step in steps(path):
        if "checkout" in step.get("uses", ""):
            assert step["with"] == {"persist-credentials": False}


def test_one_commit_an_action():
    """The same version of an action everywhere."""
    found = {use for path in WORKFLOWS for use in re.findall(r"uses: ([\w/-]+@\w+)", path.read_text(encoding="utf-8"))}
    assert len({use.split("@")[0] for use in found}) == len(found)


def test_workflows_call_targets_that_are_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = {
        target
        for path in WORKFLOWS
        for step in steps(path)
        for target in re.findall(r"make ([a-z][a-z-]*)", step.get("run", ""))
    }
    called |= set(jobs(ROOT / ".github/workflows/tests.yml")["installed"]["strategy"]["matrix"]["target"])
    assert "setup" in called
    for target in called:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_pythons_that_are_tested_are_those_that_are_named():
    matrix = jobs(ROOT / ".github/workflows/tests.yml")["tests"]["strategy"]["matrix"]
    assert len(matrix["system"]) == 3
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert matrix["python"][0] == lowest
    assert len(matrix["python"]) == 4


def test_a_release_publishes_what_the_wheels_workflow_built():
    release = jobs(ROOT / ".github/workflows/release.yml")
    assert release["wheels"]["uses"] == "./.github/workflows/wheels.yml"
    assert release["publish"]["permissions"] == {"id-token": "write"}
    built = [step["with"]["name"] for step in steps(ROOT / ".github/workflows/wheels.yml") if "upload" in str(step)]
    assert built
    assert all(name.startswith("dist-") for name in built)


def test_the_conda_recipe_asks_for_what_pyproject_asks_for():
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    run = dict(one.partition(" ")[::2] for one in recipe["requirements"]["run"])
    expected = {}
    for text in PROJECT["project"]["dependencies"]:
        name, bounds = re.match(r"([\w-]+)(?:\[\w+\])?(.*)", text).groups()
        expected[CONDA_NAMES.get(name, name)] = bounds
    assert {name: bounds for name, bounds in run.items() if bounds} == expected
    assert {name for name, bounds in run.items() if not bounds} == {"python", "docstring_parser", "typeshed-client"}
    build = dict(one.partition(" ")[::2] for one in recipe["requirements"]["host"])
    (needed,) = PROJECT["build-system"]["requires"]
    assert needed == f"scikit-build-core{build['scikit-build-core']}"
    assert recipe["context"]["version"] == PROJECT["project"]["version"]
    assert recipe["build"]["python"]["entry_points"] == ["matcaps = matcaps.cli:main"]
    assert PROJECT["project"]["scripts"] == {"matcaps": "matcaps.cli:main"}
