"""``matcaps train``."""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal

from matcaps._paths import user_path
from matcaps._version import __version__
from matcaps.cli.parsing import PLAIN, err, find_option, make_parser, out
from matcaps.cli.report import REPORT_NAME, write_report
from matcaps.data.settings import EARLIER_FOLDER, EARLIER_SPLIT, DataSettings, is_of_an_earlier_version
from matcaps.training.recipes import list_recipes, recipe_settings
from matcaps.training.settings import (
    INCIDENTAL,
    INCIDENTAL_DATA,
    ModelSettings,
    TrainSettings,
    changes_of_a_run,
    flatten,
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_OF_A_RUN = {"recipe", "model", "data", "loss", "optimizer", "epochs", "seed", "precision", "checkpoint_minutes"}
"""The entries of every run's settings.yaml since the first version; a file written by hand rarely has them all."""


IF_BEGUN = ("refuse", "resume")


def train_command(arguments: list[str]) -> int:
    """Train a network by a recipe, or resume an interrupted training."""
    from jsonargparse import ActionConfigFile  # pyright: ignore[reportPrivateImportUsage]

    base = _base_settings(arguments)
    preset, resumed = (find_option(arguments, option) for option in ("--model.preset", "--resume"))
    if resumed is None:
        base = with_preset(base, preset)
    parser = make_parser("train", "Train a network by a recipe. Every setting of the recipe can be changed.")
    parser.add_argument("recipe", nargs="?", help=f"one of {', '.join(list_recipes())}")
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file of settings, such as a run's settings.yaml"
    )
    parser.add_argument("--output", type=str | None, help="the run's folder; default runs/RECIPE-DATE-TIME")
    parser.add_argument(
        "--resume",
        type=str | None,
        help="folder of a run to continue, interrupted or finished; of its settings only --epochs can change, and "
        "settings that change no number, such as --data.root",
    )
    parser.add_argument(
        "--if_begun",
        choices=IF_BEGUN,
        default=_if_begun(os.environ),
        help="where a run has begun in the folder of --output: refuse it, or resume it if its settings are these. "
        "Resuming is for what starts the command again, and the default under torchrun --max-restarts",
    )
    parser.add_argument("--report", type=bool, default=True, help="write report.html into the run's folder at the end")
    parsed, settings = parse_settings(parser, base, arguments)
    if parsed.resume is not None:
        from matcaps.training.record import read_run_settings

        _check_resumption(arguments, read_run_settings(user_path(parsed.resume)), settings)
        return _fit(settings, parsed.resume, resume=True, report=parsed.report)
    if preset is not None and settings.model.pretrained is not None:
        from matcaps.training.tuning import check_preset

        check_preset(settings.model)
    if parsed.if_begun == "resume":
        if parsed.output is None:
            raise ValueError("--if_begun resume continues the run in a folder: name it, --output FOLDER")
        return _fit(settings, parsed.output, resume="if-begun", report=parsed.report)
    return _fit(settings, parsed.output, resume=False, report=parsed.report)


def _if_begun(environment: Mapping[str, str]) -> str:
    """Whether a launcher starts the command again after a failure; each machine's torchrun tells its processes."""
    restarts = environment.get("TORCHELASTIC_MAX_RESTARTS", "0")
    return "resume" if restarts.isdecimal() and int(restarts) > 0 else "refuse"


def with_preset(base: TrainSettings, preset: str | None) -> TrainSettings:
    """A recipe's settings with another preset; the recipe's changes to its own preset are dropped."""
    return base if preset in (None, base.model.preset) else replace(base, model=ModelSettings(str(preset)))


def parse_settings(
    parser: "ArgumentParser", base: TrainSettings, arguments: list[str]
) -> tuple["Namespace", TrainSettings]:
    """Read arguments that set settings by their full names.

    Args:
        parser: knows the command's other arguments.
        base: the settings that the arguments do not set.
        arguments: such as ``["--loss.name=cross-entropy"]``.

    Returns:
        All parsed arguments, and the settings.
    """
    parser.add_class_arguments(TrainSettings, skip={"recipe"})
    values = base.to_dict()
    del values["recipe"]
    parser.set_defaults(flatten(values))
    parsed = parser.parse_args(arguments)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before 4.49
    chosen = vars(instantiate(parsed))
    own = {entry.name for entry in fields(TrainSettings)} - {"recipe"}
    return parsed, TrainSettings(recipe=base.recipe, **{name: value for name, value in chosen.items() if name in own})


