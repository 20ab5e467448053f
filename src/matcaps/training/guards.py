"""What stands around a training: signals, the processes that it started, and words that do not apply."""

import logging
import signal
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as lightning

from matcaps.training.stopping import StoppedBySignal, StopRequest

_LAST_WORDS = 3.0
"""Seconds that the other processes of a training have to end by themselves; they write nothing."""


@contextmanager
def stoppable(folder: Path) -> Iterator[StopRequest]:
    """Make whatever a signal has led to one :class:`StoppedBySignal` that names the run's folder."""
    request = StopRequest()
    try:
        with request, _interruptible():
            yield request
    except BaseException as error:
        if request.number is None:
            raise
        raise StoppedBySignal(request.number, folder) from error
    if request.number is not None:
        raise StoppedBySignal(request.number, folder)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl+C be a KeyboardInterrupt; Lightning makes an exit of it, and has the process ignore the next one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as leaving:
        if not isinstance(leaving.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from leaving


@contextmanager
def processes_end(trainer: lightning.Trainer, request: StopRequest) -> Iterator[None]:
    """Where the training ends before its time, see to the end of the processes that Lightning started for it."""
    try:
        yield
    except BaseException:
        processes: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        ending = [*processes]
        processes.clear()  # Lightning kills this process when it sees how one of them ended
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
    """Silence the hints of Lightning that do not apply here, and what a thread would say a second time."""
    logger = logging.getLogger("lightning.pytorch")
    level, show = logger.level, threading.excepthook
    logger.setLevel(logging.WARNING)

    def show_other(failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, OSError):  # TensorBoard's writer; the training meets it at its next word
            show(failure)

    threading.excepthook = show_other
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*LeafSpec.*",
            ".*isinstance\\(treespec.*",
            ".*exists and is not empty.*",
            ".*You defined a `validation_step` but have no `val_dataloader`.*",
            ".*GPU available but not used.*",
            ".*It is recommended to use `self.log\\(.*sync_dist=True.*",  # what is watched is the same everywhere
            ".*your dataloader is not resumable.*",  # its sampler is: ExactResume
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            logger.setLevel(level)
            threading.excepthook = show
