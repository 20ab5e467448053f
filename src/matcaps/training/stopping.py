"""Ending at a signal: a training at its next step, with a checkpoint; everything else at once. Free of torch."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)
)  # Windows has no SIGHUP
"""What asks a process to end: kill, Slurm, docker stop and systemd; a terminal that closes; Ctrl+C."""

GRACE = 8.0
"""Seconds that a training has to come to the end of its step, or of its validation; docker stop gives ten."""


class StoppedBySignal(KeyboardInterrupt):
    """A signal ended the work.

    Attributes:
        number: the signal's.
        folder: of the run that can be resumed; None where none had begun.
    """

    def __init__(self, number: int, folder: Path | None = None):
        super().__init__(number)
        self.number = number
        self.folder = folder

    @property
    def name(self) -> str:
        """The signal's name, such as SIGTERM."""
        return signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """What a process that a signal ended returns, by the shells' custom."""
        return 128 + self.number


class Halt(BaseException):
    """Leaves the training loop."""


class StopRequest:
    """Notes that a signal asks a training to end, while it is entered; a second one, or no answer, ends it at once.

    Entered outside the main thread, where Python handles no signals, it notes nothing.

    Args:
        grace: seconds until the end no longer waits for the step.
    """

    def __init__(self, grace: float = GRACE):
        self.number: int | None = None
        self._grace = grace
        self._process = os.getpid()
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "StopRequest":
        self._before = _set_handlers(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        _restore(self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker, which ends with its parent
        if self.number is not None:
            raise Halt
        self.number = number
        self._timer = threading.Timer(self._grace, os.kill, (self._process, number))
        self._timer.daemon = True
        self._timer.start()


@contextmanager
def signals_end_the_work() -> Iterator[None]:
    """Raise :class:`StoppedBySignal` at once where a signal comes; what is ignored (``nohup``) stays ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        raise StoppedBySignal(number)

    before = _set_handlers(end)
    try:
        yield
    finally:
        _restore(before)


def _set_handlers(handle: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Handle the signals that are not ignored; return the handlers from before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    return before


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