def _check_resumption(arguments: list[str], run: TrainSettings, settings: TrainSettings) -> None:
    """Refuse changes that are not possible when a run is continued, and name them."""
    if not arguments[0].startswith("-"):
        raise ValueError(f"--resume continues a run with its own settings: give no recipe with it; got {arguments[0]}")
    for option in ("--config", "--output"):
        if find_option(arguments, option) is not None:
            raise ValueError(f"--resume continues a run in its folder, with its own settings: give no {option} with it")
    changed = changes_of_a_run(run.to_dict(), settings.to_dict())
    fixed = [line for line in changed if not line.startswith("epochs: ")]
    if fixed:
        raise ValueError(
            f"--resume continues a run with its own settings; these cannot be changed: {'; '.join(fixed)} (--epochs "
            "can, and "
            f"{', '.join(f'--{name}' for name in (*INCIDENTAL, *(f'data.{name}' for name in INCIDENTAL_DATA)))})"
        )


def _base_settings(arguments: list[str]) -> TrainSettings:
    """The default settings: those of the recipe named first, or in the configuration file; of a resumed run, its own.

    A run's own file has all settings that its version knew. Later settings then have their neutral defaults, not those
    of the present recipe, so that the file reproduces the run.
    """
    resumed = find_option(arguments, "--resume")
    if resumed is not None:
        from matcaps.training.record import SETTINGS_NAME, read_run_settings

        exists = (user_path(resumed) / SETTINGS_NAME).is_file()
        return read_run_settings(user_path(resumed)) if exists else TrainSettings()  # resuming then refuses it
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if sum(one == "--config" or one.startswith("--config=") for one in arguments) > 1:
        raise ValueError("--config takes one file of settings; got several: put their settings into one")
    config, whole, earlier = find_option(arguments, "--config"), False, False
    if config is not None:
        entries = _read_config(config)
        named = named or str(entries.get("recipe", "quickstart"))
        whole = entries.keys() >= _OF_A_RUN
        earlier = whole and is_of_an_earlier_version(entries["data"])
    if named is None:
        if not {"-h", "--help"} & set(arguments):
            raise ValueError(f"name a recipe first: {', '.join(list_recipes())}")
        named = "quickstart"
    recipe = (
        TrainSettings() if named == "custom" else recipe_settings(named)
    )  # "custom" is the name of runs from Python
    if not whole:
        return recipe
    neutral = DataSettings()
    if earlier:  # the neutral values of that version
        neutral = replace(neutral, split=replace(neutral.split, **EARLIER_SPLIT), **EARLIER_FOLDER)
    return TrainSettings(recipe=named, data=neutral)


def _read_config(config: str) -> dict[str, Any]:
    """A file of settings, of plain values alone: of a name of a class the parser would import its module."""
    if not user_path(config).is_file():
        raise FileNotFoundError(f"no settings file {config}: give a YAML file, such as a run's settings.yaml")
    from matcaps.training.record import read_settings

    entries = read_settings(user_path(config))
    data = entries.get("data")
    parts = {name: entries.get(name, {}) for name in ("model", "loss", "optimizer", "data")}
    parts |= {f"data.{name}": data.get(name, {}) for name in ("split", "transform") if isinstance(data, dict)}
    for name, part in parts.items():
        if not isinstance(part, dict) or "class_path" in part:
            got = "class_path" if isinstance(part, dict) else type(part).__name__
            raise ValueError(f"{name} in {config} must be a mapping of settings to plain values; got {got}")
    return entries


def _fit(settings: TrainSettings, folder: str | None, *, resume: bool | Literal["if-begun"], report: bool) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # only the first of several processes prints
        network = settings.model.pretrained or settings.model.preset
        err.print(f"matcaps {__version__}: training {network} on {settings.data.name}", **PLAIN)
        if resume == "if-begun" and folder is not None and (user_path(folder) / "settings.yaml").is_file():
            err.print(f"matcaps train: the run in {folder} has begun, and continues", **PLAIN)
    from matcaps.cli.steps import EpochSteps
    from matcaps.training.progress import EpochLines
    from matcaps.training.run import train

    lines = EpochLines(lambda line: out.print(line, **PLAIN))
    with EpochSteps() as steps:
        result = train(settings, folder, resume=resume, callbacks=[lines, steps])
    if result.speaks:
        from matcaps.training.record import RESULTS_NAME, read_json
        from matcaps.training.tested import describe_tested

        how_good = (
            ""
            if result.test is None
            else (
                f"test accuracy {100 * result.test.accuracy:.2f} % (error {result.test.error_percent:.2f} %) on "
                f"{result.test.num_images} images, "
            )
        )
        out.print(f"{how_good}after {result.seconds:.0f} s of training", **PLAIN)
        if tested := describe_tested(read_json(result.folder / RESULTS_NAME)):
            out.print(tested, **PLAIN)
        out.print(f"run folder: {result.folder}", **PLAIN)
        if report:
            write_report([result.folder], result.folder / REPORT_NAME)
    return 0
