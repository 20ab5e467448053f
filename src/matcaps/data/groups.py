"""The group of each image of a folder (a patient, a session, a device), and folds that keep groups together.

Images of one group are similar in ways that do not depend on their class, so a network that was trained on some of
them recognises the others too easily. Imports torch only to add the groups to images.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from matcaps._paths import named_errors, user_path
from matcaps.data.dataset import ImageDataset
from matcaps.data.images import shown
from matcaps.data.layouts import Layout
from matcaps.data.names import as_text

FILE, GROUP = "file", "group"
"""The columns of a table of groups; it may have others."""

_NAMED = 3


@dataclass(frozen=True)
class Groups:
    """The groups of a folder's training images.

    Attributes:
        names: the groups' names, in order.
        numbers: of each image, in the order of the classes and paths, its group's place among the names.
        labels: of each image its class's number.
        classes: the classes' names.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def counts(self) -> np.ndarray:
        """Images by group and class: ``[groups, classes]``, int64."""
        counts = np.zeros((len(self.names), len(self.classes)), np.int64)
        np.add.at(counts, (list(self.numbers), list(self.labels)), 1)
        return counts


def read_groups(layout: Layout, table: str | os.PathLike[str]) -> Groups:
    """Read a CSV file with the group of each training image of a folder.

    The file is UTF-8, its first line names the columns, one of them "file" and one "group", and commas, semicolons or
    tabs separate them. A file is named by its path in the folder, by its path in the training part, or by its name
    alone if only one image has it. Images of the folder's other parts may also be listed.

    Args:
        layout: of the folder, see :func:`matcaps.data.layouts.find_layout`.
        table: the CSV file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not as above; it names an image twice, or one that does not exist; or a training image is
            missing.
    """
    path = user_path(table)
    known = _Known(layout)
    group_of: dict[Path, str] = {}
    unknown: list[str] = []
    for line, name, group in _rows(path):
        image = known.image(name, f"{shown(path)}, line {line}")
        if image is None:
            unknown.append(f"{name} (line {line})")
        elif image in group_of:
            raise ValueError(f"{shown(path)}, line {line}: names {shown(name)} a second time: keep one line per image")
        elif not group:
            raise ValueError(f"{shown(path)}, line {line}: {shown(name)} must have a group; it has an empty one")
        else:
            group_of[image] = group
    where = shown(layout.base)
    if unknown:
        raise ValueError(f"{shown(path)} names {_some(unknown)}, but no such image is in {where}: remove these lines")
    images = [(image, label) for label, own in enumerate(layout.files["train"].values()) for image in own]
    missing = [shown(image.relative_to(layout.base)) for image, _ in images if image not in group_of]
    if missing:
        raise ValueError(
            f"{shown(path)} must have a line for every training image of {where}; none for {_some(missing)}"
        )
    names = tuple(sorted({group_of[image] for image, _ in images}))
    places = {name: place for place, name in enumerate(names)}
    return Groups(
        names,
        tuple(places[group_of[image]] for image, _ in images),
        tuple(label for _, label in images),
        layout.classes,
    )


def with_groups(images: ImageDataset, layout: Layout, table: str | os.PathLike[str]) -> ImageDataset:
    """The images of a folder's training part with their groups as an attribute; raises as :func:`read_groups` does."""
    import torch

    groups = read_groups(layout, table)
    assert tuple(images.labels.tolist()) == groups.labels
    return replace(
        images,
        attributes={**images.attributes, GROUP: torch.tensor(groups.numbers, dtype=torch.int64)},
        value_names={**images.value_names, GROUP: groups.names},
    )


