"""A recipe tested on objects that it never trained on, without the test part: each object is left out once.

The objects are smallNORB's toys, or groups of a folder's images: patients, sessions, devices. Imports torch only
to read such a folder.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields, replace

from matcaps.data.settings import SplitSettings
from matcaps.experiments.plan import Experiment, Row
from matcaps.training.settings import TrainSettings

FOLDS = "folds"
"""The name for ``matcaps experiment`` and ``matcaps table``."""

TRAINING_TOYS = (4, 6, 7, 8, 9)
"""smallNORB's instances in the published training part, the same numbers in each class."""

SET_BY_FOLDS = {
    **dict.fromkeys(
        (f"data.split.{entry.name}" for entry in fields(SplitSettings) if entry.name != "seed"),
        "they divide the training part by its objects, and keep no validation images",
    ),
    "watched_parts": "nothing is tested before the end",
    "test": "the left-out objects are tested at the end, the test part never",
    "epochs": "give --epochs",
    "seed": "give --seeds",
}
"""Settings that the folds set themselves, and why."""

_CAVEAT = (
    "What is tested is left out of the training part; the test part was not looked at. "
    "matcaps table folds compares recipes object by object."
)
_LONGEST_NAME = 60


def fold_experiment(
    name: str, settings: TrainSettings, *, groups: str | None = None, count: int | None = None
) -> Experiment:
    """The trainings of a recipe, one for each fold, which leaves some objects out and tests on them.

    Args:
        name: of the folder in which the trainings lie.
        settings: the recipe's; those in :data:`SET_BY_FOLDS` are set here.
        groups: for a folder of images, the table with the group of each image, see
            :func:`matcaps.data.groups.read_groups`.
        count: for such a folder, the number of folds; None: five. smallNORB has five, one for each toy of a class.

    Raises:
        FileNotFoundError: the folder or its table of groups does not exist.
        ValueError: the data have no objects to leave out, or not enough of them.
    """
    settings = replace(settings, test="end", watched_parts=(), views_every=0)
    if settings.data.name == "folder":
        return Experiment(name, f"{name}: groups left out", _group_rows(settings, groups, count), caveat=_CAVEAT)
    if settings.data.name != "smallnorb":
        raise ValueError(
            f"folds must have data whose objects are known; got data.name={settings.data.name}: use smallnorb, or a "
            "folder of images with --groups"
        )
    if groups is not None or count is not None:
        raise ValueError("groups and folds must be left out for smallnorb: its five toys of each class are the folds")
    rows = tuple(
        Row(f"fold{toy}", f"toy {toy} of each class left out", _leaving_out(settings, toy)) for toy in TRAINING_TOYS
    )
    return Experiment(name, f"{name}: objects left out", rows, caveat=_CAVEAT)


def _leaving_out(settings: TrainSettings, toy: int) -> TrainSettings:
    split = SplitSettings(
        rule="instance",
        source="train",
        test_instances=(toy,),
        seed=settings.data.split.seed,
    )
    return replace(settings, data=replace(settings.data, split=split))


def _group_rows(settings: TrainSettings, table: str | None, count: int | None) -> tuple[Row, ...]:
    # imported here, because they import torch
    from matcaps.data.groups import count_images, make_folds, read_groups
    from matcaps.data.layouts import find_layout

    if table is None:
        raise ValueError("folds of a folder of images must have --groups: a CSV file with the columns file and group")
    assert settings.data.folder is not None
    groups = read_groups(find_layout(settings.data.folder), table)
    folds = make_folds(groups, 5 if count is None else count)
    images = count_images(groups, folds)
    rows = []
    for number, left_out in enumerate(folds, 1):
        split = SplitSettings(
            rule="group", source="train", groups=table, test_groups=left_out, seed=settings.data.split.seed
        )
        total = sum(counts[number - 1] for counts in images.values())
        by_class = ", ".join(f"{name} {counts[number - 1]}" for name, counts in [*images.items()][:5])
        title = (
            f"{len(left_out)} of {len(groups.names)} groups left out, {total} of {len(groups.labels)} images "
            f"({by_class}{', ...' if len(images) > 5 else ''})"
        )
        rows.append(Row(f"fold{number}", title, replace(settings, data=replace(settings.data, split=split))))
    return tuple(rows)


def folds_name(recipe: str, changes: Mapping[str, str]) -> str:
    """The name of a recipe with changed settings, usable as a folder's name.

    Args:
        recipe: the recipe's name.
        changes: the changed settings' full names and values.

    Example:
        >>> folds_name("smallnorb", {"loss.name": "cross-entropy"})
        'smallnorb-loss.name=cross-entropy'
    """
    whole = "-".join([recipe, *(f"{name}={value}" for name, value in changes.items())])
    plain = re.sub(r"[^\w.=-]+", "-", whole, flags=re.ASCII).strip("-.")
    if plain == whole and len(whole) <= _LONGEST_NAME:
        return whole
    return f"{plain[:_LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"
