"""Fuzz a reader in this process: ``python -m tests.support.fuzz.one READER FOLDER MEGABYTES [libFuzzer options]``."""

import contextlib
import os
import random
import resource
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

import atheris
import numpy as np

from matcaps.cli.endings import LONGEST, describe_failure
from matcaps.data.names import printable
from tests.support.fuzz.planted import PLANTED
from tests.support.fuzz.reader import Reader

COUNTS_NAME = "counts"
"""In the folder: how many files were tried, and how many of them were read; two int64."""

REFUSED = (ValueError, OSError, TypeError)
"""What the command line says in one line; any other exception would be a traceback."""

FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "pty.spawn", "subprocess.Popen"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "ctypes.dlopen", "pickle.find_class", "marshal.loads"),
)
"""Audit events of code that a file has no business to run; https://docs.python.org/3/library/audit_events.html."""

OF_ITS_FOLDER = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate"),
)
"""Audit events of changes that are for the reader's own folder alone, as the cache of kernels makes them."""


SECONDS = 2
"""What it may take at most, the time not counted in which the processor worked for others."""


FROM_WHOLE = 0.4
"""How often a whole file is mutated, not one that was mutated before and is mostly refused for that already."""


class NotRefusedError(Exception):
    """A file did what none may."""


def seconds_waited() -> float:
    """For how long this thread has waited for a processor, since its beginning."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


class Costs:
    """What the block took, memory at its peak and time; more than any file may take raises :exc:`NotRefusedError`.

    Args:
        megabytes: at most, above what the process held before.
    """

    def __init__(self, megabytes: int):
        self._megabytes = megabytes

    def __enter__(self) -> None:
        with open("/proc/self/clear_refs", "w") as peak:  # Linux forgets the highest so far
            peak.write("5")
        self._memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._waited, self._began = seconds_waited(), time.monotonic()

    def __exit__(self, *_: object) -> None:
        seconds = time.monotonic() - self._began
        megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._memory) >> 10
        if megabytes > self._megabytes:
            raise NotRefusedError(f"takes {megabytes:,} MB")
        if seconds > SECONDS and (seconds := seconds - (seconds_waited() - self._waited)) > SECONDS:
            raise NotRefusedError(f"takes {seconds:.1f} s")


def instrument(package: str) -> None:
    """Let Atheris see which lines of a package run; its import hook does not see a package installed as editable."""
    modules = [module for name, module in sys.modules.items() if f"{name}.".startswith(f"{package}.")]
    owners = [*modules, *(one for module in modules for one in vars(module).values() if isinstance(one, type))]
    for owner in owners:
        for one in list(vars(owner).values()):
            if isinstance(one, types.FunctionType) and f"{one.__module__}.".startswith(f"{package}."):
                atheris.instrument_func(one)


def make_reader(name: str, folder: Path) -> Reader:
    """A reader, with Pillow's Python seen by Atheris."""
    with atheris.instrument_imports(include=["PIL"]):
        import PIL.Image

        PIL.Image.init()
    from tests.support.fuzz.readers import readers

    return readers(folder)[name]()


def main(name: str, folder: Path, megabytes: int, options: list[str]) -> None:
    """Fuzz until libFuzzer's options say enough; the first fault ends the process, and its file stays in the folder."""
    here = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    warnings.simplefilter("ignore")
    reader = PLANTED[name]() if name in PLANTED else make_reader(name, here)
    path = here / reader.name
    path.write_bytes(reader.files[0])
    reader.read(path)  # imports what it needs, and shows that a whole file is read
    for package in ("matcaps", "torch._weights_only_unpickler"):
        instrument(package)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(reader.files):
        (corpus / f"whole-{number}").write_bytes(content)
    reading = False
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    counts = np.memmap(folder / COUNTS_NAME, np.int64, "w+", shape=2)  # libFuzzer ends the process without a word to it

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if not reading:
            return
        elsewhere = event in OF_ITS_FOLDER and not str(arguments[0]).startswith(str(here))
        if event in FORBIDDEN or elsewhere:
            raise NotRefusedError(f"{event} {arguments}")
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and not isinstance(arguments[0], int) and not str(arguments[0]).startswith((str(here), os.devnull)):
            raise NotRefusedError(f"opens {arguments[0]} for writing")

    sys.addaudithook(watch)

    def try_one(content: bytes) -> None:
        nonlocal reading
        path.write_bytes(content)
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), Costs(megabytes):
                reading = True
                try:
                    reader.read(path)
                finally:
                    reading = False
        except REFUSED as error:
            line = describe_failure("eval", error)
            if line != printable(line).replace("\n", " ") or not 0 < len(line) <= LONGEST:
                raise NotRefusedError(f"no line to show: {line!r}") from error
        else:
            counts[1] += 1
        finally:
            counts[0] += 1

    def mutate(content: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < FROM_WHOLE:
            content = chance.choice(reader.files)
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
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