def make_folds(groups: Groups, count: int) -> tuple[tuple[str, ...], ...]:
    """Put whole groups into folds, with shares of every class, and of the images, as even as the groups allow.

    Large groups come first, each into the fold that it leaves most even; then groups move, or change places, as long
    as that makes the folds more even. The same groups give the same folds, whatever the order of the table.

    Args:
        groups: see :func:`read_groups`.
        count: how many folds, 2 or more.

    Returns:
        The names of each fold's groups, in order.

    Raises:
        ValueError: there are fewer groups than folds, or a class is in only one group, so that it would have no
            training images when that group is left out.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise ValueError(f"folds must be 2 or more; got {count!r}")
    if count > len(groups.names):
        raise ValueError(f"folds must be at most {len(groups.names)}, as many as there are groups; got {count}")
    counts = groups.counts()
    lonely = [label for label, own in enumerate((counts > 0).sum(axis=0)) if own == 1]
    if lonely:
        raise ValueError(
            f"each class must be in two groups or more, or it has no training images when its group is left out; "
            f"{groups.classes[lonely[0]]!r} is in {groups.names[int(np.argmax(counts[:, lonely[0]] > 0))]!r} alone"
        )
    shares = np.concatenate(
        [counts / counts.sum(axis=0).clip(min=1), counts.sum(axis=1, keepdims=True) / counts.sum()], 1
    )
    order = sorted(range(len(counts)), key=lambda place: (-counts[place].sum(), groups.names[place]))
    fold_of = np.full(len(counts), -1)
    sums = np.zeros((count, shares.shape[1]))
    for position, place in enumerate(order):
        empty = [fold for fold in range(count) if not (fold_of == fold).any()]
        # each fold gets a group, even where few groups are left
        open_folds = empty if len(empty) >= len(order) - position else range(count)
        fold = min(open_folds, key=lambda one: (_unevenness_with(sums, one, shares[place]), one))
        fold_of[place], sums[fold] = fold, sums[fold] + shares[place]
    _even_out(fold_of, sums, shares)
    folds = [tuple(groups.names[place] for place in np.flatnonzero(fold_of == fold)) for fold in range(count)]
    return tuple(sorted(folds))


def _unevenness_with(sums: np.ndarray, fold: int, added: np.ndarray) -> float:
    """By how much the sum of squares, over classes and images, grows if a group is added to a fold."""
    return round(float((added * (2 * sums[fold] + added)).sum()), 12)


def _even_out(fold_of: np.ndarray, sums: np.ndarray, shares: np.ndarray) -> None:
    """Move groups and swap pairs of groups as long as the folds become more even; in place."""
    for _ in range(10):
        changed = False
        for place in range(len(fold_of)):
            home = fold_of[place]
            if (fold_of == home).sum() > 1:
                gains = [
                    float(2 * (shares[place] * (sums[home] - shares[place] - sums[fold])).sum())
                    if fold != home
                    else 0.0
                    for fold in range(len(sums))
                ]
                best = int(np.argmax(gains))
                if gains[best] > 1e-9:
                    sums[home] -= shares[place]
                    sums[best] += shares[place]
                    fold_of[place] = best
                    changed = True
                    continue
            # of all groups elsewhere the one with which changing places gains most
            moved = shares - shares[place]
            away = sums[fold_of]
            gain = 2 * (moved * (away - sums[home] - moved)).sum(axis=1)
            gain[fold_of == home] = 0.0
            other = int(np.argmax(gain))
            if gain[other] > 1e-9:
                there = fold_of[other]
                sums[home] += moved[other]
                sums[there] -= moved[other]
                fold_of[place], fold_of[other] = there, home
                changed = True
        if not changed:
            return


class _Known:
    """The images of a folder, by every name that a table may use for them."""

    def __init__(self, layout: Layout):
        self._by_path: dict[str, Path] = {}
        names: Counter[str] = Counter()
        by_name: dict[str, Path] = {}
        for part, files in layout.files.items():
            for image in (one for own in files.values() for one in own):
                for start in (layout.base, layout.places[part]) if part == "train" else (layout.base,):
                    self._by_path[as_text(image.relative_to(start).as_posix())] = image
                names[as_text(image.name)] += 1
                by_name[as_text(image.name)] = image
        self._by_name = {name: image for name, image in by_name.items() if names[name] == 1}
        self._several = {name for name, number in names.items() if number > 1}

    def image(self, name: str, where: str) -> Path | None:
        """The image of that name; None if there is none."""
        name = name.replace("\\", "/").removeprefix("./")
        if name in self._by_path:
            return self._by_path[name]
        if name in self._several:
            raise ValueError(f"{where}: several images are called {shown(name)}: name its folder, too")
        return self._by_name.get(name)


def _rows(path: Path) -> Iterable[tuple[int, str, str]]:
    """Line, file and group of each row."""
    if not path.is_file():
        raise FileNotFoundError(
            f"groups must be a CSV file with the columns {FILE} and {GROUP}; there is none at {path}"
        )
    try:
        with named_errors(path):
            text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)} must be UTF-8; byte {error.start} is not: save it as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=first.count)
    try:
        rows = list(_numbered(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{shown(path)} is not a CSV file: {error}") from error
    header = [name.strip().casefold() for name in rows[0][1]] if rows else []
    if header.count(FILE) != 1 or header.count(GROUP) != 1:
        raise ValueError(
            f"{shown(path)} must begin with a line that names its columns, {FILE} and {GROUP} among them; it begins "
            f"with {shown(first.strip()[:80]) if first.strip() else 'an empty line'}"
        )
    file, group = header.index(FILE), header.index(GROUP)
    for line, row in rows[1:]:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise ValueError(
                f"{shown(path)}, line {line}: must have {len(header)} cells, as the first line; got {len(row)}"
            )
        yield line, row[file].strip(), row[group].strip()


def _numbered(reader: "csv.Reader") -> Iterable[tuple[int, list[str]]]:  # pyright: ignore
    for row in reader:
        yield reader.line_num, row


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def count_images(groups: Groups, folds: Sequence[Sequence[str]]) -> Mapping[str, list[int]]:
    """The number of images of each class in each fold, to see how even the folds are."""
    counts, places = groups.counts(), {name: place for place, name in enumerate(groups.names)}
    return {
        name: [int(sum(counts[places[group], label] for group in fold)) for fold in folds]
        for label, name in enumerate(groups.classes)
    }
