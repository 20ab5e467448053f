"""The ``matcaps`` command: the only place that parses arguments or prints. Torch is imported where it is needed."""

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from matcaps._version import __version__
from matcaps.cli.data import data_command
from matcaps.cli.demo import demo_command
from matcaps.cli.describe import doctor_command, models_command, summary_command
from matcaps.cli.evaluate import eval_command, predict_command
from matcaps.cli.experiment import experiment_command, table_command
from matcaps.cli.inspect import inspect_command
from matcaps.cli.parsing import PLAIN, err, out
from matcaps.cli.report import report_command
from matcaps.cli.train import train_command

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train_command,
    "eval": eval_command,
    "predict": predict_command,
    "inspect": inspect_command,
    "report": report_command,
    "demo": demo_command,
    "experiment": experiment_command,
    "table": table_command,
    "summary": summary_command,
    "models": models_command,
    "data": data_command,
    "doctor": doctor_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 1 for what went wrong in the work, 2 for wrong arguments."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        _print_help()
        return 0
    if command == "--version":
        out.print(f"matcaps {__version__}")
        return 0
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        err.print(f"matcaps: there is no command {command!r}; the commands are {known}", **PLAIN)
        return 2
    try:
        with warnings.catch_warnings():
            said: set[str] = set()  # an experiment reads the same files for every trial

            def say_once(message: Warning | str, *_: Any) -> None:
                if str(message) not in said:
                    said.add(str(message))
                    err.print(f"matcaps {command}: warning: {message}", **PLAIN)

            warnings.showwarning = say_once
            return COMMANDS[command](arguments[1:])
    except KeyboardInterrupt:
        hint = {
            "train": "; it goes on with: matcaps train --resume and the run folder printed above",
            "experiment": "; the same command goes on with it",
        }.get(command, "")
        err.print(f"matcaps {command}: interrupted{hint}", **PLAIN)
        return 130
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error).__name__ != "TrainingDivergedError":
            raise  # a mistake of ours: show where
        err.print(f"matcaps {command}: {_describe(error)}", **PLAIN)
        return 1


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())  # a YAML error has eight lines


def _print_help() -> None:
    out.print("usage: matcaps COMMAND [--help]\n\nMatrix capsule networks with EM routing.\n\ncommands:", markup=False)
    for name, command in COMMANDS.items():
        out.print(f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}", markup=False)
    out.print("\n  --version  print the version", markup=False)
