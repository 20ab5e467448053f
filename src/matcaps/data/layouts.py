"""The layout of a folder of images: which folders are classes, which are parts, and what is not used.

Nothing is misread silently: a layout is recognised, or refused with a message that shows the right one, and
every file and folder that is not used is counted.
"""

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matcaps._paths import user_path
from matcaps.data.images import endings, missing_decoder, shown

PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""The names that the folder of a part may have, in small or capital letters."""
_PARTS = {name: part for part, names in PART_NAMES.items() for name in names}

_OF_THE_SYSTEM = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "__pycache__",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
"""Files and folders that operating systems make; names that begin with a dot are known, too."""

_WANTED = "a folder for each class with its images inside, or train, val and test with those folders inside"
_EXAMPLES = 3


class UnusedFiles:
    """The files and folders that are not used, by reason."""

    def __init__(self) -> None:
        self._paths: dict[str, list[Path]] = {}

    def add(self, reason: str, *paths: Path) -> None:
        """Add some files or folders."""
        if paths:
            self._paths.setdefault(reason, []).extend(paths)

    def __len__(self) -> int:
        return sum(len(paths) for paths in self._paths.values())

    def describe(self, base: Path) -> str:
        """One line: how many, why, and some of them, as seen from a folder."""
        reasons = []
        for reason, paths in self._paths.items():
            names = [shown(path.relative_to(base)) for path in sorted(paths)]
            more = ", ..." if len(names) > _EXAMPLES else ""
            reasons.append(f"{len(names):,} {reason} ({', '.join(names[:_EXAMPLES])}{more})")
        return f"{shown(base)}: {len(self):,} not used: {'; '.join(reasons)}"


@dataclass(frozen=True, eq=False)
class Layout:
    """The images of a folder, found but not read.

    Attributes:
        base: the folder.
        classes: the classes' names, in order.
        places: the folder of each part; "train" alone, the base itself, where there are no parts.
        files: of each part and class the images, in the order of their paths; a class may have none in a part.
        unused: the files and folders that are not used.
    """

    base: Path
    classes: tuple[str, ...]
    places: Mapping[str, Path]
    files: Mapping[str, Mapping[str, tuple[Path, ...]]]
    unused: UnusedFiles


@dataclass(frozen=True)
class _Folder:
    """A folder and its contents: images and folders."""

    path: Path
    images: list[Path] = field(default_factory=list)
    folders: dict[str, "_Folder"] = field(default_factory=dict)

    def all_images(self) -> Iterator[Path]:
        yield from self.images
        for folder in self.folders.values():
            yield from folder.all_images()

    @property
    def is_filled(self) -> bool:
        return next(self.all_images(), None) is not None

    @property
    def filled(self) -> dict[str, "_Folder"]:
        """The folders in it that have images somewhere inside."""
        return {name: folder for name, folder in self.folders.items() if folder.is_filled}


def find_layout(folder: str | os.PathLike[str]) -> Layout:
    """Examine a folder of images without reading any image.

    Args:
        folder: with a folder for each class, or with a folder "train" (or "training"), perhaps "val" ("valid",
            "validation", "dev") and "test" ("testing"), and a folder for each class in each of them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is laid out in another way, or in a way that can be read as two.
    """
    base = check_folder(folder)
    unused = UnusedFiles()
    root = _read_folder(base, unused)
    parts = _find_parts(root)
    if parts is None:
        _check_classes(root)
        unused.add("images outside a class folder", *root.images)
        _add_empty_folders(root, unused)
        files = {"train": _by_class(root, root.filled)}
        return Layout(base, tuple(root.filled), {"train": base}, files, unused)
    unused.add("images outside a class folder", *root.images)
    unused.add("folders beside the parts", *(one.path for name, one in root.folders.items() if name not in parts))
    classes = _parts_classes(root, parts)
    files = {}
    for name, part in parts.items():
        place = root.folders[name]
        unused.add("images outside a class folder", *place.images)
        _add_empty_folders(place, unused)
        files[part] = _by_class(place, classes)
    return Layout(base, classes, {part: base / name for name, part in parts.items()}, files, unused)


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder's path.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is a file.
    """
    base = user_path(folder)
    if base.is_file():
        what = "a zip file: unpack it" if zipfile.is_zipfile(base) else "a file: put the images in a folder"
        raise ValueError(f"folder must be a folder of images; {shown(base)} is {what}, and give the folder")
    if not base.is_dir():
        where = "" if base.is_absolute() else f" ({shown(folder)} is looked for in the folder where the command runs)"
        raise FileNotFoundError(f"folder must be a folder of images; there is none at {shown(base.absolute())}{where}")
    return base


