"""A folder of images, one folder inside for each class, as a set of labelled images."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from matcaps.data.dataset import ImageDataset
from matcaps.data.images import check_reading, read_known_image, shown
from matcaps.data.layouts import Layout, check_folder, find_layout
from matcaps.data.settings import Fit, Transparency

_NAMED = 10
"""How many images that cannot be read are named, after the first."""

_EARLIER_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


def load_image_folder(
    folder: str | os.PathLike[str],
    image_size: int = 32,
    channels: int = 1,
    *,
    split: str = "train",
    fit: Fit = "crop",
    transparency: Transparency = "auto",
) -> ImageDataset | None:
    """The images of a folder, by class.

    Either the classes are folders in ``folder``, or ``folder`` holds a folder ``train``, and perhaps ``val`` and
    ``test``, with the classes inside; see :func:`matcaps.data.layouts.find_layout`. Classes are numbered in the order
    of their names, images in the order of their paths. One warning names the files that are not used.

    Args:
        folder: the folder.
        image_size: side in pixels of every image after resizing.
        channels: 1 for grey, 3 for colour.
        split: ``"train"``, or ``"validation"`` or ``"test"`` for the folder of that part.
        fit: how pictures that are not square are fitted, as in :func:`matcaps.data.images.read_image`.
        transparency: the ground under transparent pixels, as in the same function.

    Returns:
        The images; None if the folder has no such part. ``indices`` number the images of the split.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has another layout, the test images have other classes, or an image cannot be read.
    """
    layout = find_layout(folder)
    warn_of_unused_files(layout)
    return read_part(layout, split, image_size, channels, fit=fit, transparency=transparency)


def warn_of_unused_files(layout: Layout) -> None:
    """Warn about files that are not used, and about classes without images in a part."""
    if len(layout.unused):
        warnings.warn(layout.unused.describe(layout.base), stacklevel=3)
    for part, files in layout.files.items():
        missing = [name for name, paths in files.items() if not paths]
        if missing:
            warnings.warn(f"{layout.places[part]} has no image of {', '.join(missing)}", stacklevel=3)


def read_part(
    layout: Layout, part: str, image_size: int, channels: int, *, fit: Fit, transparency: Transparency
) -> ImageDataset | None:
    """The images of one part, each with the key that identifies its picture; None if there is no such part."""
    if part not in layout.files:
        return None
    return _read(
        layout.files[part], part, layout.places[part], image_size, channels, fit=fit, transparency=transparency
    )


def read_earlier(
    folder: str | os.PathLike[str],
    part: str,
    image_size: int,
    channels: int,
    *,
    fit: Fit,
    transparency: Transparency,
) -> ImageDataset | None:
    """Read a folder as earlier versions did, by position, for runs that were trained with them.

    The parts have exactly the names "train" and "test", files count by the endings of that time, and images have no
    keys: their places decide. Nothing here may change, or such runs would be tested on their training images.
    """
    base = check_folder(folder)
    has_parts = (base / "train").is_dir()
    if part == "test" and not (has_parts and (base / "test").is_dir()):
        return None
    place = base / part if has_parts else base
    classes = [entry.name for entry in _folders(base / "train" if has_parts else base)]
    files = {name: tuple(_earlier_images(place, name)) for name in classes}
    unknown = sorted({entry.name for entry in _folders(place)} - set(classes))
    empty = [name for name, paths in files.items() if not paths]
    if unknown or (empty and (part == "train" or len(empty) == len(files))) or not files:
        raise ValueError(
            f"{place} must be as it was when this run was trained, for images chosen by position; its classes are "
            f"{', '.join(classes) or 'none'}; unknown to the training images {', '.join(unknown) or 'none'}; without "
            f"images {', '.join(empty) or 'none'}"
        )
    read = _read(files, part, place, image_size, channels, fit=fit, transparency=transparency)
    return ImageDataset(read.name, part, read.images, read.labels, read.classes, read.indices, origin=read.origin)


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _earlier_images(place: Path, name: str) -> list[Path]:
    files = sorted((place / name).rglob("*")) if (place / name).is_dir() else []
    return [
        file
        for file in files
        if file.suffix.lower() in _EARLIER_ENDINGS
        and not any(part.startswith(".") for part in file.relative_to(place).parts)
    ]


def _read(
    files: Mapping[str, tuple[Path, ...]],
    part: str,
    place: Path,
    image_size: int,
    channels: int,
    *,
    fit: Fit,
    transparency: Transparency,
) -> ImageDataset:
    check_reading(image_size, channels, fit, transparency)
    paths = [path for own in files.values() for path in own]
    images = np.empty((len(paths), channels, image_size, image_size), np.uint8)
    keys = np.empty(len(paths), np.int64)
    unread: dict[Path, ValueError] = {}
    dim = 0
    for position, path in enumerate(paths):
        try:
            read = read_known_image(path, image_size, channels, fit=fit, transparency=transparency)
        except ValueError as error:
            unread[path] = error
        else:
            images[position], keys[position] = read.pixels, read.key
            dim += read.is_dim
    if unread:  # report all at once, so that they need not be found one by one
        first, *others = unread
        if not others:
            raise unread[first]
        more = ", ".join(shown(path) for path in others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        raise ValueError(f"{unread[first]}; {len(others):,} more images cannot be read: {more}") from unread[first]
    if dim:
        warnings.warn(
            f"folder {shown(place)}: {dim:,} images of more than 8 bits use a sixteenth of their range or less, and "
            "keep about 16 grey levels: scale them up first",
            stacklevel=3,
        )
    labels = torch.arange(len(files)).repeat_interleave(torch.tensor([len(own) for own in files.values()]))
    return ImageDataset(
        name="folder",
        split=part,
        images=torch.from_numpy(images),
        labels=labels,
        classes=tuple(files),
        indices=torch.arange(len(paths)),
        origin=f"folder {place}",
        keys=torch.from_numpy(keys),
    )
