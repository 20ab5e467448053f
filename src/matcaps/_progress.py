"""How far long work is, for whoever wants to show it. The library says it; only the command draws it."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Advance = Callable[[], None]
Show = Callable[[str, int | None, int], AbstractContextManager[Advance]]
"""Takes the name of some work, how many steps it has, if known, and how many are done; gives what to call after one."""

_show: ContextVar[Show | None] = ContextVar("matcaps_show", default=None)
_advance: ContextVar[Advance | None] = ContextVar("matcaps_advance", default=None)


@contextmanager
def shown_by(show: Show) -> Iterator[None]:
    """Let some function show the work that is done inside, in this thread."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


@contextmanager
def work(name: str, steps: int, done: int = 0) -> Iterator[None]:
    """Work of so many steps, of which some are done; :func:`step` inside says that one more is."""
    show = _show.get()
    if show is None:
        yield
        return
    with show(name, steps, done) as advance:
        token = _advance.set(advance)
        try:
            yield
        finally:
            _advance.reset(token)


def step() -> None:
    """One step of the innermost :func:`work` is done."""
    advance = _advance.get()
    if advance is not None:
        advance()


def watched(items: Iterable[T], name: str) -> Iterator[T]:
    """The same items, each a step of some work.

    Example:
        >>> [number for number in watched([1, 2], "counting")]
        [1, 2]
    """
    show = _show.get()
    if show is None:
        yield from items
        return
    with show(name, len(items) if isinstance(items, Sized) else None, 0) as advance:
        for item in items:
            yield item
            advance()