def _read_folder(folder: Path, unused: UnusedFiles, within: frozenset[Path] = frozenset()) -> _Folder:
    """The contents of a folder; ``within`` are the resolved paths of the folders around it."""
    contents, known = _Folder(folder), endings()
    within |= {folder.resolve()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.casefold() in _OF_THE_SYSTEM:
            unused.add("hidden or system files", path)
        elif path.is_dir():
            if path.is_symlink() and path.resolve() in within:
                unused.add("links to a folder around them", path)
            else:
                contents.folders[path.name] = _read_folder(path, unused, within)
        elif not path.is_file():
            unused.add("broken links or special files", path)
        elif path.suffix.lower() in known:
            contents.images.append(path)
        else:
            needed = missing_decoder(path.suffix.lower())
            unused.add("not images by their file names" if needed is None else f"that need pip install {needed}", path)
    return contents


def _find_parts(root: _Folder) -> dict[str, str] | None:
    """Which folders are which parts; None where all folders are classes."""
    filled = root.filled
    named = {name: _PARTS[name.casefold()] for name in root.folders if name.casefold() in _PARTS}
    # A class may well be called "train"; the folder of a part has the classes inside.
    deep = {name: part for name, part in named.items() if filled.get(name) and filled[name].filled}
    where = shown(root.path)
    if not deep:
        if len(named) > 1 and set(filled) <= set(named) and filled:
            raise ValueError(
                f"{where} holds {_listed(filled)} with images, but no folder for each class in them: sort them into "
                f"{next(iter(filled))}/CLASS/image.png"
            )
        return None
    others = [name for name in filled if name not in named]
    if others and (len(deep) == 1 or "train" not in deep.values() or _share_no_class(filled, deep)):
        raise ValueError(
            f"{where} can be read in two ways: {_listed(deep)} with folders inside may be parts or classes beside "
            f"{_listed(others)}: keep {_WANTED}; classes of such names can all be put inside a folder train"
        )
    if "train" not in deep.values():
        raise ValueError(f"{where} holds {_listed(deep)} but no folder train with images: keep {_WANTED}")
    for part in PART_NAMES:
        same = [name for name, own_part in named.items() if own_part == part]
        if len(same) > 1:
            raise ValueError(f"{where} must hold one folder for the part {part}; it holds {_listed(same)}: join them")
    for name in named:
        if name not in deep:
            raise ValueError(
                f"{where}/{name} must hold images in a folder for each class; it holds none: sort them into "
                f"{name}/CLASS, or remove {name}"
            )
    return named


def _share_no_class(filled: Mapping[str, _Folder], deep: Mapping[str, str]) -> bool:
    inside = [set(filled[name].filled) for name in deep]
    return not set.intersection(*inside)


def _parts_classes(root: _Folder, parts: Mapping[str, str]) -> tuple[str, ...]:
    """The classes of the training part; the other parts may have these only."""
    train = next(root.folders[name] for name, part in parts.items() if part == "train")
    classes = tuple(train.filled)
    for name, part in parts.items():
        unknown = sorted(set(root.folders[name].filled) - set(classes)) if part != "train" else []
        if unknown:
            raise ValueError(
                f"{shown(root.path / name)} has the class {unknown[0]!r}, which the training images do not have: "
                f"{list(classes)}"
            )
    return classes


def _check_classes(root: _Folder) -> None:
    """Raise ValueError for a folder without classes, or with something else where classes should be."""
    filled, where = root.filled, shown(root.path)
    if not root.folders:
        there = f"{len(root.images):,} images and no folder" if root.images else "none"
        raise ValueError(f"{where} must hold a folder for each class; it holds {there}: make {where}/NAME/image.png")
    if not filled:
        raise ValueError(
            f"{where} must hold images ({', '.join(endings())}) in a folder for each class; its folders "
            f"{_listed(root.folders)} hold none"
        )
    for name, folder in filled.items():
        if len(filled) == 1 and not folder.images and len(folder.filled) > 1:
            raise ValueError(
                f"{where} holds one folder, {name}, with the folders {_listed(folder.filled)} inside: give "
                f"{where}/{name} if those are the classes or parts"
            )
        inside = {part: one for one in folder.filled for part in [_PARTS.get(one.casefold())] if part}
        if len(inside) > 1:
            raise ValueError(
                f"{where} has the parts inside the classes, {name}/{next(iter(inside.values()))}: keep the classes "
                f"inside the parts, {next(iter(inside.values()))}/{name}"
            )


def _add_empty_folders(place: _Folder, unused: UnusedFiles) -> None:
    unused.add("folders without images", *(one.path for name, one in place.folders.items() if name not in place.filled))


def _by_class(place: _Folder, classes: Iterable[str]) -> dict[str, tuple[Path, ...]]:
    return {name: tuple(sorted(place.folders[name].all_images())) if name in place.folders else () for name in classes}


def _listed(names: Iterable[str]) -> str:
    """Some names, the first few of them."""
    known = list(names)
    return ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
