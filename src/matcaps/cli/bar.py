"""Bars of the work that goes on, with the time left, where a person looks on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from matcaps._progress import Advance, shown_by

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def is_watched() -> bool:
    """Whether bars are drawn: standard error is a terminal, and this is the first of several processes."""
    return sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"


def make_bars(*columns: "ProgressColumn") -> "Progress":
    """What draws bars on standard error: nothing where nobody looks on.

    Args:
        columns: what stands between the bar and the time left.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=not is_watched(),
        redirect_stdout=sys.stdout.isatty(),  # else its lines would come to the terminal, and not where they should
    )


class Bars:
    """Shows all work that :mod:`matcaps._progress` hears of while it is entered."""

    def __init__(self) -> None:
        self._progress: Progress | None = None  # made when there is something to show: rich's bars take a while to load

    @contextmanager
    def __call__(self, name: str, steps: int | None, done: int) -> Iterator[Advance]:
        if self._progress is None:
            from rich.progress import MofNCompleteColumn

            self._progress = make_bars(MofNCompleteColumn())
        progress = self._progress
        task = progress.add_task(name, total=steps, completed=done)
        if len(progress.task_ids) == 1:
            progress.start()
        try:
            yield lambda: progress.advance(task)
        finally:
            progress.remove_task(task)
            if not progress.task_ids:
                progress.stop()


@contextmanager
def bars() -> Iterator[None]:
    """Show the work that is done inside, where somebody looks on."""
    if not is_watched():
        yield
        return
    with shown_by(Bars()):
        yield
