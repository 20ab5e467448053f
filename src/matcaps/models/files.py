"""Files that are written completely or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


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
def named_errors(path: Path) -> Iterator[None]:
    """Add a path to system errors without one, such as those from writing to an open file."""
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
