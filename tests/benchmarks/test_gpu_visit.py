"""A visit to a GPU, as far as it goes without one: every part with tiny sizes, the record, and what comes back."""

import json
import os
import subprocess
import sys
import tarfile

import pytest

from benchmarks.gpu import bench, profile_kernels, run_tests, train
from benchmarks.gpu.layers import LAYERS, launches_of
from benchmarks.gpu.measure import update_record
from benchmarks.measure import ROOT
from tests.support.cuda import COMPILER
from tests.support.cuda_cases import needs_all

needs_compiler = pytest.mark.skipif(
    not COMPILER, reason="no g++ or clang++ to compile the emulator of CUDA kernels with"
)


@needs_compiler
def test_the_whole_record_of_a_rehearsal(tmp_path, capsys, monkeypatch):
    path = tmp_path / "record.json"
    monkeypatch.setitem(bench.PARTS, "start", lambda options: [])
    bench.main([
        "--skip-tests", "--skip-compile", "--device=cpu", "--seconds=0", "--turns=1", "--epochs=1", f"--record={path}",
    ])  # fmt: skip
    record = json.loads(path.read_text())
    assert set(record) == {"machine", "goals", *bench.PARTS}
    assert [row["launch"] for row in record["kernels"]] == [one.name for one in launches_of(bench.TINY)]
    assert all(row["median"] > 0 for row in record["kernels"])
    (compared,) = record["compared"]
    assert compared["contender"] == "reference"
    assert compared["ratio"] > 1
    assert record["epoch"]["pairs"] == 10
    assert {"loader alone", "eager", "graph"} <= set(record["epoch"])
    assert str(path) in capsys.readouterr().out


def test_first_steps_are_timed_in_processes_of_their_own():
    command = [sys.executable, "-m", "benchmarks.gpu.first_step", "paper-small", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    found = json.loads(done.stdout)
    assert found["preset"] == "paper-small"
    assert all(found[name] > 0 for name in ("import", "wake", "first_step", "second_step"))


def test_without_a_gpu_the_benchmark_says_what_it_needs():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU"):
        bench.main([])


def test_a_record_keeps_what_it_has(tmp_path):
    path = tmp_path / "new" / "record.json"
    update_record(path, kernels=[1], step=[2])
    assert update_record(path, step=[3]) == {"kernels": [1], "step": [3]}
    assert json.loads(path.read_text()) == {"kernels": [1], "step": [3]}
    assert os.listdir(path.parent) == ["record.json"]


NCU = """==PROF== Profiling "sweep": 0%....50%....100% - 33 passes
  sweep (9, 1, 29)x(256, 1, 1), Context 1, Stream 7, Device 0, CC 9.0
    Section: GPU Speed Of Light Throughput
    ----------------------- ----------- ------------
    Metric Name             Metric Unit Metric Value
    ----------------------- ----------- ------------
    SM Frequency                    Ghz         1.97
    Duration                         ms         1.41
    ----------------------- ----------- ------------
    Issued Warp Per Scheduler                                  0.58
    Active Warps Per Scheduler                    warp         1.98
    Stall Not Selected              inst         1.60
    Stall Barrier                   inst         0.61
    Stall Drain                     inst         0.00
    Executed Instructions                           inst  868,915,456
  gather (12544, 1, 1)x(256, 1, 1), Context 1, Stream 7, Device 0, CC 9.0
    Duration                         us        43.25
"""


def test_a_profile_is_read():
    sweep, gather = profile_kernels.read_profile(NCU)
    assert sweep == {
        "kernel": "sweep", "grid": [9, 1, 29], "threads": 256, "stalls": {"not selected": 1.6, "barrier": 0.61},
        "ghz": 1.97, "us": 1410.0, "issued": 0.58, "warps": 1.98, "instructions": 868915456.0,
    }  # fmt: skip
    assert gather["us"] == 43.25
    assert "waits for not selected 1.6, barrier 0.61" in profile_kernels.show(sweep)


def test_ncu_is_started_on_the_slowest_kernels(tmp_path, monkeypatch, capsys):
    """By a program of that name that says what Nsight Compute said once, and what it was asked."""
    said = tmp_path / "said.txt"
    said.write_text(NCU)
    ncu = tmp_path / "ncu"
    ncu.write_text(f'#!/bin/sh\necho "$@" >&2\ncat "{said}"\n')
    ncu.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    record = tmp_path / "record.json"
    times = {"sweep": [1.4], "compete": [0.1, 0.1], "iterate_back": [0.8, 0.5], "iterate_later": [0.8, 0.4]}
    rows = [{"layer": "paper ConvCaps1", "kernel": name, "median": x} for name, each in times.items() for x in each]
    record.write_text(json.dumps({"kernels": rows}))
    text = tmp_path / "ncu.txt"
    assert profile_kernels.main([f"--record={record}", f"--text={text}"]) == 0
    assert "--clock-control none" in text.read_text()
    assert "regex:^(sweep|iterate_back|iterate_later)$" in text.read_text()
    assert [row["kernel"] for row in json.loads(record.read_text())["profile"]["launches"]] == ["sweep", "gather"]
    said.write_text("==ERROR== nothing")
    assert profile_kernels.main([f"--record={record}"]) == 1
    assert "ncu saw no kernel (exit status 0): ==ERROR== nothing" in capsys.readouterr().out


def test_without_a_record_all_kernels_that_visit_children_are_profiled():
    assert set(profile_kernels.slowest({}, "paper ConvCaps1")) <= {
        one.kernel for one in launches_of(LAYERS["paper ConvCaps1"])
    }


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "[gw3] [ 12%] PASSED tests/a/test_b.py::test_c[two words] ",
            ("PASSED", "tests/a/test_b.py::test_c[two words]"),
        ),
        ("[gw0] [100%] FAILED tests/a/test_b.py::test_c ", ("FAILED", "tests/a/test_b.py::test_c")),
        ("tests/a/test_b.py::test_c SKIPPED (needs a GPU) [ 50%]", ("SKIPPED", "tests/a/test_b.py::test_c")),
        ("tests/a/test_b.py::test_c ", None),
        ("FAILED tests/a/test_b.py::test_c - assert 1 == 2", None),
    ],
)
def test_outcomes_are_read_as_they_come(line, found):
    assert run_tests.outcome_in(line) == found


