"""What ``matcaps`` alone prints: the commands in groups, and where to begin."""

from collections.abc import Callable, Mapping

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from matcaps._version import __version__

_GROUPS = {
    "Train and use": ("train", "eval", "predict", "export"),
    "Understand": ("inspect", "report", "demo"),
    "Compare": ("experiment", "table"),
    "Look up": ("summary", "models", "data", "doctor", "completion"),
}
_BEGINNINGS = {
    "matcaps train quickstart": "images come with matcaps; one to three minutes",
    "matcaps inspect tutorial-mnist": "what capsules find in an image, with weights that come along",
    "matcaps COMMAND --help": "all options of a command",
}


def overview(commands: Mapping[str, Callable[[list[str]], int]]) -> Group:
    """The page, for a rich console; a command that is in no group stands at the end.

    Args:
        commands: by name; the first line of each one's docstring says what it does.
    """
    placed = {name for names in _GROUPS.values() for name in names}
    groups = _GROUPS | {"More": tuple(name for name in commands if name not in placed)}
    described = {
        title: {name: (commands[name].__doc__ or "").splitlines()[0] for name in names if name in commands}
        for title, names in groups.items()
    }
    width = max(map(len, commands))
    parts = [
        Text.assemble(("matcaps", "bold cyan"), f" {__version__}: matrix capsule networks with EM routing"),
        Text("usage: matcaps COMMAND [options]"),
    ]
    for title, lines in described.items():
        if lines:
            parts += [Text(f"\n{title}", "bold"), _columns(lines, "green", width)]
    parts += [Text("\nBegin with", "bold"), _columns(_BEGINNINGS, "cyan", max(map(len, _BEGINNINGS)))]
    return Group(*parts, Text("\n--version prints the version; matcaps completion --help: the Tab key's help"))


def _columns(lines: Mapping[str, str], style: str, width: int) -> Padding:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=style, no_wrap=True, min_width=width)
    table.add_column()
    for name, description in lines.items():
        table.add_row(Text(name), Text(description))
    return Padding(table, (0, 0, 0, 2))
