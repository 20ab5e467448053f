"""The near side of a worker: starts the process, asks, and says what it said last when it dies."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]

LAST_LINES = 12


class WorkerDiedError(RuntimeError):
    """A worker has ended instead of answering.

    Attributes:
        reason: how it ended, in a line.
        last_lines: the end of what it wrote to standard error.
    """

    def __init__(self, reason: str, last_lines: list[str]):
        super().__init__("\n".join([reason, *(f"    {line}" for line in last_lines)]))
        self.reason = reason
        self.last_lines = last_lines


class Worker:
    """A process that runs ``benchmarks.cpu.peers.worker``, and a context that ends it."""

    def __init__(self, threads: int | None = None):
        # A file, not a pipe: nobody reads it while the worker writes, and a full pipe would stop the worker.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        threads_of = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cpu.peers.worker"],
            cwd=ROOT,
            env={**os.environ, **threads_of},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            WorkerDiedError: there was none.
        """
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            answer = self._answers.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise self._obituary()
        return json.loads(answer)

    def _obituary(self) -> WorkerDiedError:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()][-LAST_LINES:]
        if status < 0:
            name = signal.Signals(-status).name
            lack = ", perhaps for lack of memory" if name == "SIGKILL" else ""
            return WorkerDiedError(f"killed by {name}{lack}", lines)
        return WorkerDiedError(lines[-1].strip() if lines else f"ended with status {status}, silently", lines)

    def close(self) -> None:
        """End the process; nothing if it has ended."""
        self._process.kill()  # between requests it only waits, and it has nothing to save
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # of what it did not read any more
            self._requests.close()
        self._answers.close()
        self._errors.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
