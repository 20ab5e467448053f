"""``matcaps experiment`` and ``matcaps table``."""

from matcaps._paths import user_path
from matcaps.cli.folds import folds_command, folds_table_command
from matcaps.cli.parsing import PLAIN, add_accelerator, err, make_parser
from matcaps.cli.sweep import sweep_command
from matcaps.cli.trials import carry_out, list_trials
from matcaps.experiments.definitions import get_experiment, list_experiments
from matcaps.experiments.folds import FOLDS
from matcaps.experiments.plan import make_trials, parse_list, parse_seeds, parse_shard

_FOLDER = "runs/experiments"
_SWEEP = "sweep"
_NAMES = f"one of {', '.join(list_experiments())}; or {FOLDS}, which has options of its own: {FOLDS} --help"


def experiment_command(arguments: list[str]) -> int:
    """Run one of the paper's experiments; or judge a recipe, or search its settings, with objects left out."""
    if arguments[:1] == [FOLDS]:
        return folds_command(arguments[1:])
    if arguments[:1] == [_SWEEP]:
        return sweep_command(arguments[1:])
    parser = make_parser(
        "experiment",
        "Run an experiment's trials, one a row and seed. What is done stays, what was interrupted goes on: the same "
        'command again finishes it. Several processes may work in one folder; "matcaps table" shows what has come.',
    )
    parser.add_argument("name", type=str, help=f"{_NAMES}; or {_SWEEP}, which has, too")
    parser.add_argument("--rows", type=str | None, help="names of rows, such as iterations-1,cnn; default: all")
    parser.add_argument("--seeds", type=str, default="0", help="seeds of the trainings, such as 0,1,2")
    parser.add_argument("--epochs", type=int | None, help="epochs of every training; default: each row's own")
    parser.add_argument("--shard", type=str, default="1/1", help="k/n: the k-th of n parts of the trials, from 1")
    parser.add_argument("--folder", type=str, default=_FOLDER, help="folder of all experiments")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parser.add_argument("--max_train_images", type=int | None, help="train on at most so many images, for a quick look")
    parser.add_argument("--max_test_images", type=int | None, help="test on at most so many images")
    add_accelerator(parser, None)
    parser.add_argument("--list", action="store_true", help="print the trials and do nothing")
    parsed = parser.parse_args(arguments)
    experiment = get_experiment(parsed.name)
    trials = make_trials(
        experiment,
        rows=None if parsed.rows is None else parse_list(parsed.rows),
        seeds=parse_seeds(parsed.seeds),
        epochs=parsed.epochs,
        shard=parse_shard(parsed.shard),
        root=parsed.root,
        max_train_images=parsed.max_train_images,
        max_test_images=parsed.max_test_images,
        accelerator=parsed.accelerator,
    )
    base = user_path(parsed.folder)
    return list_trials(trials, base) if parsed.list else carry_out(experiment, trials, base)


def table_command(arguments: list[str]) -> int:
    """Gather an experiment's records, or those of recipes with objects left out, into a table and figures."""
    if arguments[:1] == [FOLDS]:
        return folds_table_command(arguments[1:])
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
    from matcaps.inspect.style import save_figure
    from matcaps.training.record import write_text

    output = user_path(parsed.output) if parsed.output is not None else base / experiment.name
    records = gather(experiment, base)
    text = make_table(experiment, records)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / f"{experiment.name}.md", text)
    paths = [
        path
        for name, figure in draw_experiment(experiment, records).items()
        for path in save_figure(figure, output / name)
    ]
    print(text)
    for path in [output / f"{experiment.name}.md", *paths]:
        err.print(f"written: {path}", **PLAIN)
    return 0
