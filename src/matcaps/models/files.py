"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give an empty file to write to instead; at every moment the old one or the new one is there, and on the disk.

    If the writing fails, or the process is killed, the old file stays and what was written is left beside it.

    Args:
        path: the file to make or to replace, in a folder that exists.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.touch()
    permissions = partial.stat().st_mode  # as the process's umask has them
    yield partial
    os.chmod(partial, permissions)  # safetensors makes files that only their owner may read
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(partial, path)
