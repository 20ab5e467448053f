"""Fuzz one reader in this process: ``python -m tests.support.fuzz.one READER FOLDER [libFuzzer's options]``."""

import contextlib
import os
import random
import sys
import tempfile
import types
import warnings
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["PIL", "yaml"]):
    import PIL.Image
    import yaml  # noqa: F401

    PIL.Image.init()

from matcaps.cli.endings import LONGEST, describe_failure
from matcaps.data.names import printable
from tests.support.fuzz.planted import PLANTED
from tests.support.fuzz.readers import readers

COUNTS_NAME = "counts"
"""In the folder: how many files were tried, and how many of them were read; two int64."""

REFUSED = (ValueError, OSError, TypeError)
"""What the command line says in one line; any other exception would be a traceback."""

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "ctypes.dlopen")
"""Audit events of code that a file has no business to run; https://docs.python.org/3/library/audit_events.html."""


class NotRefusedError(Exception):
    """A file did what none may."""


def instrument(package: str) -> None:
    """Let Atheris see which lines of a package run; its import hook does not see a package installed as editable."""
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == package]
    owners = [*modules, *(one for module in modules for one in vars(module).values() if isinstance(one, type))]
    for owner in owners:
        for one in list(vars(owner).values()):
            if isinstance(one, types.FunctionType) and one.__module__.split(".")[0] == package:
                atheris.instrument_func(one)


def main(name: str, folder: Path, options: list[str]) -> None:
    """Fuzz until libFuzzer's options say enough; the first fault ends the process, and its file stays in the folder."""
    here = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    warnings.simplefilter("ignore")
    reader = (readers(here) | PLANTED)[name]()
    path = here / reader.name
    path.write_bytes(reader.files[0])
    reader.read(path)  # imports what it needs, and shows that a whole file is read
    instrument("matcaps")
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(reader.files):
        (corpus / f"whole-{number}").write_bytes(content)
    reading = False
    counts = np.memmap(folder / COUNTS_NAME, np.int64, "w+", shape=2)  # libFuzzer ends the process without a word to it

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if not reading:
            return
        if event in FORBIDDEN:
            raise NotRefusedError(f"{event} {arguments}")
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and not isinstance(arguments[0], int) and not str(arguments[0]).startswith((str(here), os.devnull)):
            raise NotRefusedError(f"opens {arguments[0]} for writing")

    sys.addaudithook(watch)

    def try_one(content: bytes) -> None:
        nonlocal reading
        path.write_bytes(content)
        reading = True
        try:
            with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
                reader.read(path)
        except REFUSED as error:
            line = describe_failure("eval", error)
            if line != printable(line).replace("\n", " ") or not 0 < len(line) <= LONGEST:
                raise NotRefusedError(f"no line to show: {line!r}") from error
        else:
            counts[1] += 1
        finally:
            counts[0] += 1
            reading = False

    def mutate(content: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if reader.mutation is not None and chance.random() < 0.7:
            with contextlib.suppress(Exception):  # the form is lost already
                changed = reader.mutation(content, chance, lambda part: atheris.Mutate(part, len(part) + 64))
                if len(changed) <= longest:
                    return changed
        return atheris.Mutate(content, longest)

    arguments = [sys.argv[0], str(corpus), f"-artifact_prefix={folder}/", *options]
    atheris.Setup(arguments, try_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
