"""What stands around a training: signals, the processes that it started, and words that do not apply."""

import logging
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric import Fabric

from matcaps.training.stopping import StoppedBySignal, StopRequest

_LAST_WORDS = 3.0
"""Seconds that the other processes of a training have to end by themselves; they write nothing."""


@contextmanager
def stoppable(folder: Path) -> Iterator[StopRequest]:
    """Make whatever a signal has led to one :class:`StoppedBySignal` that names the run's folder."""
    request = StopRequest()
    try:
        with request:
            yield request
    except BaseException as error:
        if request.number is None:
            raise
        raise StoppedBySignal(request.number, folder) from error
    if request.number is not None:
        raise StoppedBySignal(request.number, folder)


@contextmanager
def processes_end(fabric: Fabric, request: StopRequest) -> Iterator[None]:
    """Where the training ends before its time, see to the end of the processes that Fabric started for it."""
    try:
        yield
    except BaseException:
        processes: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
        ending = [*processes]
        processes.clear()  # Fabric kills this process when it sees how one of them ended
        for process in ending:
            process.send_signal(request.number or signal.SIGTERM)
        for process in ending:
            try:
                process.wait(_LAST_WORDS)
            except subprocess.TimeoutExpired:
                process.kill()
        raise


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what a thread would say a second time, and Fabric's words on how many processes there are."""
    logger = logging.getLogger("lightning.fabric")
    level, show = logger.level, threading.excepthook
    logger.setLevel(logging.WARNING)

    def show_other(failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, OSError):  # TensorBoard's writer; the training meets it at its next word
            show(failure)

    threading.excepthook = show_other
    try:
        yield
    finally:
        logger.setLevel(level)
        threading.excepthook = show
