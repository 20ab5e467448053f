"""Read the results of trainings with left-out objects: the error and log-loss of each object."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matcaps.data.settings import DataSettings, SplitSettings
from matcaps.experiments.differences import differences
from matcaps.experiments.plan import DIVERGED_NAME
from matcaps.inference.saved import evaluate_saved
from matcaps.models.files import file_digest
from matcaps.models.sources import WEIGHTS_NAME
from matcaps.training.record import (
    METRICS_NAME,
    RESULTS_NAME,
    SETTINGS_NAME,
    read_json,
    read_metrics,
    read_run_settings,
    write_json,
)
from matcaps.training.settings import TrainSettings

ATTRIBUTES = {"instance": "instance", "group": "group"}
"""For each rule that leaves objects out, the attribute that identifies an image's object."""

_OWN_NAME = re.compile(r"[-_]?(fold|seed)[-_]?[^-_]*")
_EPOCHS_ALONE = re.compile(r"[-_]?(\d+epochs)?")


@dataclass(frozen=True)
class ObjectResult:
    """One object that a network never trained on.

    Attributes:
        num_images: number of its images.
        error_percent: share of them that are misclassified.
        log_loss: their mean log-loss in nats, see :mod:`matcaps.training.log_loss`; None if it is not known.
    """

    num_images: int | None
    error_percent: float
    log_loss: float | None


@dataclass(frozen=True)
class FoldRun:
    """One training that left objects out.

    Attributes:
        folder: the run's folder.
        settings: its settings.
        commit: of the checkout that trained it; None if it is not known.
        objects: the objects that were left out, by name.
        origin: the source of the images.
        note: what a reader must know about its results; empty if nothing.
    """

    folder: Path
    settings: TrainSettings
    commit: str | None
    objects: dict[str, ObjectResult]
    origin: str = ""
    note: str = ""

    @property
    def fold(self) -> tuple[int | str, ...]:
        """What the run left out, as its settings name it."""
        return _left_out(self.settings.data.split)


