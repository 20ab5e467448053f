"""``matcaps experiment folds`` and ``matcaps table folds``."""

import difflib
from pathlib import Path

from matcaps._paths import user_path
from matcaps.cli.parsing import make_parser
from matcaps.cli.train import parse_settings, with_preset
from matcaps.cli.trials import add_trial_options, run_or_list, write_table
from matcaps.experiments.folds import SET_BY_FOLDS, fold_experiment, folds_name
from matcaps.training.recipes import list_recipes, recipe_settings
from matcaps.training.settings import TrainSettings, flatten

_COMMAND = "experiment folds"


def folds_command(arguments: list[str]) -> int:
    """Train a recipe several times, each time with different objects left out, and test it on those."""
    parser = make_parser(
        _COMMAND,
        "Train a recipe several times, each time without some objects of the training part, and test it on these; the "
        "test part is never used. Finished trainings are kept, interrupted ones continue: the same command again "
        'finishes it. Several processes may work in one folder. "matcaps table folds" compares recipes.',
    )
    parser.add_argument("--recipe", type=str, required=True, help=f"one of {', '.join(list_recipes())}")
    parser.add_argument(
        "--set",
        type=str,
        action="append",
        default=[],
        help="a setting of matcaps train in place of the recipe's, such as loss.name=cross-entropy; may be repeated",
    )
    parser.add_argument(
        "--groups",
        type=str | None,
        help="for a folder of images (--set data.name=folder --set data.folder=...): a CSV file with the columns file "
        "and group, such as the patient; whole groups are left out",
    )
    parser.add_argument("--folds", type=int | None, help="for such a folder: how many folds; default 5")
    parser.add_argument(
        "--name", type=str | None, help="folder of this recipe in it; default: the recipe and what is set"
    )
    add_trial_options(parser, "runs/folds", of="recipes", own="the recipe's")
    parsed = parser.parse_args(arguments)
    changes = read_changes(parsed["set"])
    settings = with_changes(recipe_settings(parsed.recipe), changes)
    name = checked_name(folds_name(parsed.recipe, changes) if parsed.name is None else parsed.name)
    experiment = fold_experiment(name, settings, groups=parsed.groups, count=parsed.folds)
    return run_or_list(experiment, parsed)


def checked_name(name: str) -> str:
    """A name that can be a folder's.

    Raises:
        ValueError: it cannot.
    """
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"name must be a folder's name without a path or a leading dot; got {name!r}")
    return name


def check_setting(name: str, where: str) -> None:
    """Refuse what is no setting of a training, or is the folds' own.

    Args:
        name: the setting's full name.
        where: what names it, for the message.

    Raises:
        ValueError: it is refused.
    """
    known = [name for name in flatten(TrainSettings().to_dict()) if name != "recipe"]
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "matcaps train --help lists all"
        raise ValueError(f"{where} must name a setting of matcaps train; got {name!r}: {hint}")
    if name in SET_BY_FOLDS:
        raise ValueError(f"{where} must not change {name}, which the folds set: {SET_BY_FOLDS[name]}")


def read_changes(given: list[str]) -> dict[str, str]:
    """The settings to change, by their full names, as text."""
    changes: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ValueError(f"set must be NAME=VALUE; got {one!r}: for example --set loss.name=cross-entropy")
        check_setting(name, "set")
        if name in changes:
            raise ValueError(f"set must name each setting once; got {name}={changes[name]} and {one}")
        changes[name] = value
    return changes


def with_changes(base: TrainSettings, changes: dict[str, str], command: str = _COMMAND) -> TrainSettings:
    """A recipe's settings with some changed, read as ``matcaps train`` reads them."""
    base = with_preset(base, changes.get("model.preset"))
    arguments = [f"--{name}={value}" for name, value in changes.items()]
    return parse_settings(make_parser(command, ""), base, arguments)[1]


def folds_table_command(arguments: list[str]) -> int:
    """Compare recipes on the objects that they never trained on."""
    parser = make_parser(
        "table folds",
        "Compare recipes object by object: errors and log-losses on the objects that each training left out, with "
        "intervals, a paired test and the noise between seeds. The others are compared with the first recipe. Prints "
        "Markdown, and writes it and a figure.",
    )
    parser.add_argument(
        "folders", type=str, nargs="*", default=["runs/folds"], help="runs, or folders of runs; default runs/folds"
    )
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets; default: as in each run")
    parser.add_argument("--output", type=str | None, help="folder for the table and figure; default: the first FOLDER")
    parsed = parser.parse_args(arguments)
    from matcaps.experiments.fold_figure import draw_folds
    from matcaps.experiments.fold_records import gather_folds
    from matcaps.experiments.fold_table import make_fold_table

    folders = [user_path(folder) for folder in parsed.folders]
    output = folders[0] if parsed.output is None else user_path(parsed.output)
    gathered = gather_folds(folders, root=parsed.root, memory=output / "tested_again.json")
    write_table(output, "folds", make_fold_table(gathered), draw_folds(gathered.recipes))
    return 0
