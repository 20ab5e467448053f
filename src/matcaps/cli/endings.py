"""How a command ends where something went wrong: one line for people, and a status for programs."""

import contextlib
import errno
import os
import shlex
import sys

from matcaps.cli.parsing import PLAIN, err
from matcaps.data.names import short_name
from matcaps.training.stopping import StoppedBySignal

_FULL = (errno.ENOSPC, errno.EDQUOT)
LONGEST = 1000
"""Characters of a line about what went wrong; a message may repeat what a damaged file holds."""

_OF_WRITING = (*_FULL, errno.EPIPE, errno.EIO, errno.EFBIG)


def say_stopped(command: str, stop: KeyboardInterrupt) -> int:
    """Say that a signal ended the work, and how it goes on; return the status. One process of several speaks."""
    signalled = isinstance(stop, StoppedBySignal)
    hint = {
        "experiment": "; the same command goes on with it",
        "data": "; the same command goes on with a download",
        "train": "; if a run folder was printed above, it goes on with: matcaps train --resume and that folder",
    }.get(command, "")
    if command == "train" and signalled and stop.folder is not None:
        hint = f"; it goes on with: matcaps train --resume {shlex.quote(str(stop.folder))}"
    name = stop.name if signalled and stop.name != "SIGINT" else "Ctrl+C"
    if os.environ.get("LOCAL_RANK", "0") == "0":
        complain(f"matcaps {command}: stopped by {name}{hint}")
    return stop.status if signalled else 130


def say_failed(command: str, error: Exception) -> int:
    """Say what went wrong in one line; return the status."""
    complain(f"matcaps {command}: {describe_failure(command, error)}")
    return 1


def complain(line: str) -> None:
    """Say it where there is still somebody to hear: a terminal that was closed, or a full disk, takes no word."""
    with contextlib.suppress(OSError):
        err.print(line, **PLAIN)
    try:
        sys.stdout.flush()
    except OSError:  # give up what it did not take; else the interpreter would complain of it once more at its end
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe_failure(command: str, error: Exception) -> str:
    """What went wrong, in one printable line; of a very long one, its beginning and its end."""
    if not isinstance(error, OSError) or not error.strerror:
        return short_name(" ".join(str(error).split()), LONGEST)  # a YAML error has eight lines
    if error.filename is not None:
        where = f"{os.fsdecode(error.filename)}: "
    else:  # the files of a run, and all that is written whole, have their names
        where = "standard output: " if error.errno in _OF_WRITING else ""
    hint = ""
    if error.errno in _FULL:
        hint = ": make room" + (", then matcaps train --resume goes on with the run" if command == "train" else "")
    return f"{where}{error.strerror}{hint}"
