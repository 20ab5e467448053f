"""What the fuzzer tries; without an import of what is tried."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Mutation = Callable[[bytes, random.Random, Callable[[bytes], bytes]], bytes]
"""From a file, chance and a mutation of plain bytes to another file; an exception where the form is lost."""


@dataclass(frozen=True)
class Reader:
    """A reader and whole files that it reads.

    Attributes:
        read: reads the file at this path, which stands where it would in a user's folder.
        files: to begin from; the first is read without an error.
        name: the file's.
        mutation: one that keeps the files' form; None: bytes alone are changed.
    """

    read: Callable[[Path], object]
    files: list[bytes]
    name: str
    mutation: Mutation | None = None
