"""A run's files in addition to its weights, written completely or not at all, and the facts needed to repeat it."""

import csv
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

import matcaps
from matcaps._paths import named_errors, user_path
from matcaps.models.files import read_json as read_json
from matcaps.models.files import whole_file
from matcaps.training.settings import TrainSettings
from matcaps.training.yaml_files import read_yaml

SETTINGS_NAME = "settings.yaml"
METRICS_NAME = "metrics.csv"
RESULTS_NAME = "results.json"


def write_text(path: Path, text: str) -> None:
    """Write a file so that at any time either the complete old file or the complete new one exists.

    Parts of paths or names that are not valid UTF-8 are escaped as in JSON and Python.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, values: Any) -> None:
    """Write JSON as :func:`write_text` does."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_settings(path: Path, values: dict[str, Any]) -> None:
    """Write settings as YAML."""
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings that :func:`write_settings` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or not a mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: is it the folder of a run?")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of settings; got {type(values).__name__}")
    return values


def read_run_settings(folder: Path) -> TrainSettings:
    """Read the settings of the run in a folder.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: the file is not YAML, a name in it is unknown, or a value is out of range.
    """
    return TrainSettings.from_dict(read_settings(user_path(folder) / SETTINGS_NAME))


def write_metrics(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one row per epoch as CSV, with a column for every name in any row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines: list[str] = []

    class _Lines:
        def write(self, text: str) -> None:
            lines.append(text)

    writer = csv.DictWriter(_Lines(), columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "".join(lines))


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read the rows that :func:`write_metrics` wrote; none if there is no file.

    Raises:
        ValueError: it is no such table: a row without an epoch or a step, or a cell that is neither empty nor a number.
    """
    if not path.is_file():
        return []
    try:
        with named_errors(path), path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            _ = int(row["epoch"]), int(row["step"]), [float(value) for value in row.values() if value]
    except (csv.Error, KeyError, TypeError, ValueError) as error:  # a cell too many is a list, one too few is None
        raise ValueError(
            f"{path} must be a table of numbers with the columns epoch and step, one row an epoch; it is not "
            f"({error}): mend it, or remove it to go without the epochs so far"
        ) from error
    return rows


def describe_machine() -> dict[str, Any]:
    """Processor, memory, accelerators, threads and versions."""
    machine: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "matcaps": matcaps.__version__,
    }
    if torch.cuda.is_available():
        machine["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return machine


def command_line() -> str:
    """The command that is running, without its folder."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def source_commit() -> str | None:
    """The commit of the checkout that matcaps is imported from, marked if it has changes; None outside a checkout."""
    package = Path(matcaps.__file__).parent
    if package.parent.name != "src":
        return None  # an installed copy: a repository around it would be another project
    try:
        commit = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", str(package))
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}{'+changes' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
