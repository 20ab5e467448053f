"""The comparison with public implementations, without any of them: arguments, workers, records and tables."""

import json
import math
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

import matcaps
from benchmarks.cpu import compare
from benchmarks.cpu.peers import PEERS, turns
from benchmarks.cpu.peers.checkout import NO_COMMIT, commit_of
from benchmarks.cpu.peers.common import CONFIGURATIONS, CannotBuildError
from benchmarks.cpu.peers.process import Worker, WorkerDiedError
from benchmarks.cpu.peers.report import markdown

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def checkout_of(name: str, folder: Path, text: str = "") -> str:
    """The ``NAME=CHECKOUT`` of a folder that has the file which the adapter looks for."""
    path = folder / name / PEERS[name].FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return f"{name}={folder / name}"


def test_arguments_are_checked_before_anything_runs(tmp_path, capsys):
    good = checkout_of("officium", tmp_path)
    (tmp_path / "other.json").write_text('{"machine": {}}')
    for arguments, expected in (
        (
            [],
            "give at least one --peer NAME=CHECKOUT; there are adapters for officium, yl-1993, fabio-deep, sr-capsnet",
        ),
        ([f"--peer=someone={tmp_path}"], "'someone'; there are adapters for officium, yl-1993, fabio-deep, sr-capsnet"),
        (["--peer=officium"], "expected officium=CHECKOUT"),
        ([f"--peer=yl-1993={tmp_path / 'nowhere'}"], "git clone https://github.com/yl-1993/Matrix-Capsules-EM-PyTorch"),
        ([f"--peer=yl-1993={tmp_path}"], "has no file model/capsules.py"),
        ([f"--peer={good}", f"--peer={good}"], "one checkout for each peer"),
        ([f"--peer={good}", "--batch=0"], "whole number of at least 1; got '0'"),
        ([f"--peer={good}", "--seconds=inf"], "0 or more; got 'inf'"),
        ([f"--peer={good}", "--configuration=large"], "invalid choice: 'large'"),
        ([f"--peer={good}", f"--output={tmp_path / 'other.json'}"], "cannot make the folder"),
        ([f"--markdown={tmp_path / 'none.json'}"], "No such file"),
        ([f"--markdown={tmp_path / 'other.json'}"], "it is no record of this script"),
    ):
        with pytest.raises(SystemExit) as stopped:
            compare.main(arguments)
        assert stopped.value.code == 2, arguments
        assert expected in capsys.readouterr().err, arguments


def test_a_worker_answers_until_it_dies():
    network = matcaps.create_model("paper-small")
    with Worker() as worker:
        request = {"contender": "matcaps", "checkout": None, "configuration": "paper-small", "batch": 1, "threads": 1}
        answer = worker.ask(do="check", **request)
        assert answer["parameters"] == sum(x.numel() for x in network.parameters())
        assert answer["without_gradient"] == []
        assert answer["seconds"] > 0
        answer = worker.ask(do="step")
        assert answer["seconds"] > 0
        assert math.isfinite(answer["loss"])
        assert answer["peak_mib"] is None or 0 <= answer["peak_mib"] < 1000
        assert worker.ask(do="rest") == {}
        with pytest.raises(WorkerDiedError, match="no such request") as died:
            worker.ask(do="dance")
        assert any("Traceback" in line for line in died.value.last_lines)
        with pytest.raises(WorkerDiedError, match="no such request"):
            worker.ask(do="rest")


def test_a_broken_checkout_does_not_stop_the_others(tmp_path, capsys):
    broken = checkout_of("officium", tmp_path, 'print("hello")\nopen("/there/is/nothing.here")\n')
    small = ["--configuration=paper-small", "--batch=1", "--rounds=1", "--seconds=0", "--min-steps=1", "--threads=1"]
    assert compare.main([f"--peer={broken}", *small, f"--output={tmp_path / 'results'}"]) == 1
    printed = capsys.readouterr()
    assert 'open("/there/is/nothing.here")' in printed.err  # whoever runs it sees the end of the traceback

    (path,) = (tmp_path / "results").iterdir()
    assert str(path) in printed.out
    record = json.loads(path.read_text())
    rows = record["cases"][0]["rows"]
    assert rows["matcaps"]["state"] == "timed"
    assert rows["matcaps"]["steps"] == rows["matcaps"]["ratio_to_ours"] == 1
    assert rows["matcaps"]["ratio_to_fastest_peer"] is None
    reason = "FileNotFoundError: [Errno 2] No such file or directory: 'nothing.here'"
    assert rows["officium"] == {"state": "failed", "reason": reason}
    assert record["peers"]["officium"] == {"repository": PEERS["officium"].REPOSITORY, "commit": NO_COMMIT}
    for folder in (tmp_path, Path.home(), compare.ROOT):
        assert str(folder) not in path.read_text()

    assert compare.main([f"--markdown={path}"]) == 0
    assert capsys.readouterr().out in printed.out


class PretendedWorker:
    """Answers every request for ``what`` with the same answer."""

    def __init__(self, what: str, **answer: object):
        self.what, self.answer = what, answer

    def ask(self, **request: object) -> dict:
        return dict(self.answer) if request["do"] == self.what else {}


