"""``matcaps completion``."""

import argparse
from collections.abc import Callable, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from matcaps.cli.parsing import make_parser, parser_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

SHELLS = ("bash", "zsh", "fish")
_FIRST = {"train": ["quickstart"]}
"""What a command must be given before it makes its parser."""
_OWN = {"experiment": ("folds", "sweep"), "table": ("folds",)}
"""Words after a command that have options of their own."""
_BOOLEANS = ["true", "false"]
_TAKES_FILES = ("run", "runs", "images", "source", "folders")
_TAKES_A_FILE = ("--config", "--image", "--groups", "--space")
_TAKES_A_FOLDER = ("--output", "--folder", "--root", "--resume", "--data.root", "--data.folder")


def completion_command(arguments: list[str]) -> int:
    """Print a script with which the Tab key completes commands, options and their values."""
    parser = make_parser(
        "completion",
        "Print a script for a shell, with which the Tab key completes commands, options and their values. "
        'bash: eval "$(matcaps completion bash)" in ~/.bashrc; zsh: matcaps completion zsh > a file _matcaps in a '
        "folder of $fpath; fish: matcaps completion fish > ~/.config/fish/completions/matcaps.fish.",
    )
    parser.add_argument("shell", type=str, help=f"one of {', '.join(SHELLS)}")
    parsed = parser.parse_args(arguments)
    if parsed.shell not in SHELLS:
        raise ValueError(f"the shell must be one of {', '.join(SHELLS)}; got {parsed.shell!r}")
    from matcaps.cli import COMMANDS

    print(completion_script(COMMANDS, parsed.shell))
    return 0


def completion_script(commands: Mapping[str, Callable[[list[str]], int]], shell: str) -> str:
    """The script, made from the commands' own parsers.

    Args:
        commands: by name.
        shell: one of :data:`SHELLS`.
    """
    import shtab

    whole = argparse.ArgumentParser("matcaps", description="Matrix capsule networks with EM routing.")
    whole.add_argument("--version", action="store_true", help="print the version")
    choices = whole.add_subparsers()
    for name, command in commands.items():
        source = parser_of(command, _FIRST.get(name, []))
        summary = (command.__doc__ or "").splitlines()[0]
        own = choices.add_parser(name, help=summary, description=summary)
        _copy(source, own, name)
        for word in _OWN.get(name, ()):
            _copy(parser_of(command, [word]), own, name)
    return shtab.complete(whole, shell)


def _named(command: str) -> dict[str, list[str]]:
    """The values that a command's arguments can have, where their type does not say so."""
    from matcaps.cli.data import ACTIONS, DATA_SETS
    from matcaps.experiments.definitions import list_experiments
    from matcaps.models.presets import list_models
    from matcaps.training.recipes import list_recipes

    experiments = [*list_experiments(), *_OWN.get(command, ())]
    return {
        "train": {"recipe": list_recipes(), "model.preset": list_models()},
        "experiment": {"name": experiments, "recipe": list_recipes()},
        "table": {"name": experiments},
        "summary": {"preset": list_models()},
        "data": {"action": list(ACTIONS), "names": list(DATA_SETS)},
        "completion": {"shell": list(SHELLS)},
    }.get(command, {})


def _words(action: argparse.Action, command: str) -> list[str]:
    """The values that an argument can have, if they are few; else none."""
    named = _named(command).get(action.dest)
    if named is not None or action.choices:
        return named or [str(one) for one in action.choices or ()]
    kind = getattr(action, "_typehint", action.type)
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    literals = [str(value) for one in kinds if get_origin(one) is Literal for value in get_args(one)]
    return literals or (_BOOLEANS if bool in kinds else [])


def _copy(source: "ArgumentParser", own: argparse.ArgumentParser, command: str) -> None:
    """What a parser of jsonargparse's takes, in one of the standard library's, with its choices as words."""
    import shtab

    for action in source._actions:
        known = {option for one in own._actions for option in one.option_strings}
        if any(option in known or option.startswith("--print_") for option in action.option_strings):
            continue
        if not action.option_strings and any(not one.option_strings for one in own._actions if command in _OWN):
            continue  # the word itself stands there
        options: dict[str, Any] = {"help": _plain(action.help)}
        if action.nargs == 0:
            options["action"] = "store_true"
        elif action.option_strings or action.nargs not in (None, argparse.PARSER):
            options["nargs"] = action.nargs
        words = _words(action, command)
        if words and action.nargs != 0:
            options["choices"] = words
        made = own.add_argument(*(action.option_strings or [action.dest]), **options)
        if words or action.nargs == 0:
            continue
        if made.dest in _TAKES_FILES or (made.option_strings[:1] and made.option_strings[0] in _TAKES_A_FILE):
            made.complete = shtab.FILE  # type: ignore[attr-defined]
        elif made.option_strings and made.option_strings[0] in _TAKES_A_FOLDER:
            made.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def _plain(text: str | None) -> str | None:
    """A help text without what argparse would fill in."""
    return None if text in (None, argparse.SUPPRESS) else " ".join(text.replace("%", "%%").split())
