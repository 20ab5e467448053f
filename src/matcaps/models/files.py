"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give an empty file to write to instead; at every moment the old one or the new one is there, and on the disk.

    If the writing fails, the old file stays and what was written is removed; if the process is killed, that is left
    beside it. Write through Python's own files: other writers do not say that a disk is full.

    Args:
        path: the file to make or to replace, in a folder that exists.

    Raises:
        OSError: it cannot be written: the disk is full, or cannot be written to; always with a path.
    """
    partial = path.with_name(path.name + ".partial")
    with named_errors(path):
        try:
            partial.unlink(missing_ok=True)
            partial.touch()
            permissions = partial.stat().st_mode  # as the process's umask has them
            yield partial
            os.chmod(partial, permissions)  # some writers make files that only their owner may read
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):  # what went wrong first is what matters
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Give a path to the system's errors that have none: writing to an open file fails without one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read an object of JSON.

    Raises:
        ValueError: it is not JSON, or no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold an object; got {type(values).__name__}")
    return values