@dataclass(frozen=True)
class FoldRecipe:
    """Trainings that differ only in the objects that they leave out and in their seeds.

    Attributes:
        name: its name in tables.
        runs: at most one for each fold and seed.
    """

    name: str
    runs: tuple[FoldRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in ascending order."""
        return tuple(sorted({run.settings.seed for run in self.runs}))

    @property
    def objects(self) -> tuple[str, ...]:
        """All objects' names, in the order of the folds."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.objects))


@dataclass(frozen=True)
class Gathered:
    """The runs in some folders.

    Attributes:
        recipes: those with a finished run, in the order in which they were found.
        unfinished: lines about unfinished runs.
    """

    recipes: tuple[FoldRecipe, ...]
    unfinished: tuple[str, ...] = field(default=())


def gather_folds(folders: Sequence[Path], *, root: str | None = None, memory: Path | None = None) -> Gathered:
    """Read all runs in some folders that leave objects out, and group those that differ in nothing else.

    Runs of versions without log-loss are tested again on their left-out objects, if their weights and the data
    exist.

    Args:
        folders: runs, or folders that hold runs, up to two levels deep.
        root: folder that holds the data sets; None: as in each run.
        memory: a JSON file, created if missing, that stores the results of testing again, by the SHA-256 of the
            weights; None: nothing is stored.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it that leaves objects out.
        ValueError: a record is malformed, or two runs of a recipe have the same fold and seed.
    """
    places = list(dict.fromkeys(place for folder in folders for place in _runs_in(folder)))
    chosen = [(place, read_run_settings(place)) for place in places]
    chosen = [(place, settings) for place, settings in chosen if leaves_objects_out(settings.data)]
    if not chosen:
        raise FileNotFoundError(
            f"no run in {', '.join(map(str, folders))} leaves objects of the training part out: matcaps experiment "
            "folds makes such runs"
        )
    unfinished, runs = [], []
    for place, settings in chosen:
        state = _unfinished(place)
        if state:
            unfinished.append(f"{place.name}: {state}")
        else:
            runs.append(_read(place, settings, root, memory))
    return Gathered(_recipes(runs), tuple(unfinished))


def leaves_objects_out(data: DataSettings) -> bool:
    """Whether a run with these data is tested on objects of the part that it trained on."""
    split = data.split
    return split.rule == "group" or (split.rule == "instance" and bool(_left_out(split)) and split.source != "both")


def _left_out(split: SplitSettings) -> tuple[int | str, ...]:
    return split.test_instances or split.test_groups


def _runs_in(folder: Path) -> list[Path]:
    """A run, or the runs in a folder or in its folders."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give runs, or folders that hold runs")
    if (folder / SETTINGS_NAME).is_file():
        return [folder]
    folders = {path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{SETTINGS_NAME}")}
    return sorted(folders)


def _unfinished(folder: Path) -> str:
    """Why a run has no result; empty if it has one."""
    if (folder / DIVERGED_NAME).is_file():
        return "diverged"
    if not (folder / RESULTS_NAME).is_file():
        return f"not done yet, {len(read_metrics(folder / METRICS_NAME))} epochs so far"
    if read_json(folder / RESULTS_NAME)["test"] is None:
        return "not tested: matcaps train --resume with its folder and --test end does it"
    return ""


def _read(folder: Path, settings: TrainSettings, root: str | None, memory: Path | None) -> FoldRun:
    results = read_json(folder / RESULTS_NAME)
    attribute = ATTRIBUTES[settings.data.split.rule]
    test, note = results["test"], ""
    if attribute not in test.get("log_loss_by", {}):
        try:
            test = _tested_again(folder, attribute, root, memory)
        except (FileNotFoundError, ValueError) as error:
            note = f"{folder.name} has no log-loss: it is of an earlier version, and cannot be tested again: {error}"
        else:
            note = f"{folder.name} kept no log-loss, and was tested again from its weights"
            difference = round(test["num_images"] * (test["accuracy"] - results["test"]["accuracy"]))
            if difference:
                note += f", with {abs(difference)} images {'more' if difference > 0 else 'fewer'} right than then"
    try:
        objects = _objects(test, attribute, settings.data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / RESULTS_NAME}: its test by {attribute} is malformed: {error!r}") from error
    return FoldRun(folder, settings, results.get("commit"), objects, results.get("data_origin", ""), note)


def _tested_again(folder: Path, attribute: str, root: str | None, memory: Path | None) -> dict[str, Any]:
    """Test the weights; if these weights were tested before, return the stored results."""
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise FileNotFoundError(f"it has no weights in {folder}")
    digest = file_digest(weights)
    stored = read_json(memory) if memory is not None and memory.is_file() else {}
    if digest not in stored:
        stored[digest] = evaluate_saved(str(folder), root=root, by=attribute).to_dict()
        if memory is not None:
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(memory, stored)
    return json.loads(json.dumps(stored[digest]))  # keys become strings, as in the stored file


def _objects(test: dict[str, Any], attribute: str, data: DataSettings) -> dict[str, ObjectResult]:
    accuracies, counts = test["class_accuracy_by"][attribute], test.get("num_images_by", {}).get(attribute, {})
    losses = test.get("log_loss_by", {}).get(attribute, {})
    results = {}
    if attribute == "group":  # one object, whatever the classes of its images
        for value, by_class in accuracies.items():
            own = [label for label, accuracy in enumerate(by_class) if accuracy is not None]
            total = sum(counts[value][label] for label in own)
            accuracy, loss = (
                sum(counts[value][label] * values[value][label] for label in own) / total
                for values in (accuracies, losses)
            )
            name = test["value_names"][attribute][value]
            results[name] = ObjectResult(total, 100 * (1 - accuracy), loss)
        return results
    for value, by_class in accuracies.items():
        for label, accuracy in enumerate(by_class):
            if accuracy is not None:
                loss = losses[value][label] if losses else None
                count = counts[value][label] if counts else None
                results[f"{test['classes'][label]} {value}"] = ObjectResult(count, 100 * (1 - accuracy), loss)
    return results


def _recipes(runs: Iterable[FoldRun]) -> tuple[FoldRecipe, ...]:
    groups: list[list[FoldRun]] = []
    for run in runs:
        for group in groups:
            same_place = group[0].folder.resolve().parent == run.folder.resolve().parent
            if same_place and not differences(_neutral(group[0].settings), _neutral(run.settings)):
                group.append(run)
                break
        else:
            groups.append([run])
    for group in groups:
        seen: dict[tuple[Any, ...], FoldRun] = {}
        for run in group:
            other = seen.setdefault((run.fold, run.settings.seed), run)
            if other is not run:
                raise ValueError(
                    f"{other.folder} and {run.folder} have the same settings, leave out the same objects and have the "
                    "same seed: name one of them alone"
                )
    names = _distinct([_name(group) for group in groups])
    return tuple(FoldRecipe(name, tuple(group)) for name, group in zip(names, groups, strict=True))


def recipe_differences(first: FoldRecipe, second: FoldRecipe) -> list[str]:
    """The settings in which two recipes differ, except what is left out and the seed."""
    return differences(_neutral(first.runs[0].settings), _neutral(second.runs[0].settings))


def _neutral(settings: TrainSettings) -> TrainSettings:
    """Settings without those that differ between the folds of a recipe."""
    split = replace(settings.data.split, rule="official", source="both", test_instances=(), test_groups=(), groups=None)
    return replace(settings, seed=0, data=replace(settings.data, split=split))


def _name(group: Sequence[FoldRun]) -> str:
    """The name of the runs' folders without fold and seed, or else of the folder that contains them."""
    names = [_OWN_NAME.sub("", run.folder.resolve().name).strip("-_") for run in group]
    if all(_EPOCHS_ALONE.fullmatch(name) for name in names):
        return group[0].folder.resolve().parent.name
    return names[0] if len(set(names)) == 1 else group[0].folder.resolve().parent.name


def _distinct(names: Sequence[str]) -> list[str]:
    return [
        name if list(names).count(name) == 1 else f"{name} ({list(names[:place]).count(name) + 1})"
        for place, name in enumerate(names)
    ]
