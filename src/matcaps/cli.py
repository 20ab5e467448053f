"""The ``matcaps`` command: the only place that parses arguments or prints. Torch is imported where it is needed."""

import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table

from matcaps._version import __version__
from matcaps.data.settings import CROP_COUNTS
from matcaps.models.presets import list_models
from matcaps.training.recipes import list_recipes, recipe_settings
from matcaps.training.settings import ModelSettings, TrainSettings

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from matcaps.training.evaluation import Evaluation

_EXPERIMENTS_FOLDER = "runs/experiments"
_DATA_SETS = ("mnist", "fashion-mnist", "smallnorb")

_PLAIN: dict[str, Any] = {"markup": False, "soft_wrap": True}
_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


_SOURCE = "folder of a run or of saved weights, weights that come with matcaps, or a name on the Hugging Face hub"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 1 for what went wrong in the work, 2 for wrong arguments."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        _print_help()
        return 0
    if command == "--version":
        _out.print(f"matcaps {__version__}")
        return 0
    if command not in _COMMANDS:
        known = ", ".join(_COMMANDS)
        _err.print(f"matcaps: there is no command {command!r}; the commands are {known}", **_PLAIN)
        return 2
    try:
        with warnings.catch_warnings():
            said: set[str] = set()  # an experiment reads the same files for every trial

            def say_once(message: Warning | str, *_: Any) -> None:
                if str(message) not in said:
                    said.add(str(message))
                    _err.print(f"matcaps {command}: warning: {message}", **_PLAIN)

            warnings.showwarning = say_once
            return _COMMANDS[command](arguments[1:])
    except KeyboardInterrupt:
        hint = {
            "train": "; it goes on with: matcaps train --resume and the run folder printed above",
            "experiment": "; the same command goes on with it",
        }.get(command, "")
        _err.print(f"matcaps {command}: interrupted{hint}", **_PLAIN)
        return 130
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error).__name__ != "TrainingDivergedError":
            raise  # a mistake of ours: show where
        _err.print(f"matcaps {command}: {_describe(error)}", **_PLAIN)
        return 1


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())  # a YAML error has eight lines


def _print_help() -> None:
    _out.print("usage: matcaps COMMAND [--help]\n\nMatrix capsule networks with EM routing.\n\ncommands:", markup=False)
    for name, command in _COMMANDS.items():
        _out.print(f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}", markup=False)
    _out.print("\n  --version  print the version", markup=False)


def _parser(command: str, description: str) -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    class OneLineParser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            _err.print(f"{self.prog}: {_one_line(message)} (see {self.prog} --help)", **_PLAIN)
            sys.exit(2)

    return OneLineParser(prog=f"matcaps {command}", description=description)


def _one_line(message: str) -> str:
    """The parser's complaint in one line; what it says of a value's type in this package's words."""
    key = re.search(r'Parser key "([^"]+)":', message)
    given = re.search(r"(?:Given value:|Got value:) (.*)", message)
    expected = [
        entry for entry in re.findall(r"Expected a (.+?)(?:\. Got value.*)?$", message, re.M) if "None" not in entry
    ]
    if key is None or given is None or not expected:
        return " ".join(message.split())
    kinds = [re.sub(r"<class '(.+)'>|typing\.Literal\[(.+)\]", lambda m: m[1] or f"one of {m[2]}", e) for e in expected]
    return f"{key[1]} must be {' or '.join(kinds)}; got {given[1].strip()!r}"


def _train(arguments: list[str]) -> int:
    """Train a network by a recipe, or resume an interrupted training."""
    from jsonargparse import ActionConfigFile  # pyright: ignore[reportPrivateImportUsage]

    name = _base_recipe(arguments)
    base = TrainSettings() if name == "custom" else recipe_settings(name)  # "custom" is what Python's runs are called
    preset = _option(arguments, "--model.preset")
    if preset not in (None, base.model.preset):  # what the recipe changes in its own network does not fit another
        base = replace(base, model=ModelSettings(preset))
    parser = _parser("train", "Train a network by a recipe. Every setting of the recipe can be changed.")
    parser.add_argument("recipe", nargs="?", help=f"one of {', '.join(list_recipes())}")
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file of settings, such as a run's settings.yaml"
    )
    parser.add_argument("--output", type=str | None, help="the run's folder; default runs/RECIPE-DATE-TIME")
    parser.add_argument(
        "--resume", type=str | None, help="folder of an interrupted run to go on with; no other setting"
    )
    parser.add_class_arguments(TrainSettings, skip={"recipe"})
    values = base.to_dict()
    del values["recipe"]
    parser.set_defaults(_flat(values))
    parsed = parser.parse_args(arguments)
    if parsed.resume is not None:
        if len(arguments) != (2 if arguments[0] == "--resume" else 1):
            raise ValueError("--resume goes on with a run as it was set up: give no recipe or setting with it")
        return _fit(_settings_of(parsed.resume), parsed.resume, resume=True)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before 4.49
    chosen = vars(instantiate(parsed))
    for name in ("config", "output", "resume", "recipe"):
        chosen.pop(name, None)
    return _fit(TrainSettings(recipe=base.recipe, **chosen), parsed.output, resume=False)


