"""Readers that do what none may, to see that the fuzzer catches it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.fuzz.reader import Reader


def _traceback(path: Path) -> None:
    {}[path.read_bytes()]


def _slow(path: Path) -> None:
    time.sleep(2.5)


def _hungry(path: Path) -> None:
    assert b"x" * (
        150 << 20
    )  # too much where 100 are allowed: a virtual machine takes half a minute to give a gigabyte


def _runs_code(path: Path) -> None:
    os.system("true")


def _writes(path: Path) -> None:
    Path("build/fuzz-planted").write_bytes(b"")


def _says_nothing(path: Path) -> None:
    raise ValueError


def _planted(fault: Callable[[Path], None]) -> Callable[[], Reader]:
    def read(path: Path) -> None:
        if path.read_bytes() != b"whole":
            fault(path)

    return lambda: Reader(read, [b"whole"], "file")


WORDS = {
    "planted-traceback": "KeyError",
    "planted-slow": "NotRefusedError: takes 2.",
    "planted-hungry": "NotRefusedError: takes 15",
    "planted-code": "os.system",
    "planted-writes": "for writing",
    "planted-silence": "no line to show",
}
"""What is said of each."""

_FAULTS = (_traceback, _slow, _hungry, _runs_code, _writes, _says_nothing)
PLANTED = {name: _planted(fault) for name, fault in zip(WORDS, _FAULTS, strict=True)}
"""By name; each reads the file "whole" and misbehaves at any other."""
