"""``matcaps experiment routings`` and ``matcaps table routings``."""

from matcaps._paths import user_path
from matcaps.cli.folds import read_changes, with_changes
from matcaps.cli.parsing import PLAIN, make_parser, out
from matcaps.cli.trials import add_trial_options, conclude, epoch_lines, write_table
from matcaps.experiments.folds import TRAINING_TOYS
from matcaps.experiments.plan import parse_list, parse_seeds, parse_shard
from matcaps.experiments.routing_bench import CONTENDERS, ROUTINGS, Bench, contenders_named, search_jobs
from matcaps.training.recipes import list_recipes, recipe_settings

_FOLDER = "runs/routings"
_OF_ROWS = ("loss.name", "optimizer.learning_rate", "optimizer.matrix_learning_rate")


def routings_command(arguments: list[str]) -> int:
    """Compare all routings: the same stem, votes, loss and data, parameters within 5 %, the same tuning for each."""
    parser = make_parser(
        f"experiment {ROUTINGS}",
        "Compare routings at equal parameters and equal tuning. Six configurations of each are judged by the log-loss "
        "on toys of the training part that they left out; the best one is trained with more seeds, tested on distorted "
        "images, and on elevations it never saw. The test part is never used. The same command again goes on; "
        "several processes may work in one folder. --plan tells how long it takes here.",
    )
    names = ", ".join(one.name for one in CONTENDERS)
    parser.add_argument(
        "--recipe", type=str, default="smallnorb", help=f"for data, loss and rates: one of {', '.join(list_recipes())}"
    )
    parser.add_argument(
        "--set", type=str, action="append", default=[], help="a setting for all rows, as in matcaps experiment folds"
    )
    parser.add_argument("--only", type=str | None, help=f"rows, such as em-3,vb; default: all of {names}")
    parser.add_argument("--configurations", type=int, default=6, help="how many of each row's six are tried")
    parser.add_argument(
        "--folds", type=str, default=",".join(map(str, TRAINING_TOYS)), help="training toys that are left out in turn"
    )
    parser.add_argument("--no_elevations", action="store_true", help="without the trainings on low elevations")
    parser.add_argument("--max_train_images", type=int | None, help="train on at most so many images, for a quick look")
    parser.add_argument("--max_test_images", type=int | None, help="test on at most so many images")
    add_trial_options(parser, _FOLDER, of="its trainings", own="20", seeds="0,1,2")
    parser.add_argument(
        "--plan", action="store_true", help="measure each row's speed here, say how many hours it takes"
    )
    parsed = parser.parse_args(arguments)
    folds = parse_list(parsed.folds)
    if not all(fold.isdecimal() for fold in folds):
        raise ValueError(f"folds must be toys' numbers, such as 4,6; got {parsed.folds!r}")
    changes = read_changes(parsed["set"])
    for name in changes:
        if name.startswith("model.") or name in _OF_ROWS:
            raise ValueError(f"set must not change {name}, which the rows of the bench set")
    bench = Bench(
        parsed.recipe,
        20 if parsed.epochs is None else parsed.epochs,
        contenders_named(None if parsed.only is None else parse_list(parsed.only)),
        parsed.configurations,
        tuple(map(int, folds)),
        tuple(parse_seeds(parsed.seeds)),
        not parsed.no_elevations,
        parsed.max_train_images,
        parsed.max_test_images,
        tuple(parsed["set"]),
        with_changes(recipe_settings(parsed.recipe), changes, f"experiment {ROUTINGS}"),
    )
    (part, parts), base = parse_shard(parsed.shard), user_path(parsed.folder)
    if not 1 <= part <= parts:
        raise ValueError(f"shard must be k/n with k from 1 to n; got {part}/{parts}: for example 2/4")
    chosen = {"root": parsed.root, "accelerator": parsed.accelerator}
    searched = search_jobs(bench, **chosen)
    if parsed.list:
        for _, (_, trial) in searched[part - 1 :: parts]:
            out.print(f"{trial.folder(base)}: {trial.row.title}", **PLAIN)
        return 0
    if parsed.plan:
        from matcaps.experiments.routing_rates import make_plan

        print(make_plan(bench, base, parsed.accelerator or "auto"))
        return 0
    from matcaps.experiments.routing_runs import run_bench

    with epoch_lines() as callbacks:
        outcomes = run_bench(
            bench, base, shard=(part, parts), callbacks=callbacks, say=lambda line: out.print(line, **PLAIN), **chosen
        )
    return conclude(outcomes)


def routings_table_command(arguments: list[str]) -> int:
    """Compare all routings by the records of a bench."""
    parser = make_parser(
        f"table {ROUTINGS}",
        "Print the bench of routings as Markdown: error and log-loss on toys left out, with intervals over toys and "
        "seeds, agreement, novel elevations, distorted images, speed and size. Writes it and a figure, too. Rows that "
        "were not run say so.",
    )
    parser.add_argument("folder", type=str, nargs="?", default=_FOLDER, help="the bench's folder")
    parser.add_argument("--output", type=str | None, help="folder for the table and figure; default: FOLDER")
    parsed = parser.parse_args(arguments)
    base = user_path(parsed.folder)
    from matcaps.experiments.routing_figure import draw_routings
    from matcaps.experiments.routing_table import gather_bench, make_routing_table

    gathered = gather_bench(base)
    output = base if parsed.output is None else user_path(parsed.output)
    write_table(output, ROUTINGS, make_routing_table(gathered), draw_routings(gathered))
    return 0