def _option(arguments: list[str], option: str) -> str | None:
    """The value that an option has been given, empty if it is missing; None if the option is not there."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else following
    return None


def _base_recipe(arguments: list[str]) -> str:
    """The recipe whose settings are the defaults: named first, or by the configuration file, or the quickstart's."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0]
    config = _option(arguments, "--config")
    if config is not None:
        if not Path(config).is_file():
            raise FileNotFoundError(f"no settings file {config}: give a YAML file, such as a run's settings.yaml")
        from matcaps.training.record import read_settings

        return str(read_settings(Path(config)).get("recipe", "quickstart"))
    if _option(arguments, "--resume") is not None or {"-h", "--help"} & set(arguments):
        return "quickstart"
    raise ValueError(f"name a recipe first: {', '.join(list_recipes())}")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _settings_of(run: str) -> TrainSettings:
    from matcaps.training.record import SETTINGS_NAME, read_settings

    return TrainSettings.from_dict(read_settings(Path(run) / SETTINGS_NAME))


def _fit(settings: TrainSettings, folder: str | None, *, resume: bool) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the first of several processes speaks
        _err.print(f"matcaps {__version__}: training {settings.model.preset} on {settings.data.name}", markup=False)
    from matcaps.training.progress import EpochLines
    from matcaps.training.run import train

    lines = EpochLines(lambda line: _out.print(line, markup=False))
    result = train(settings, folder, resume=resume, callbacks=[lines], progress=sys.stderr.isatty())
    if result.test is not None:
        _out.print(
            f"test accuracy {100 * result.test.accuracy:.2f} % (error {result.test.error_percent:.2f} %) on "
            f"{result.test.num_images} images, after {result.seconds:.0f} s of training\nrun folder: {result.folder}",
            **_PLAIN,
        )
    return 0


def _eval(arguments: list[str]) -> int:
    """Test a trained network on labelled images."""
    parser = _parser("eval", "Test a trained network on labelled images.")
    parser.add_argument("run", type=str, help=_SOURCE)
    parser.add_argument("--data", type=str | None, help="data set to test on; default: the one it was trained on")
    parser.add_argument("--folder", type=str | None, help='with "--data folder": the folder of images')
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parser.add_argument("--part", type=str, default="test", help="test, validation, familiar_test or train")
    parser.add_argument("--crops", type=int | None, help=f"crops of each image to average: one of {CROP_COUNTS}")
    parser.add_argument("--batch_size", type=int, default=200, help="images at a time")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    parsed = parser.parse_args(arguments)
    from matcaps.training.inference import evaluate_saved

    result = evaluate_saved(
        parsed.run,
        data=parsed.data,
        folder=parsed.folder,
        root=parsed.root,
        part=parsed.part,
        num_crops=parsed.crops,
        batch_size=parsed.batch_size,
    )
    if parsed.json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        _print_evaluation(result)
    return 0


def _print_evaluation(result: "Evaluation") -> None:
    table = Table(title="confusion: rows are the true classes, columns the predicted ones")
    table.add_column("")
    for label in range(len(result.classes)):
        table.add_column(str(label), justify="right")
    table.add_column("accuracy", justify="right")
    for label, (name, counts, accuracy) in enumerate(
        zip(result.classes, result.confusion, result.class_accuracy, strict=True)
    ):
        share = "–" if accuracy is None else f"{100 * accuracy:.2f} %"
        table.add_row(f"{label} {name}", *(str(count) if count else "·" for count in counts), share)
    _out.print(table)
    _out.print(
        f"accuracy {100 * result.accuracy:.2f} % (error {result.error_percent:.2f} %) on {result.num_images} images, "
        f"{result.num_images / result.seconds:.0f} images a second",
        markup=False,
    )