def test_a_network_that_cannot_be_built_has_a_row_that_says_why(tmp_path):
    with pytest.raises(CannotBuildError, match="got batch 1, needs at least 2") as error:
        PEERS["fabio-deep"].build(tmp_path, CONFIGURATIONS["tutorial"], 1)
    ours, peer = (
        turns.Entry("matcaps", PretendedWorker("step", seconds=2.0, loss=1.0, peak_mib=None)),
        turns.Entry("fabio-deep", PretendedWorker("check", cannot=str(error.value))),
    )
    ours.row, ours.expected_seconds = {"state": "timed"}, 2.0
    peer.check(batch=1)
    for entry in (ours, peer):
        entry.turn(1, seconds=0)
    rows = turns.summary([ours, peer])
    assert rows["fabio-deep"] == {"state": "cannot be built", "reason": str(error.value)}
    assert rows["matcaps"]["median"] == 2.0


@pytest.mark.parametrize(
    ("step", "rounds", "expected"),
    [(100.0, 5, [1, 2, 2, 3, 3]), (100.0, 1, [3]), (100.0, 2, [2, 3]), (4.0, 3, [2, 4, 6])],
)
def test_slow_contenders_take_the_fewest_steps_and_fast_ones_fill_their_turn(step, rounds, expected):
    entry = turns.Entry("matcaps", PretendedWorker("step", seconds=step, loss=1.0, peak_mib=None))
    entry.row, entry.expected_seconds, taken = {"state": "timed"}, step, []
    for done in range(1, rounds + 1):
        entry.turn(math.ceil(3 * done / rounds), seconds=10.0)
        taken.append(len(entry.seconds))
    assert taken == expected


def test_markdown_of_a_record():
    def timed(median: float, steps: int, ours: float, fastest: float, peak: float | None) -> dict:
        return {
            "state": "timed",
            "parameters": 68754,
            "without_gradient": ["stem.bias"] if ours > 1 else [],
            "loss": None if ours > 1 else 0.5,
            "peak_mib": peak,
            "median": median,
            "quartile_1": median * 0.8,
            "quartile_3": median * 1.2,
            "steps": steps,
            "ratio_to_ours": ours,
            "ratio_to_fastest_peer": fastest,
        }

    record = {
        "machine": {"cpu": "abacus", "cores": 2, "threads": 1, "torch": "2.13.0", "commit": COMMIT, "date": "today"},
        "settings": {"batch": 24},
        "peers": {"officium": {"commit": f"{COMMIT}+changes"}, "yl-1993": {"commit": NO_COMMIT}},
        "cases": [
            {
                "configuration": asdict(CONFIGURATIONS["paper-small"]),
                "rows": {
                    "matcaps": timed(0.125, 80, 1.0, 0.03125, None),
                    "officium": timed(4.0, 3, 32.0, 1.0, 1234.5),
                    "yl-1993": {"state": "failed", "reason": "killed by SIGKILL | perhaps"},
                },
            }
        ],
    }
    text = markdown(record)
    lines = [" ".join(line.split()) for line in text.splitlines()]  # without the padding
    assert "`paper-small`: A=64, B=8, C=16, D=16, images 2×32×32, 5 classes, batch 24, 3 iterations" in lines
    assert "| matcaps | 0.125 s | 0.100 to 0.150 s | 1.00 | 0.0312 | | 80 | 68,754 |" in lines
    assert "| officium | 4.00 s | 3.20 to 4.80 s | 32.0 | 1.00 | 1,234 MiB | 3 | 68,754 |" in lines
    assert "| yl-1993 | failed: killed by SIGKILL \\| perhaps | | | | | | |" in lines
    assert "In paper-small no gradient reaches stem.bias." in lines
    assert "In paper-small its loss is not finite after 3 steps." in lines
    assert "- officium (0123456+changes): " in text
    assert f"- yl-1993 ({NO_COMMIT}): " in text
    assert "abacus, 2 cores, threads: 1, torch 2.13.0, matcaps 0123456, today." in text


def test_paths_of_this_machine_stay_out_of_records():
    checkouts = {"officium": Path("/home/me/my checkouts/Capsules")}
    for text, expected in (
        ('File "/usr/lib/python3/torch.py", line 3', 'File "torch.py", line 3'),
        ("no file /home/me/my checkouts/Capsules/src/a.py", "no file officium/src/a.py"),
        ("at C:\\Users\\me\\a.dll", "at a.dll"),
        ("https://github.com/Officium/Capsules, 1/16 of n/a", "https://github.com/Officium/Capsules, 1/16 of n/a"),
    ):
        assert compare.without_paths({"x": [text]}, checkouts) == {"x": [expected]}


def test_the_commit_of_a_checkout(tmp_path):
    def git(*arguments: str) -> None:
        person = ["-c", "user.name=me", "-c", "user.email=me@localhost", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *person, *arguments], check=True, capture_output=True)

    assert commit_of(tmp_path) == NO_COMMIT
    git("init")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1\n")
    git("add", ".")
    git("commit", "-m", "one")
    clean = commit_of(tmp_path)
    assert len(clean) == 40
    (tmp_path / "notes.txt").write_text("not what runs\n")
    git("rm", "--cached", "src/a.py")
    assert commit_of(tmp_path) == clean, "the user's index does not matter"
    (tmp_path / "src" / "a.py").write_text("2\n")
    assert commit_of(tmp_path) == f"{clean}+changes"
    assert commit_of(tmp_path / "src") == NO_COMMIT
