"""The command in processes that have everything imported: they start in no time, and can be stopped and killed.

Imports are most of what a small training costs. One process does them, and each process of the command is a fork of it,
which has run nothing yet. What a command's own start does is for the tests that start ``python -m matcaps.cli``.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")


class WarmCommand:
    """``matcaps`` with some arguments, in a process and a session of its own.

    Args:
        arguments: of the command.
        folder: where it runs; what it prints goes to ``out.txt`` and ``err.txt`` there.
        prepare: called in the process first; a function of a module.
    """

    def __init__(self, *arguments: str, folder: Path, prepare: Callable[[], None] | None = None):
        _CONTEXT.set_forkserver_preload(["matcaps.training.run", "matcaps.cli.train", "matcaps.report", __name__])
        self.folder = folder
        self._process = _CONTEXT.Process(target=_run, args=(arguments, str(folder), prepare))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The status with which it ended, below 0 that of a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for its end; return its status."""
        self._process.join(timeout)
        status = self._process.exitcode
        assert status is not None, f"it runs for more than {timeout} s: {self.errors}"
        return status

    def kill(self, number: int) -> None:
        """Send it and all that it started a signal."""
        os.killpg(self.pid, number)

    @property
    def errors(self) -> str:
        """What it complained of."""
        return (self.folder / "err.txt").read_text(encoding="utf-8")


def stand_alone(folder: str | os.PathLike[str]) -> None:
    """Make this forked process a session of its own, in a folder to whose ``out.txt`` and ``err.txt`` it prints."""
    os.setsid()
    os.chdir(folder)
    for name, number in (("out.txt", 1), ("err.txt", 2)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(file, number)
        os.close(file)


def _run(arguments: tuple[str, ...], folder: str, prepare: Callable[[], None] | None) -> None:
    stand_alone(folder)
    sys.argv = ["matcaps", *arguments]
    if prepare is not None:
        prepare()
    from matcaps.cli import main

    status = main([*arguments])
    sys.stdout.flush()
    sys.exit(status)