def _predict(arguments: list[str]) -> int:
    """Classify image files with a trained network."""
    parser = _parser("predict", "Classify image files; prints the three most active classes of each.")
    parser.add_argument("run", type=str, help=_SOURCE)
    parser.add_argument("images", type=str, nargs="+", help="image files")
    parser.add_argument("--json", action="store_true", help="print all classes' scores as JSON instead")
    parsed = parser.parse_args(arguments)
    from matcaps.training.inference import predict_files

    predictions = predict_files(parsed.run, parsed.images)
    if parsed.json:
        print(json.dumps(predictions, indent=2))
        return 0
    for path, scores in predictions.items():
        best = sorted(scores.items(), key=lambda item: -item[1])[:3]
        _out.print(f"{path}: " + ", ".join(f"{name} {score:.3f}" for name, score in best), **_PLAIN)
    return 0


def _experiment(arguments: list[str]) -> int:
    """Run one of the paper's experiments: trainings and what is measured on them."""
    from matcaps.experiments.definitions import get_experiment, list_experiments
    from matcaps.experiments.plan import make_trials, parse_list, parse_seeds, parse_shard

    parser = _parser(
        "experiment",
        "Run an experiment's trials, one a row and seed. What is done stays, what was interrupted goes on: the same "
        'command again finishes it. Several processes may work in one folder; "matcaps table" shows what has come.',
    )
    parser.add_argument("name", type=str, help=f"one of {', '.join(list_experiments())}")
    parser.add_argument("--rows", type=str | None, help="names of rows, such as iterations-1,cnn; default: all")
    parser.add_argument("--seeds", type=str, default="0", help="seeds of the trainings, such as 0,1,2")
    parser.add_argument("--epochs", type=int | None, help="epochs of every training; default: each row's own")
    parser.add_argument("--shard", type=str, default="1/1", help="k/n: the k-th of n parts of the trials, from 1")
    parser.add_argument("--folder", type=str, default=_EXPERIMENTS_FOLDER, help="folder of all experiments")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parser.add_argument("--max_train_images", type=int | None, help="train on at most so many images, for a quick look")
    parser.add_argument("--max_test_images", type=int | None, help="test on at most so many images")
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
    )
    base = Path(parsed.folder)
    if parsed.list:
        for trial in trials:
            _out.print(f"{trial.folder(base)}: {trial.row.title}", **_PLAIN)
        return 0
    from matcaps.experiments.runner import run_trials
    from matcaps.training.progress import EpochLines

    def write(line: str) -> None:
        _out.print(line, markup=False, soft_wrap=True)

    outcomes = run_trials(
        experiment, trials, base, callbacks=[EpochLines(write)], progress=sys.stderr.isatty(), report=write
    )
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("done", "diverged", "busy")}
    _out.print(", ".join(f"{count} {state}" for state, count in counts.items() if count), **_PLAIN)
    if experiment.caveat:
        _out.print(experiment.caveat, **_PLAIN)
    return 1 if counts["diverged"] else 0


def _table(arguments: list[str]) -> int:
    """Gather an experiment's records into a table and figures, ours beside the paper's."""
    from matcaps.experiments.definitions import get_experiment, list_experiments

    parser = _parser(
        "table", "Print an experiment's table as Markdown, and write it and its figures beside the records."
    )
    parser.add_argument("name", type=str, help=f"one of {', '.join(list_experiments())}")
    parser.add_argument("--folder", type=str, default=_EXPERIMENTS_FOLDER, help="folder of all experiments")
    parser.add_argument("--output", type=str | None, help="folder for the table and figures; default: FOLDER/NAME")
    parsed = parser.parse_args(arguments)
    experiment, base = get_experiment(parsed.name), Path(parsed.folder)
    if not base.is_dir():
        raise FileNotFoundError(
            f"no folder {base}: run matcaps experiment {parsed.name}, or name another with --folder"
        )
    from matcaps.experiments.records import gather
    from matcaps.experiments.tables import make_table
    from matcaps.training.record import write_text
    from matcaps.viz.experiments import draw_experiment
    from matcaps.viz.style import save_figure

    output = Path(parsed.output) if parsed.output is not None else base / experiment.name
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
        _err.print(f"written: {path}", **_PLAIN)
    return 0


