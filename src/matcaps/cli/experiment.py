"""``matcaps experiment`` and ``matcaps table``."""

from matcaps._paths import user_path
from matcaps.cli.folds import folds_command, folds_table_command
from matcaps.cli.parsing import make_parser
from matcaps.cli.routings import routings_command, routings_table_command
from matcaps.cli.sweep import sweep_command
from matcaps.cli.trials import add_trial_options, run_or_list, write_table
from matcaps.experiments.definitions import get_experiment, list_experiments
from matcaps.experiments.folds import FOLDS
from matcaps.experiments.plan import parse_list
from matcaps.experiments.routing_bench import ROUTINGS

_FOLDER = "runs/experiments"
_SWEEP = "sweep"
_NAMES = f"one of {', '.join(list_experiments())}; or {FOLDS} or {ROUTINGS}, with options of their own: {FOLDS} --help"


def experiment_command(arguments: list[str]) -> int:
    """Run one of the paper's experiments; or judge a recipe, or search its settings, with objects left out."""
    if arguments[:1] == [FOLDS]:
        return folds_command(arguments[1:])
    if arguments[:1] == [ROUTINGS]:
        return routings_command(arguments[1:])
    if arguments[:1] == [_SWEEP]:
        return sweep_command(arguments[1:])
    parser = make_parser(
        "experiment",
        "Run an experiment's trials, one for each row and seed. Finished trials are kept, interrupted ones continue: "
        "the same "
        'command again finishes it. Several processes may work in one folder; "matcaps table" shows the results so '
        "far.",
    )
    parser.add_argument("name", type=str, help=f"{_NAMES}; or {_SWEEP}, which has, too")
    parser.add_argument("--rows", type=str | None, help="names of rows, such as iterations-1,cnn; default: all")
    parser.add_argument("--max_train_images", type=int | None, help="train on at most so many images, for a quick look")
    parser.add_argument("--max_test_images", type=int | None, help="test on at most so many images")
    add_trial_options(parser, _FOLDER, of="experiments", own="each row's own")
    parsed = parser.parse_args(arguments)
    experiment = get_experiment(parsed.name)
    rows = None if parsed.rows is None else parse_list(parsed.rows)
    limits = {name: parsed[name] for name in ("max_train_images", "max_test_images")}
    return run_or_list(experiment, parsed, rows=rows, **limits)


def table_command(arguments: list[str]) -> int:
    """Gather an experiment's records, or those of recipes with objects left out, into a table and figures."""
    if arguments[:1] == [FOLDS]:
        return folds_table_command(arguments[1:])
    if arguments[:1] == [ROUTINGS]:
        return routings_table_command(arguments[1:])
    parser = make_parser(
        "table", "Print an experiment's table as Markdown, and write it and its figures beside the records."
    )
    parser.add_argument("name", type=str, help=_NAMES)
    parser.add_argument("--folder", type=str, default=_FOLDER, help="folder of all experiments")
    parser.add_argument("--output", type=str | None, help="folder for the table and figures; default: FOLDER/NAME")
    parsed = parser.parse_args(arguments)
    experiment, base = get_experiment(parsed.name), user_path(parsed.folder)
    if not base.is_dir():
        raise FileNotFoundError(
            f"no folder {base}: run matcaps experiment {parsed.name}, or name another with --folder"
        )
    from matcaps.experiments.figures import draw_experiment
    from matcaps.experiments.records import gather
    from matcaps.experiments.tables import make_table

    output = user_path(parsed.output) if parsed.output is not None else base / experiment.name
    records = gather(experiment, base)
    write_table(output, experiment.name, make_table(experiment, records), draw_experiment(experiment, records))
    return 0
