"""Readers that do what none may, to see that the fuzzer catches it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.fuzz.readers import Reader


def _traceback(path: Path) -> None:
    {}[path.read_bytes()]


def _slow(path: Path) -> None:
    if path.read_bytes() != b"whole":
        time.sleep(5)


def _hungry(path: Path) -> None:
    if path.read_bytes() != b"whole":
        bytearray(3 << 30)[:: 1 << 12] = b"x" * (3 << 18)


def _runs_code(path: Path) -> None:
    if path.read_bytes() != b"whole":
        os.system("true")


def _writes(path: Path) -> None:
    if path.read_bytes() != b"whole":
        Path("build/fuzz-planted").write_bytes(b"")


def _says_nothing(path: Path) -> None:
    if path.read_bytes() != b"whole":
        raise ValueError


def _whole_or(read: Callable[[Path], None]) -> Callable[[Path], None]:
    def wrapped(path: Path) -> None:
        if path.read_bytes() != b"whole":
            read(path)

    return wrapped


WORDS = {
    "planted-traceback": "KeyError",
    "planted-slow": "timeout",
    "planted-hungry": "out-of-memory",
    "planted-code": "os.system",
    "planted-writes": "for writing",
    "planted-silence": "no line to show",
}
"""What is said of each."""

PLANTED = {
    "planted-traceback": lambda: Reader(_whole_or(_traceback), [b"whole"], "file"),
    "planted-slow": lambda: Reader(_slow, [b"whole"], "file"),
    "planted-hungry": lambda: Reader(_hungry, [b"whole"], "file"),
    "planted-code": lambda: Reader(_runs_code, [b"whole"], "file"),
    "planted-writes": lambda: Reader(_writes, [b"whole"], "file"),
    "planted-silence": lambda: Reader(_says_nothing, [b"whole"], "file"),
}
"""By name; each reads the file "whole" and misbehaves at any other."""