def _summary(arguments: list[str]) -> int:
    """Print a network's layers, output shapes and parameters."""
    parser = _parser("summary", "Print a network's layers, their output shapes and parameters.")
    parser.add_argument("preset", type=str, help=f"one of {', '.join(list_models())}")
    parser.add_argument("--in_channels", type=int | None, help="image channels; default: the preset's")
    parser.add_argument("--num_classes", type=int | None, help="classes; default: the preset's")
    parser.add_argument("--image_size", type=int | None, help="side in pixels; default 28 for one channel, else 32")
    parsed = parser.parse_args(arguments)
    from matcaps.models import BaselineCNNConfig, create_model, model_config, summarise

    config = model_config(parsed.preset)
    channels = config.in_channels if parsed.in_channels is None else parsed.in_channels
    size = parsed.image_size if parsed.image_size is not None else 28 if channels == 1 else 32
    changes: dict[str, Any] = {"image_size": (size, size)} if isinstance(config, BaselineCNNConfig) else {}
    network = create_model(parsed.preset, in_channels=channels, num_classes=parsed.num_classes, **changes)
    rows = summarise(network, (size, size))
    table = Table(title=f"{parsed.preset} on {channels}×{size}×{size}")
    table.add_column("layer")
    table.add_column("output: poses, activations" if len(rows[-1].shapes) > 1 else "output")
    table.add_column("parameters", justify="right")
    for row in rows:
        shapes = ", ".join("×".join(map(str, shape)) for shape in row.shapes)
        table.add_row(row.name, shapes, f"{row.num_parameters:,}" if row.num_parameters else "")
    table.add_section()
    table.add_row("all", "", f"{sum(row.num_parameters for row in rows):,}")
    _out.print(table)
    return 0


def _models(arguments: list[str]) -> int:
    """List the networks that "summary" and "train" know."""
    _parser("models", "List the presets.").parse_args(arguments)
    _out.print("\n".join(list_models()))
    return 0


def _data(arguments: list[str]) -> int:
    """List, fetch and verify data sets."""
    parser = _parser("data", "list: what is there; fetch: download what is missing; verify: compare checksums.")
    parser.add_argument("action", type=str, help="list, fetch or verify")
    parser.add_argument("names", type=str, nargs="*", help=f"of {', '.join(_DATA_SETS)}; fetch needs at least one")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parsed = parser.parse_args(arguments)
    if parsed.action not in ("list", "fetch", "verify"):
        raise ValueError(f"the action must be list, fetch or verify; got {parsed.action!r}")
    for name in parsed.names:
        if name not in _DATA_SETS:
            raise ValueError(f"the data set must be one of {', '.join(_DATA_SETS)}; got {name!r}")
    if parsed.action == "fetch" and not parsed.names:
        raise ValueError(f"name what to fetch: {', '.join(_DATA_SETS)}")
    names: list[str] = parsed.names or list(_DATA_SETS)
    return {"list": _list_data, "fetch": _fetch_data, "verify": _verify_data}[parsed.action](names, parsed.root)


def _list_data(names: list[str], root: str | None) -> int:
    from matcaps.data import data_root
    from matcaps.data.files import missing_files

    _out.print(f"data root: {data_root(root)}", **_PLAIN)
    for name in names:
        missing = missing_files(name, root)
        state = f"missing {', '.join(missing)}" if missing else "there"
        _out.print(f"  {name}: {state}", **_PLAIN)
    _out.print("  embedded: there (it comes with matcaps)")
    return 0


def _fetch_data(names: list[str], root: str | None) -> int:
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TimeRemainingColumn, TransferSpeedColumn

    from matcaps.data import fetch

    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=_err, disable=not _err.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        statuses = [status for name in names for status in fetch(name, root, progress=progress)]
    _print_statuses(statuses)
    return 0


def _verify_data(names: list[str], root: str | None) -> int:
    from matcaps.data import verify

    statuses = [status for name in names for status in verify(name, root)]
    _print_statuses(statuses)
    return 0 if all(status.state == "ok" for status in statuses) else 1


def _print_statuses(statuses: list[Any]) -> None:
    for status in statuses:
        _out.print(f"{status.state:<8} {status.path or status.name}: {status.detail}", **_PLAIN)


def _doctor(arguments: list[str]) -> int:
    """Say what this installation has, and what it lacks."""
    parser = _parser("doctor", "Say what this installation has, and what it lacks.")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parsed = parser.parse_args(arguments)
    from matcaps.training.doctor import examine

    for name, finding in examine(parsed.root).items():
        _out.print(f"{name:<16} {finding}", **_PLAIN)
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "predict": _predict,
    "experiment": _experiment,
    "table": _table,
    "summary": _summary,
    "models": _models,
    "data": _data,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
