"""Paths as people write them, and named in the errors about them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` and ``~user`` replaced by the home folder they stand for.

    A shell does this only for a ``~`` that begins a word: not in ``--output=~/runs``, in a YAML file or in Python.
    Every path that a user gives goes through here.

    Args:
        path: as it was given.

    Raises:
        ValueError: there is no such user, or no home folder.

    Example:
        >>> user_path("runs/one").as_posix()
        'runs/one'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path} begins with the name of a user whose home folder is not known: write the whole path, or ./{path} "
            "for what is called so here"
        ) from error


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Add a path to system errors without one, such as those from reading or writing an open file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
