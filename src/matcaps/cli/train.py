"""``matcaps train``."""

import os
import sys
from dataclasses import replace

from matcaps._paths import user_path
from matcaps._version import __version__
from matcaps.cli.parsing import PLAIN, err, find_option, make_parser, out
from matcaps.cli.report import REPORT_NAME, write_report
from matcaps.data.settings import EARLIER_FOLDER, EARLIER_SPLIT, DataSettings, is_of_an_earlier_version
from matcaps.training.recipes import list_recipes, recipe_settings
from matcaps.training.settings import ModelSettings, TrainSettings, flatten

_OF_A_RUN = {"recipe", "model", "data", "loss", "optimizer", "epochs", "seed", "precision", "checkpoint_minutes"}
"""What the settings.yaml of a run has held from the first version on, and hardly a file written by hand."""


def train_command(arguments: list[str]) -> int:
    """Train a network by a recipe, or resume an interrupted training."""
    from jsonargparse import ActionConfigFile  # pyright: ignore[reportPrivateImportUsage]

    base = _base_settings(arguments)
    preset = find_option(arguments, "--model.preset")
    if preset not in (None, base.model.preset):  # what the recipe changes in its own network does not fit another
        base = replace(base, model=ModelSettings(preset))
    parser = make_parser("train", "Train a network by a recipe. Every setting of the recipe can be changed.")
    parser.add_argument("recipe", nargs="?", help=f"one of {', '.join(list_recipes())}")
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file of settings, such as a run's settings.yaml"
    )
    parser.add_argument("--output", type=str | None, help="the run's folder; default runs/RECIPE-DATE-TIME")
    parser.add_argument(
        "--resume", type=str | None, help="folder of an interrupted run to go on with; no other setting"
    )
    parser.add_argument("--report", type=bool, default=True, help="write report.html into the run's folder at the end")
    parser.add_class_arguments(TrainSettings, skip={"recipe"})
    values = base.to_dict()
    del values["recipe"]
    parser.set_defaults(flatten(values))
    parsed = parser.parse_args(arguments)
    if parsed.resume is not None:
        if len(arguments) != (2 if arguments[0] == "--resume" else 1):
            raise ValueError("--resume goes on with a run as it was set up: give no recipe or setting with it")
        from matcaps.training.record import read_run_settings

        return _fit(read_run_settings(user_path(parsed.resume)), parsed.resume, resume=True, report=True)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before 4.49
    chosen = vars(instantiate(parsed))
    for name in ("config", "output", "resume", "recipe", "report"):
        chosen.pop(name, None)
    settings = TrainSettings(recipe=base.recipe, **chosen)
    if preset is not None and settings.model.pretrained is not None:
        from matcaps.training.tuning import check_preset

        check_preset(settings.model)
    return _fit(settings, parsed.output, resume=False, report=parsed.report)


def _base_settings(arguments: list[str]) -> TrainSettings:
    """What settings are where nothing is said: those of the recipe that is named first, or by the configuration file.

    A run's own file says everything that its version knew. What came later has its neutral default then, and not what
    the recipe of today makes of it, so that the file gives that run again.
    """
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    config, whole, earlier = find_option(arguments, "--config"), False, False
    if config is not None:
        if not user_path(config).is_file():
            raise FileNotFoundError(f"no settings file {config}: give a YAML file, such as a run's settings.yaml")
        from matcaps.training.record import read_settings

        found = read_settings(user_path(config))
        named = named or str(found.get("recipe", "quickstart"))
        whole = found.keys() >= _OF_A_RUN
        earlier = whole and is_of_an_earlier_version(found["data"])
    if named is None:
        if find_option(arguments, "--resume") is None and not {"-h", "--help"} & set(arguments):
            raise ValueError(f"name a recipe first: {', '.join(list_recipes())}")
        named = "quickstart"
    recipe = TrainSettings() if named == "custom" else recipe_settings(named)  # what Python's runs are called
    if not whole:
        return recipe
    neutral = DataSettings()
    if earlier:  # what was neutral then
        neutral = replace(neutral, split=replace(neutral.split, **EARLIER_SPLIT), **EARLIER_FOLDER)
    return TrainSettings(recipe=named, data=neutral)


def _fit(settings: TrainSettings, folder: str | None, *, resume: bool, report: bool) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the first of several processes speaks
        network = settings.model.pretrained or settings.model.preset
        err.print(f"matcaps {__version__}: training {network} on {settings.data.name}", markup=False)
    from matcaps.training.progress import EpochLines
    from matcaps.training.run import train

    lines = EpochLines(lambda line: out.print(line, markup=False))
    result = train(settings, folder, resume=resume, callbacks=[lines], progress=sys.stderr.isatty())
    if result.test is not None:
        out.print(
            f"test accuracy {100 * result.test.accuracy:.2f} % (error {result.test.error_percent:.2f} %) on "
            f"{result.test.num_images} images, after {result.seconds:.0f} s of training\nrun folder: {result.folder}",
            **PLAIN,
        )
        if report:
            write_report([result.folder], result.folder / REPORT_NAME)
    return 0
