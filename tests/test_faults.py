"""A call about files that fails, wherever it is: some calls of some commands; ``make test-faults`` tries every one."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.support.faults.scenarios import PLANTED, SCENARIOS
from tests.support.faults.server import Server
from tests.support.faults.sweep import Sweep

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="the library that makes calls fail is for Linux"
)


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.mark.parametrize(
    ("name", "fault", "few"),
    [
        ("save", "EIO", 6),
        ("save", "ENOSPC from then on", 4),
        ("fetch", "EIO", 6),
        ("train", "ENOSPC from then on", 2),
        ("train", "short", 1),
    ],
)
def test_a_call_that_fails_is_said_in_one_line_and_made_good_later(name, fault, few, server, tmp_path: Path):
    sweep = Sweep(server, SCENARIOS[name], fault, tmp_path / "sweep")
    step = len(sweep.calls) // few
    assert sweep.run(range(1 + step // 2, len(sweep.calls) + 1, step)) == []


def test_the_sweep_sees_what_is_wrong(server, tmp_path: Path):
    """A program that writes over its file in place, and one that shows a traceback."""
    found = Sweep(server, PLANTED["careless"], "ENOSPC from then on", tmp_path / "sweep").run(range(1, 4))
    assert any("careless.json is not whole" in problem for problem in found)
    assert any("a traceback" in problem for problem in found)
    assert any("no clear line" in problem for problem in found)
