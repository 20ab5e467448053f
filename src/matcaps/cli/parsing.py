"""What the commands share: how they print, and how they read their arguments."""

import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from rich.console import Console

from matcaps.data.names import printable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

PLAIN: dict[str, Any] = {"soft_wrap": True}
SOURCE = "folder of a run or of saved weights, weights that come with matcaps, or a name on the Hugging Face hub"
ACCELERATOR = "where the network computes: gpu (CUDA), cpu, or auto for the first where there is one"
CHECKPOINT = "last, or a path: a checkpoint of the run, finished or not, in place of its final weights"


class _PlainConsole(Console):
    """Prints every text literally: brackets in names are no markup, and control characters have no effect."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **options)


out = _PlainConsole()
err = _PlainConsole(stderr=True)


def make_parser(command: str, description: str) -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    class OneLineParser(ArgumentParser):
        def parse_args(self, *arguments: Any, **options: Any) -> Any:
            if _is_asked.get():
                raise _ReadyError(self)
            return super().parse_args(*arguments, **options)

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            err.print(f"{self.prog}: {_one_line(message)} (see {self.prog} --help)", **PLAIN)
            sys.exit(2)

    return OneLineParser(prog=f"matcaps {command}", description=description)


class _ReadyError(Exception):
    """A command has made its parser and would read its arguments with it."""


_is_asked: ContextVar[bool] = ContextVar("matcaps_is_asked", default=False)


def parser_of(command: Callable[[list[str]], int], arguments: list[str]) -> "ArgumentParser":
    """The parser that a command would read its arguments with; nothing is read or done.

    Args:
        command: such as ``matcaps.cli.train.train_command``.
        arguments: what it must be given before it makes its parser.
    """
    token = _is_asked.set(True)
    try:
        command(arguments)
    except _ReadyError as ready:
        return ready.args[0]
    finally:
        _is_asked.reset(token)
    raise AssertionError(f"{command.__name__} read no arguments")


def add_accelerator(parser: "ArgumentParser", default: str | None = "auto") -> None:
    """Add the option that sets where a command's network computes.

    Args:
        parser: the command's parser.
        default: the value if the option is not given; None: the value is then None.
    """
    choices = Literal["auto", "cpu", "gpu"]
    kind = choices if default is not None else choices | None
    parser.add_argument("--accelerator", type=kind, default=default, help=ACCELERATOR)


def _one_line(message: str) -> str:
    """The parser's error message in one line; errors of a value's type in this package's form."""
    key = re.search(r'Parser key "([^"]+)":', message)
    given = re.search(r"(?:Given value:|Got value:) (.*)", message)
    expected = [
        entry for entry in re.findall(r"Expected a (.+?)(?:\. Got value.*)?$", message, re.M) if "None" not in entry
    ]
    if key is None or given is None or not expected:
        return " ".join(message.split())
    kinds = [re.sub(r"<class '(.+)'>|typing\.Literal\[(.+)\]", lambda m: m[1] or f"one of {m[2]}", e) for e in expected]
    return f"{key[1]} must be {' or '.join(kinds)}; got {given[1].strip()!r}"


def accept_train_names(arguments: list[str]) -> list[str]:
    """Accept the names of ``matcaps train`` for data: ``--data.folder`` for ``--folder``, for example."""
    names = {"--data.name": "--data", "--data.folder": "--folder", "--data.root": "--root"}
    return [names.get(name := one.partition("=")[0], name) + one[len(name) :] for one in arguments]


def find_option(arguments: list[str], option: str) -> str | None:
    """An option's value, empty if the value is missing; None if the option is not given."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else following
    return None
