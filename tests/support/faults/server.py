"""Runs commands in forks of a process that has imported everything and has the shim preloaded.

It reads a job a line from standard input, as JSON, and answers each with the status it ended with.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests.support.faults.shim import FAULTS, arm, compile_shim
from tests.support.warm import stand_alone

_IMPORTED = (
    "matcaps.training.run",
    "matcaps.cli.train",
    "matcaps.report",
    "matcaps.inspect",
    "matcaps.inspect.run",
    "matcaps.inference.prediction",
    "matcaps.inference.exporting",
    "matcaps.experiments.runner",
    "matcaps.experiments.fold_records",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "jsonargparse",
    "lightning.fabric",
    "optuna",
    "onnxscript",
    "onnxruntime",
)
_SECONDS = 300


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status, below 0 that of a signal.
        output: what it printed.
        errors: what it complained of.
        calls: the calls that could fail, in order: a number, a name and a path within the folder, and " !" if it did.
    """

    status: int
    output: str
    errors: str
    calls: list[str]


class Server:
    """Starts commands, one at a time."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="matcaps-faults-")
        environment = os.environ | {
            "LD_PRELOAD": str(compile_shim(Path(self._place.name))),
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
        }
        command = [sys.executable, "-m", "tests.support.faults.server"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._place.cleanup()

    def run(self, arguments: list[str], place: Path, fault: str | None = None, number: int = 0) -> Ended:
        """Run ``matcaps`` with arguments, in a folder, whose subfolder ``run`` is the one with the fault.

        Args:
            arguments: of the command; "python" first: the name of a function in :mod:`tests.support.faults.programs`.
            place: where it runs; what it prints goes to ``out.txt`` and ``err.txt`` there.
            fault: of :data:`FAULTS`.
            number: which call meets it, from 1; 0: none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, str(place), fault, number]) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        printed = [(place / name).read_text(encoding="utf-8", errors="replace") for name in ("out.txt", "err.txt")]
        log = place / "calls.txt"
        return Ended(status, *printed, log.read_text().splitlines() if fault is not None else [])


def _begin(arguments: list[str], place: Path, fault: str | None, number: int) -> None:
    stand_alone(place)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["matcaps", *arguments]
    if fault is not None:
        arm(place / "run", FAULTS[fault], number, place / "calls.txt")


def _end(status: int) -> None:
    """What the interpreter does at its end, but for taking every module apart, which takes longer than the command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # what is forgotten open complains now
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _main() -> None:
    from matcaps.cli import main
    from tests.support.faults import programs

    for name in _IMPORTED:
        import_module(name)
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        arguments, place, fault, number = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _begin(arguments, Path(place), fault, number)
            try:
                status = getattr(programs, arguments[1])() if arguments[0] == "python" else main(arguments)
            except BaseException:
                traceback.print_exc()
                status = 1
            _end(status)
        deadline = time.monotonic() + _SECONDS
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.005)
        answers.write(f"{os.waitstatus_to_exitcode(ended[1])}\n")
        answers.flush()


if __name__ == "__main__":
    _main()
