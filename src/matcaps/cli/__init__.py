"""The ``matcaps`` command: the only place that parses arguments or prints. Torch is imported where it is needed."""

import io
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from matcaps._version import __version__
from matcaps.cli.bar import bars
from matcaps.cli.completion import completion_command
from matcaps.cli.data import data_command
from matcaps.cli.demo import demo_command
from matcaps.cli.describe import doctor_command, models_command, summary_command
from matcaps.cli.endings import report_failed, report_stopped
from matcaps.cli.evaluate import eval_command, predict_command
from matcaps.cli.experiment import experiment_command, table_command
from matcaps.cli.export import export_command
from matcaps.cli.inspect import inspect_command
from matcaps.cli.overview import overview
from matcaps.cli.parsing import PLAIN, err, out
from matcaps.cli.report import report_command
from matcaps.cli.train import train_command
from matcaps.cli.waiting import let_waiting_threads_sleep
from matcaps.training.stopping import signals_end_the_work

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train_command,
    "eval": eval_command,
    "predict": predict_command,
    "inspect": inspect_command,
    "report": report_command,
    "demo": demo_command,
    "export": export_command,
    "experiment": experiment_command,
    "table": table_command,
    "summary": summary_command,
    "models": models_command,
    "data": data_command,
    "doctor": doctor_command,
    "completion": completion_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 for success; 1 for an error; 2 for wrong arguments; 128 plus the signal's number if a
        signal ended the work: 130 for Ctrl+C, 143 for SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):  # show names that are not valid UTF-8 escaped, instead of failing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    let_waiting_threads_sleep()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        out.print(overview(COMMANDS))
        return 0
    if command == "--version":
        out.print(f"matcaps {__version__}")
        return 0
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        err.print(f"matcaps: there is no command {command!r}; the commands are {known}", **PLAIN)
        return 2
    try:
        with signals_end_the_work(), bars(), warnings.catch_warnings():
            shown: set[str] = set()  # an experiment reads the same files for every trial

            def print_once(message: Warning | str, *_: Any) -> None:
                if str(message) not in shown:
                    shown.add(str(message))
                    err.print(f"matcaps {command}: warning: {message}", **PLAIN)

            warnings.showwarning = print_once
            status = COMMANDS[command](arguments[1:])
            sys.stdout.flush()  # so that a full disk is reported here, not when the interpreter exits
            return status
    except KeyboardInterrupt as stop:
        return report_stopped(command, stop)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error).__name__ != "TrainingDivergedError":
            raise  # a bug in matcaps: show the traceback
        return report_failed(command, error)
