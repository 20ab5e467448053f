"""The preloaded library that makes calls fail: compiled here, and told what to do by the process that it is in."""

import ctypes
import errno
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")

_KINDS = 14
LOOK, OPEN, READ, CREATE, WRITE, SYNC, RENAME, CLOSE, MAKE, REMOVE, RESIZE, CHANGE, LOCK, LIST = (
    1 << bit for bit in range(_KINDS)
)
_NOT_A_LOOK = ((1 << _KINDS) - 1) & ~LOOK
SHORT = -1


@dataclass(frozen=True)
class Fault:
    """What a call comes back with.

    Attributes:
        error: the number of the error; :data:`SHORT`: only half is read or written.
        calls: the kinds of calls that it can happen to, as bits.
        lasting: whether all later such calls meet it too, as on a full disk; otherwise one call does.
        harmless: whether the command must go on as if nothing had been.
    """

    error: int
    calls: int
    lasting: bool = False
    harmless: bool = False


_OF_A_FULL_DISK = CREATE | WRITE | SYNC | RENAME | CLOSE | MAKE | RESIZE
_OF_WRITING = CREATE | WRITE | SYNC | RENAME | MAKE | REMOVE | RESIZE | CHANGE
FAULTS = {
    "ENOSPC": Fault(errno.ENOSPC, _OF_A_FULL_DISK),
    "ENOSPC from then on": Fault(errno.ENOSPC, _OF_A_FULL_DISK, lasting=True),
    "EIO": Fault(errno.EIO, _NOT_A_LOOK),
    "EIO from then on": Fault(errno.EIO, _NOT_A_LOOK, lasting=True),
    "EIO of a look": Fault(errno.EIO, LOOK),
    "EROFS": Fault(errno.EROFS, _OF_WRITING),
    "EROFS from then on": Fault(errno.EROFS, _OF_WRITING, lasting=True),
    "EINTR": Fault(errno.EINTR, OPEN | READ | CREATE | WRITE | SYNC | RESIZE | LOCK, harmless=True),
    # Python takes this for an error, since the file is closed all the same; of Linux's file systems only some give it
    "EINTR of a close": Fault(errno.EINTR, CLOSE),
    "short": Fault(SHORT, READ | WRITE, harmless=True),
}


def compile_shim(folder: Path) -> Path:
    """The library, in a folder; ``LD_PRELOAD`` names it."""
    library = folder / "shim.so"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return library


def arm(folder: Path, fault: Fault, number: int, log: Path) -> None:
    """Have the n-th call about a folder of this process meet a fault; 0: none does.

    The calls of the fault's kinds are noted in ``log``, outside the folder, and marked where they fail.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    faults_arm = ctypes.CDLL(None).faults_arm  # of the library that was preloaded
    faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, *[ctypes.c_int] * 3]
    faults_arm.restype = None
    faults_arm(os.fsencode(folder.resolve()), fault.calls, number, fault.error, fault.lasting, handle)