def write_tests(folder, text):
    path = folder / "test_some.py"
    path.write_text(text)
    return str(path)


@needs_all
@pytest.mark.parametrize("workers", [1, 2])
def test_failures_are_counted_and_named(tmp_path, workers, capfd):
    record = tmp_path / "record.json"
    path = write_tests(tmp_path, "def test_one(): pass\ndef test_two(): assert 1 == 2\n")
    arguments = ["--seconds=60", f"--workers={workers}", f"--record={record}", path]
    assert run_tests.main(arguments) == 1
    found = json.loads(record.read_text())["tests"]
    assert (found["passed"], found["failed"], found["cut_short"]) == (1, 1, False)
    assert len(found["failures"]) == 1
    assert found["failures"][0].endswith("test_two")
    assert "assert 1 == 2" in capfd.readouterr().out


@needs_all
def test_tests_that_are_cut_short_say_so(tmp_path):
    record = tmp_path / "record.json"
    text = "import time\ndef test_one(): pass\ndef test_two(): time.sleep(100)\n"
    arguments = ["--seconds=16", "--workers=1", f"--record={record}", write_tests(tmp_path, text)]
    assert run_tests.main(arguments) == 124
    found = json.loads(record.read_text())["tests"]
    assert found["cut_short"]
    assert found["passed"] == 1


def test_no_tests_are_no_success(tmp_path):
    assert run_tests.main(["--seconds=60", "--workers=1", write_tests(tmp_path, "")]) == 1


def visit(folder, only, *, minutes="2", **variables):
    """Run gpu.sh on the CPU."""
    environment = {**os.environ, "PYTHON": sys.executable, "MATCAPS_DEVICE": "cpu", "MATCAPS_ONLY": only}
    environment |= {"TMPDIR": str(folder), "MATCAPS_MINUTES": minutes, "OMP_NUM_THREADS": "1", **variables}
    out = folder / "out"
    done = subprocess.run(
        [str(ROOT / "benchmarks" / "gpu.sh"), str(out)], capture_output=True, text=True, env=environment, timeout=300
    )
    return done, out


@needs_compiler
def test_a_visit_brings_three_files_back(tmp_path):
    done, out = visit(tmp_path, "kernels", minutes="6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["logs.tar.gz", "record.json", "summary.txt"]
    assert "iterate_first" in done.stdout
    assert "kernels: exit status 0" in (out / "summary.txt").read_text()
    assert json.loads((out / "record.json").read_text())["kernels"]
    with tarfile.open(out / "logs.tar.gz") as logs:
        assert "logs/kernels.log" in logs.getnames()
    assert [path.name for path in tmp_path.glob("matcaps-gpu.*")] == []


def test_a_part_without_time_is_left_out(tmp_path):
    done, out = visit(tmp_path, "kernels speed", minutes="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kernels: left out, no time" in done.stdout
    assert "speed: left out, no time" in done.stdout
    assert not (out / "record.json").exists()


def test_a_visit_needs_a_gpu_or_says_that_it_is_a_rehearsal(tmp_path):
    done, out = visit(tmp_path, "kernels", MATCAPS_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "no GPU that torch can use; MATCAPS_DEVICE=cpu rehearses" in (out / "summary.txt").read_text()


@needs_all
def test_a_training_tells_its_epochs_and_its_figures(tmp_path, capsys):
    record = tmp_path / "record.json"
    train.main(["quickstart", str(tmp_path / "run"), "36", "--epochs=1", f"--record={record}"])
    found = json.loads(record.read_text())["train"]
    assert found["epochs"] == 1
    assert found["epoch_s"] > 0
    assert "train/loss" in found["last"]
    assert found["test"] is None
    assert "epoch 1: " in capsys.readouterr().out
