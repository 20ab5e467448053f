"""Files that are written completely or not at all."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from matcaps._paths import named_errors

MOST_NESTED = 100
"""Objects and lists within each other in a file of JSON or YAML; what walks through them would fail at some depth."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give an empty temporary file to write to, which then replaces ``path``: at any time the old or the new file
    exists.

    If writing fails, the old file stays and the temporary file is removed; if the process is killed, the temporary file
    is left beside it. Write through Python's own files: other writers may not report that a disk is full.

    Args:
        path: the file to make or to replace, in a folder that exists.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; the error always has a path.
    """
    partial = path.with_name(path.name + ".partial")
    with named_errors(path):
        try:
            partial.unlink(missing_ok=True)
            partial.touch()
            permissions = partial.stat().st_mode  # those of the process's umask
            yield partial
            os.chmod(partial, permissions)  # some writers make files that only their owner may read
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def put_back(path: Path) -> Iterator[None]:
    """If the block fails, restore the file that was there, or remove the one that was not: for files that only fit
    each other.
    """
    with named_errors(path):
        before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            if before is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != before:
                with whole_file(path) as partial:
                    partial.write_bytes(before)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read an object of JSON.

    Raises:
        OSError: it cannot be read; the error always has a path.
        ValueError: it is not JSON or no object, or :func:`check_plain` refuses it.
    """
    try:
        with named_errors(path):
            values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also a number of thousands of digits, which Python does not convert
        raise ValueError(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise _too_deep(path) from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold an object; got {type(values).__name__}")
    check_plain(path, values)
    return values


def check_plain(path: Path, values: Any) -> None:
    """Refuse what Python can hold, but little can be done with.

    Raises:
        ValueError: values of a file are nested more than :data:`MOST_NESTED` deep, or a whole number in it has more
            than 64 bits, which neither a tensor nor, at 1,024, a float can hold.
    """
    level: list[Any] = [values]
    for _ in range(MOST_NESTED):
        for one in level:
            if isinstance(one, int) and not -(1 << 63) <= one < 1 << 64:
                raise ValueError(f"{path} must have whole numbers of at most 64 bits; got one of {one.bit_length():,}")
        level = [one for outer in level for one in _inside(outer)]
    if level:
        raise _too_deep(path)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep(path: Path) -> ValueError:
    return ValueError(f"{path} must nest at most {MOST_NESTED} deep: it is damaged, or not what it is taken for")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with named_errors(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
