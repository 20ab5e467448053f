"""How a command ends after an error: one line for people, and a status for programs."""

import contextlib
import errno
import os
import shlex
import sys

from matcaps.cli.parsing import PLAIN, err
from matcaps.data.names import short_name
from matcaps.training.stopping import StoppedBySignal

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f)",
    errno.EROFS: "make the file system writable, or choose another folder",
    errno.EIO: "see whether the disk, or the connection to it, has failed",
    errno.EINTR: "try again",
}
"""What helps, by the number of the system's error."""

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EPIPE, errno.EIO, errno.EFBIG)
LONGEST = 1000
"""Characters of a line about what went wrong; a message may repeat what a damaged file holds."""


def report_stopped(command: str, stop: KeyboardInterrupt) -> int:
    """Print that a signal ended the work, and how to continue; return the status. Only one of several processes
    prints.
    """
    signalled = isinstance(stop, StoppedBySignal)
    hint = {
        "experiment": "; the same command continues it",
        "data": "; the same command continues a download",
        "train": "; if a run folder was printed above, continue it with: matcaps train --resume and that folder",
    }.get(command, "")
    if command == "train" and signalled and stop.folder is not None:
        hint = f"; continue it with: matcaps train --resume {shlex.quote(str(stop.folder))}"
    name = stop.name if signalled and stop.name != "SIGINT" else "Ctrl+C"
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print_error(f"matcaps {command}: stopped by {name}{hint}")
    return stop.status if signalled else 130


def report_failed(command: str, error: Exception) -> int:
    """Print an error in one line; return the status."""
    print_error(f"matcaps {command}: {describe_failure(command, error)}")
    return 1


def print_error(line: str) -> None:
    """Print a line on standard error if possible: it may be a closed terminal or a file on a full disk."""
    with contextlib.suppress(OSError):
        err.print(line, **PLAIN)
    try:
        sys.stdout.flush()
    except OSError:  # discard the rest; otherwise the interpreter would report the error again at exit
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe_failure(command: str, error: Exception) -> str:
    """What went wrong, in one printable line; of a very long one, its beginning and its end."""
    if not isinstance(error, OSError) or not error.strerror:
        return short_name(" ".join(str(error).split()), LONGEST)  # a YAML error has eight lines
    if error.filename is not None:
        where = f"{os.fsdecode(error.filename)}: "
    else:
        where = "standard output: " if error.errno in _OF_WRITING and _is_of_printing(error) else ""
    hint = _ADVICE.get(error.errno or 0, "")
    if hint:
        hint += {
            "train": ", then continue the run with matcaps train --resume",
            "experiment": ", then give the same command again to continue",
        }.get(command, "")
    return f"{where}{error.strerror}{hint and f': {hint}'}"


def _is_of_printing(error: BaseException) -> bool:
    """Whether an error without a path came of printing; those about files that are read or written have one."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return module.split(".")[0] in ("rich", "argparse") or module.startswith("matcaps.cli")
