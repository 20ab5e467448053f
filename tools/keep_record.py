#!/usr/bin/env python3
"""Copy the records of finished trials into docs/records, without what only this machine knows.

    .venv/bin/python tools/keep_record.py runs/experiments docs/records

Takes of every trial of every experiment, of every recipe with objects left out (--folds), and of the bench of routings
(--routings), its settings, metrics, results and what was measured; weights and checkpoints stay. The folder that a
command wrote to is left out of the command, and the data root out of the settings. A record that is there already is
replaced only where --replace is given.
"""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

import yaml

from matcaps.experiments import list_experiments
from matcaps.experiments.folds import FOLDS
from matcaps.experiments.plan import DIVERGED_NAME, MEASURE_FILES
from matcaps.experiments.routing_bench import BENCH_NAME, ROUTINGS
from matcaps.training.record import METRICS_NAME, RESULTS_NAME, SETTINGS_NAME, write_json, write_settings, write_text

_PATH_OPTIONS = ("--output", "--folder", "--root", "--data.root", "--groups")
_TRIALS = "*-*epochs-seed*"


def without_paths(command: str) -> str:
    """A command without the options that name a place on this machine."""
    kept, words = [], iter(shlex.split(command))
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in _PATH_OPTIONS:
            kept.append(word)
        elif not equals:
            next(words, None)
    return shlex.join(kept)


def without_folders(text: str) -> str:
    """A text in which a path is its last name."""
    return re.sub(r"(?<!\S)/\S*/(?=[^/\s])", "", text)


def keep(trial: Path, target: Path) -> None:
    """Copy one trial's records."""
    target.mkdir(parents=True, exist_ok=True)
    if (trial / SETTINGS_NAME).is_file():
        settings = yaml.safe_load((trial / SETTINGS_NAME).read_text(encoding="utf-8"))
        settings["data"]["root"] = None
        for where, name in ((settings["data"], "folder"), (settings["data"]["split"], "groups")):
            where.update({name: Path(where[name]).name} if where.get(name) else {})
        write_settings(target / SETTINGS_NAME, settings)
    if (trial / METRICS_NAME).is_file():
        write_text(target / METRICS_NAME, (trial / METRICS_NAME).read_text(encoding="utf-8"))
    for name in (RESULTS_NAME, DIVERGED_NAME, *MEASURE_FILES.values()):
        if (trial / name).is_file():
            values = json.loads((trial / name).read_text(encoding="utf-8"))
            if "command" in values:
                values["command"] = without_paths(values["command"])
            if "data_origin" in values:
                values["data_origin"] = without_folders(values["data_origin"])
            origin = values.get("attacks", {}).get("data", {})
            if "origin" in origin:
                origin["origin"] = without_folders(origin["origin"])
            write_json(target / name, values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="folder of all experiments")
    parser.add_argument("records", type=Path, help="folder of the kept records")
    parser.add_argument("--replace", action="store_true", help="replace records that are there already")
    parser.add_argument("--folds", type=Path, help="folder of recipes with objects left out, such as runs/folds")
    parser.add_argument("--routings", type=Path, help="folder of the bench of routings, such as runs/routings")
    given = parser.parse_args()
    places = {given.base / experiment: given.records / experiment for experiment in list_experiments()}
    if given.folds is not None:
        recipes = sorted({trial.parent for trial in given.folds.glob(f"*/{_TRIALS}")})
        places |= {recipe: given.records / FOLDS / recipe.name for recipe in recipes}
    if given.routings is not None:
        names = sorted({trial.parent for trial in given.routings.glob(f"*/{_TRIALS}")})
        places |= {name: given.records / ROUTINGS / name.name for name in names}
        begun = json.loads((given.routings / BENCH_NAME).read_text(encoding="utf-8"))
        begun["changes"] = [one for one in begun["changes"] if f"--{one.partition('=')[0]}" not in _PATH_OPTIONS]
        (given.records / ROUTINGS).mkdir(parents=True, exist_ok=True)
        write_json(given.records / ROUTINGS / BENCH_NAME, begun)
    for place, kept in places.items():
        for trial in sorted(place.glob(_TRIALS)):
            target = kept / trial.name
            ended = [
                name for name in (RESULTS_NAME, DIVERGED_NAME, *MEASURE_FILES.values()) if (trial / name).is_file()
            ]
            if not trial.is_dir() or not ended:
                continue
            if target.exists() and not given.replace:
                print(f"there already: {target}")
                continue
            keep(trial, target)
            print(f"kept: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
