"""``matcaps experiment sweep``."""

import os
import shlex
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from matcaps._paths import user_path
from matcaps.cli.folds import check_setting, checked_name, read_changes, with_changes
from matcaps.cli.parsing import PLAIN, add_accelerator, make_parser, out
from matcaps.experiments.folds import folds_name
from matcaps.experiments.plan import parse_seeds
from matcaps.training.recipes import list_recipes, recipe_settings
from matcaps.training.settings import TrainSettings

_COMMAND = "experiment sweep"
_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
"""By these torchrun and srun tell a process which it is of several that train together."""


def sweep_command(arguments: list[str]) -> int:
    """Search settings of a recipe, judged on objects that were left out."""
    parser = make_parser(
        _COMMAND,
        "Search settings of a recipe with Optuna. Each trial trains the recipe's folds and is judged by the log-loss "
        "on the objects that they left out; the test part is never looked at. The same command again goes on; "
        "several processes and machines may share the folder. Needs the extra matcaps[sweep]; see docs/sweeps.md.",
    )
    parser.add_argument("--recipe", type=str, required=True, help=f"one of {', '.join(list_recipes())}")
    parser.add_argument(
        "--space",
        type=str,
        required=True,
        help="a YAML file: a line for each setting of matcaps train to search, a list of values or low, high and log",
    )
    parser.add_argument("--trials", type=int, default=20, help="trials of the sweep, with those that are there")
    parser.add_argument(
        "--set", type=str, action="append", default=[], help="a setting for all trials, as in matcaps experiment folds"
    )
    parser.add_argument("--groups", type=str | None, help="for a folder of images: as in matcaps experiment folds")
    parser.add_argument("--folds", type=int | None, help="for such a folder: how many folds; default 5")
    parser.add_argument("--epochs", type=int | None, help="epochs of every training; default: the recipe's")
    parser.add_argument("--seeds", type=str, default="0", help="seeds of each fold's trainings, such as 0,1")
    parser.add_argument("--seed", type=int, default=0, help="of what is suggested")
    parser.add_argument("--folder", type=str, default="runs/sweeps", help="folder of all sweeps")
    parser.add_argument("--name", type=str | None, help="folder of this one; default: the recipe and the space's name")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    add_accelerator(parser, None)
    parsed = parser.parse_args(arguments)
    work_alone(os.environ)
    if parsed.trials < 1:
        raise ValueError(f"trials must be at least 1; got {parsed.trials}")
    if parsed.seed < 0:
        raise ValueError(f"seed must be at least 0; got {parsed.seed}")
    fixed = read_changes(parsed["set"])
    recipe = recipe_settings(parsed.recipe)
    space_path = user_path(parsed.space)
    name = checked_name(f"{parsed.recipe}-{space_path.stem}" if parsed.name is None else parsed.name)
    try:
        from matcaps.experiments.sweep import Choice, Sweep, read_space, run_sweep
    except ImportError as error:
        if "matcaps[sweep]" not in str(error):
            raise
        raise ValueError(str(error)) from error
    space = read_space(space_path)
    for setting in space:
        check_setting(setting, "space")
        if setting in fixed:
            raise ValueError(f"space and set must name different settings; both have {setting}")

    def changes(values: Mapping[str, Any]) -> dict[str, str]:
        return fixed | {setting: str(value) for setting, value in values.items()}

    def make(values: Mapping[str, Any]) -> TrainSettings:
        return with_changes(recipe, changes(values), _COMMAND)

    if make({}).devices * make({}).num_nodes > 1:
        raise ValueError("a sweep's trainings must have one device each: start several processes on its folder instead")
    for setting, entry in space.items():  # what cannot be is refused before anything is trained
        for value in entry.values if isinstance(entry, Choice) else (entry.low, entry.high):
            make({setting: value})
    sweep = Sweep(
        name,
        user_path(parsed.folder) / name,
        space,
        settings=make,
        recipe_name=lambda values: folds_name(parsed.recipe, {name: str(value) for name, value in values.items()}),
        seeds=parse_seeds(parsed.seeds),
        epochs=parsed.epochs,
        groups=parsed.groups,
        folds=parsed.folds,
        root=parsed.root,
        accelerator=parsed.accelerator,
        begun_with={"recipe": parsed.recipe, **fixed},
    )
    from matcaps.cli.steps import EpochSteps
    from matcaps.training.progress import EpochLines

    def write(line: str) -> None:
        out.print(line, **PLAIN)

    with EpochSteps() as steps:
        study = run_sweep(sweep, parsed.trials, seed=parsed.seed, callbacks=[EpochLines(write), steps], say=write)
    return _conclude(study, sweep.folder, parsed.recipe, changes)


def work_alone(environment: MutableMapping[str, str]) -> None:
    """Let each process that a launcher started be a worker of its own, with a GPU of its own where there are several.

    Args:
        environment: the process's, which is changed.
    """
    local = environment.get("LOCAL_RANK") or environment.get("SLURM_LOCALID")
    if local is not None and local.isdecimal():
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        names = [local] if visible is None else [name for name in visible.split(",") if name]
        if visible is None or len(names) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = names[int(local) % len(names)]
    for name in _OF_A_LAUNCHER:
        environment.pop(name, None)


def _conclude(study: Any, folder: Path, recipe: str, changes: Any) -> int:
    from matcaps.experiments.sweep import journal_named

    with journal_named(folder):
        done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        best = study.best_trial if done else None
    if best is None:
        out.print(f"no trial came to its end: {folder}", **PLAIN)
        return 1
    settings = (f"--{name}={value}" for name, value in changes(best.user_attrs["values"]).items())
    out.print(f"the best of {len(done)} trials that ended: {best.number + 1}, log-loss {best.value:.4f}", **PLAIN)
    out.print(f"to train it: {shlex.join(['matcaps', 'train', recipe, *settings])}", **PLAIN)
    out.print(f"object by object: {shlex.join(['matcaps', 'table', 'folds', str(folder)])}", **PLAIN)
    return 0
