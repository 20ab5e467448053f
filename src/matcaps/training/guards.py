"""What surrounds a training: signals, the processes that it started, and messages that do not apply."""

import logging
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric import Fabric
from torch.distributed import DistError

from matcaps.training.stopping import StoppedBySignal, StopRequest

_GRACE_SECONDS = 3.0
"""Seconds that a training's other processes have to end by themselves; they write nothing."""


@contextmanager
def stoppable(folder: Path) -> Iterator[StopRequest]:
    """Convert any error after a signal to one :class:`StoppedBySignal` that names the run's folder."""
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
    """If the training ends early, end the processes that Fabric started for it."""
    try:
        yield
    except BaseException:
        processes: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
        ending = [*processes]
        processes.clear()  # otherwise Fabric kills this process when one of them ends
        for process in ending:
            process.send_signal(request.number or signal.SIGTERM)
        for process in ending:
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        raise


class LostProcessError(OSError):
    """Another process of a training ended before its time."""


@contextmanager
def lost_processes_named(fabric: Fabric, folder: Path) -> Iterator[None]:
    """Convert the communication's error to :class:`LostProcessError`, in one line: this process is not at fault."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not (isinstance(error, DistError) or "gloo" in str(error)):
            raise
        raise LostProcessError(
            f"process {fabric.global_rank} of {fabric.world_size} has lost another process of the training, which was "
            "killed or says itself why it ended: continue with the same processes and matcaps train --resume "
            f"{shlex.quote(str(folder))}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence errors that a thread would report a second time, and Fabric's message on the number of processes."""
    logger = logging.getLogger("lightning.fabric")
    level, show = logger.level, threading.excepthook
    logger.setLevel(logging.WARNING)

    def show_other(failure: threading.ExceptHookArgs) -> None:
        if not issubclass(
            failure.exc_type, OSError
        ):  # from TensorBoard's writer; the training gets the error at its next write
            show(failure)

    threading.excepthook = show_other
    try:
        yield
    finally:
        logger.setLevel(level)
        threading.excepthook = show
