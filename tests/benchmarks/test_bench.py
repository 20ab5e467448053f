"""What the benchmark counts, and that each of its tables can be made."""

import json
import sys

import pytest
import torch

from benchmarks.cases import GROWTH, LAYERS, Layer, Network
from benchmarks.cpu import bench, roofline, routings
from benchmarks.measure import interleave, peak_memory, summary
from matcaps.routing import native


def test_operations_follow_the_formula():
    layer = Layer("one vote", children=1, parents=1, batch=1, size=1, kernel=1, stride=1, iterations=3)
    assert layer.vote_components == 16
    # 14 T + 4 (T - 1) forward, 13 T + 5 (T - 1) + 39 backward, for each component of a vote
    assert layer.operations == (16 * 50, 16 * 88)
    assert LAYERS[0].vote_components == 24 * 36 * 9 * 8 * 16 * 16


def test_growth_doubles_what_it_says():
    batches = [layer.vote_components for layer in GROWTH["batch"]]
    assert [count / batches[0] for count in batches] == [1, 2, 4, 8]
    types = [layer.vote_components for layer in GROWTH["types"]]
    assert [count / types[0] for count in types] == [1, 2, 4, 8]


def test_contenders_take_turns():
    order = []
    steps = {name: (lambda name=name: (order.append(name), (0.25, 0.5))[1]) for name in "ab"}
    found = interleave(steps, rounds=3, seconds=0)
    assert order == list("ab" + "ababab")  # once to warm up
    row = summary(found["a"])
    assert (row["forward"], row["backward"], row["total"], row["steps"]) == (250, 500, 750, 3)


@pytest.mark.skipif(native.LIBRARY is None, reason=str(native.MISSING))
def test_the_whole_record_of_tiny_cases(monkeypatch, tmp_path, capsys):
    tiny = Layer("tiny", 2, 2, 1, 5)
    monkeypatch.setattr(bench, "LAYERS", [tiny])
    monkeypatch.setattr(bench, "GROWTH", {"batch": [tiny]})
    monkeypatch.setattr(bench, "NETWORKS", [Network("quickstart", 1)])
    monkeypatch.setattr(bench, "ONE_IMAGE", [Network("quickstart", 1)])
    monkeypatch.setattr(bench, "peak_memory", lambda case, contender: 1.0)
    arguments = ["bench", "--skip-tests", "--skip-compile", "--rounds=1", "--seconds=0", f"--output={tmp_path}"]
    monkeypatch.setattr("sys.argv", arguments)
    bench.main()
    (path,) = tmp_path.glob("bench-*.json")
    record = json.loads(path.read_text())
    assert set(record) == {"machine", "layers", "networks", "threads", "growth"}
    assert record["layers"][0]["rows"]["reference"]["ratio"] > 0  # how fast, one round on a busy machine does not tell
    assert str(path) in capsys.readouterr().out


def test_the_record_of_other_routings(monkeypatch, tmp_path, capsys):
    arguments = ["routings", "average", "dynamic", "--skip-compile", "--skip-memory", "--rounds=1", "--batch=1"]
    monkeypatch.setattr("sys.argv", [*arguments, f"--output={tmp_path}"])
    routings.main()
    (path,) = tmp_path.glob("routings-*.json")
    cases = json.loads(path.read_text())["cases"]
    assert [case["routing"] for case in cases] == ["average", "dynamic"]
    assert [list(case["rows"]) for case in cases] == [["em", "at once", "in blocks"]] * 2
    assert capsys.readouterr().out.count("| dynamic | in blocks |") == 2  # when it is measured, and in the whole table


def test_peak_memory_is_that_of_a_process_of_its_own():
    small = peak_memory(Layer("small", 2, 2, 1, 5), "reference")
    if small is None:
        pytest.skip("this system does not tell a process's peak memory")
    large = peak_memory(Layer("large", 8, 16, 4, 14), "reference")
    assert large > small + 30  # its votes alone are 10 MiB


@pytest.mark.skipif(native.LIBRARY is None, reason=str(native.MISSING))
def test_roofline(tmp_path, monkeypatch, capsys):
    options = ["--rounds", "1", "--seconds", "0", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["roofline", *options])
    monkeypatch.setattr(roofline, "LAYERS", [Layer("tiny", 2, 2, 1, 5)])
    monkeypatch.setattr(roofline, "LEVELS", {"cache": 1 << 12, "memory": 1 << 20})
    threads = torch.get_num_threads()
    try:
        roofline.main()
    finally:
        torch.set_num_threads(threads)
    [path] = tmp_path.glob("roofline-*.json")
    record = json.loads(path.read_text())
    rates = {(row["level"], row["loads"]): row["rate"] for row in record["multiply_adds"]}
    assert len(rates) == 10
    assert min(rates.values()) > 0
    assert [layer["name"] for layer in record["layers"]] == ["tiny"]
    assert "of the peak" in capsys.readouterr().out
