"""A folder of images, one folder inside for each class; and a single image, for prediction."""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from matcaps.data.averaging import average_blocks
from matcaps.data.dataset import ImageDataset

# Only formats that Pillow decodes by itself: EPS, for one, would start another program.
_FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".pbm", ".pgm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
_ENDINGS = tuple(ending for endings in _FORMATS.values() for ending in endings)

MAX_PIXELS = 64_000_000
"""A larger image is refused before it is decoded: a small file can claim an enormous picture."""


def read_image(path: str | os.PathLike[str], image_size: int, channels: int) -> NDArray[np.uint8]:
    """One image from a file, turned upright, cut to its middle square and brought to a size.

    Pixels are averaged when the image shrinks. Of a moving image the first picture counts; transparency is dropped.

    Args:
        path: a PNG, JPEG, BMP, GIF, PPM, TIFF or WebP file with 8 bits a channel.
        image_size: side of the result in pixels.
        channels: 1 for grey, 3 for colour, 2 for the grey image twice (a stereo pair without parallax).

    Returns:
        ``[channels, image_size, image_size]``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, is damaged, too large, or has more than 8 bits a channel.
    """
    path = Path(path)
    if channels not in (1, 2, 3):
        raise ValueError(f"channels must be 1 (grey), 2 (the grey image twice) or 3 (colour); got {channels}")
    try:
        with warnings.catch_warnings():
            # The size is judged below; a decoder's other complaints are not for the caller of a library.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=list(_FORMATS)) as image:
                _check_picture(path, image)
                upright = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} cannot be read as an image ({error}): repair it or take it away") from error
    width, height = upright.size
    if width == height and width % image_size == 0:
        pixels = np.asarray(upright, dtype=np.uint8).reshape(width, width, -1).transpose(2, 0, 1)
        pixels = average_blocks(np.ascontiguousarray(pixels), width // image_size)
    else:
        # The largest square in the middle, averaged down or interpolated up to the size.
        fitted = ImageOps.fit(upright, (image_size, image_size), method=Image.Resampling.BILINEAR)
        pixels = np.asarray(fitted, dtype=np.uint8).reshape(image_size, image_size, -1).transpose(2, 0, 1)
    return np.repeat(pixels, 2, 0) if channels == 2 else pixels.copy()


def _check_picture(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{path} must have at most {MAX_PIXELS:,} pixels; got {width}×{height}: make it smaller")
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path} must have 8 bits a channel; got mode {image.mode}: convert it to 8 bits")


def load_image(path: str | os.PathLike[str], image_size: int, channels: int) -> Tensor:
    """One image from a file, as :meth:`matcaps.data.Transform.evaluate` takes it.

    Args:
        path: the file.
        image_size: side in pixels that the transform was made for.
        channels: 1, 2 or 3, as :func:`read_image`.

    Returns:
        ``[1, channels, image_size, image_size]``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as :func:`read_image`.
    """
    return torch.from_numpy(read_image(path, image_size, channels))[None]


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_hidden(file: Path, below: Path) -> bool:
    """Whether the file, or a folder between, is hidden: an editor's copies would stand on both sides of a split."""
    return any(part.startswith(".") for part in file.relative_to(below).parts)


def load_image_folder(
    folder: str | os.PathLike[str], image_size: int = 32, channels: int = 1, *, split: str = "train"
) -> ImageDataset | None:
    """The images of a folder, by class.

    Either the classes are folders in ``folder``, or ``folder`` holds a folder ``train`` and perhaps a folder ``test``
    with the classes inside. Classes are numbered in the order of their names, images in the order of their paths;
    files that do not end as an image does, and hidden ones, are passed over.

    Args:
        folder: the folder.
        image_size: side in pixels to which every image is brought.
        channels: 1 for grey, 3 for colour.
        split: ``"train"``, or ``"test"`` for the folder of that name.

    Returns:
        The images; None if the split is "test" and there is no such folder. ``indices`` number the images of the
        split.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there are no classes, a class has no image, the test images have other classes, or an image
            cannot be read.
    """
    base = Path(folder)
    if not base.is_dir():
        raise FileNotFoundError(f"folder must be a folder of images; there is none at {base.absolute()}")
    has_parts = (base / "train").is_dir()
    if split == "test" and not (has_parts and (base / "test").is_dir()):
        return None
    where = base / split if has_parts else base
    classes = [entry.name for entry in _folders(base / "train" if has_parts else base)]
    if not classes:
        raise ValueError(f"{where} must hold a folder for each class; it holds none: make {where}/NAME/image.png")
    found = [entry.name for entry in _folders(where)]
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise ValueError(f"{where} has the class {unknown[0]!r}, which the training images have not: {classes}")
    paths, labels = [], []
    for label, name in enumerate(classes):
        files = sorted((where / name).rglob("*")) if name in found else []
        files = [file for file in files if file.suffix.lower() in _ENDINGS and not _is_hidden(file, where)]
        if not files and split == "train":
            raise ValueError(f"{where / name} must hold images ({', '.join(_ENDINGS)}); it holds none")
        paths += files
        labels += [label] * len(files)
    if not paths:
        raise ValueError(f"{where} must hold images ({', '.join(_ENDINGS)}) in a folder for each class; it holds none")
    images = np.empty((len(paths), channels, image_size, image_size), np.uint8)
    for position, path in enumerate(paths):
        images[position] = read_image(path, image_size, channels)
    return ImageDataset(
        name="folder",
        split=split,
        images=torch.from_numpy(images),
        labels=torch.tensor(labels, dtype=torch.int64),
        classes=tuple(classes),
        indices=torch.arange(len(paths)),
        origin=f"folder {where}",
    )
