"""Read one image from a file: check it, turn it upright, remove transparency, resize it to a square."""

import errno
import hashlib
import importlib
import importlib.util
import os
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from matcaps._paths import named_errors, user_path
from matcaps.data.averaging import average_blocks
from matcaps.data.names import printable
from matcaps.data.pixels import bands, eight_bits, has_transparency, turned_upright
from matcaps.data.settings import Fit, Transparency

# Only formats that Pillow decodes by itself: EPS, for one, would start another program. Which of the later ones it has
# depends on how it was built.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000", "HEIF")
_UNDER_OTHER_NAMES = {"MPO": "JPEG"}  # what phones write; opened as JPEG
_NEEDS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".hif": "pillow-heif"}

# A decoder of these gives the same pixels in every version, so that a picture is known by them in whatever format.
_EXACT = ("PNG", "BMP", "DIB", "GIF", "PPM", "TIFF")
_EXACT_IN_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "group3", "group4")
_OF_THE_MACHINE = (errno.EIO, errno.EINTR, errno.EMFILE, errno.ENFILE)
"""Errors of the system that say nothing of the file, which may be a good one."""
_DIM = 16
_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")

MAX_PIXELS = 64_000_000
"""A larger image is refused before it is decoded: a small file can claim an enormous picture."""

# What a small file may hold is decoded in two seconds and a gigabyte; a picture that needs its pixels has a large file.
_SMALL_FILE = 1_000_000  # bytes
_MOST_VALUES = 96_000_000  # of a small file: pixels times channels
_MOST_SLOW_VALUES = 24_000_000
_SLOW = ("JPEG2000",)
_MOST_SCANS = 50  # of a JPEG file: each goes over the whole picture; usual are 1 to 10
_START_OF_SCAN = b"\xff\xda"


class ReadImage(NamedTuple):
    """An image that was read.

    Attributes:
        pixels: ``[channels, image_size, image_size]``, uint8.
        key: 64 bits that identify the picture: the same for copies under other names.
        is_dim: whether it has more than 8 bits and uses a sixteenth of its range or less: some 16 grey levels are left.
    """

    pixels: NDArray[np.uint8]
    key: int
    is_dim: bool


@cache
def formats() -> tuple[str, ...]:
    """The formats that can be read here, by Pillow's names."""
    if importlib.util.find_spec("pillow_heif") is not None:
        importlib.import_module("pillow_heif.HeifImagePlugin")  # registers itself with Pillow
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@cache
def endings() -> tuple[str, ...]:
    """File name endings that can be read here, in lower case."""
    readable = formats()
    registered = Image.registered_extensions().items()
    return tuple(sorted(ending for ending, name in registered if _UNDER_OTHER_NAMES.get(name, name) in readable))


def missing_decoder(ending: str) -> str | None:
    """The package that is missing to read files with this ending; None if none is."""
    return None if ending in endings() else _NEEDS.get(ending)


def shown(path: str | os.PathLike[str]) -> str:
    """A path as printable text, even if its bytes are not UTF-8."""
    return printable(os.fspath(path))


def read_image(
    path: str | os.PathLike[str],
    image_size: int,
    channels: int,
    *,
    fit: Fit = "crop",
    transparency: Transparency = "auto",
) -> NDArray[np.uint8]:
    """One image from a file, turned upright and resized to a square.

    Pixels are averaged when the image shrinks, and interpolated when it grows. Of an animated image the first picture
    counts. Grey levels of 9 to 16 bits are scaled by their range, floating-point ones by 1.

    Args:
        path: a file that Pillow can read, whatever its name: PNG, JPEG, BMP, GIF, PPM, TIFF, WebP, and AVIF,
            JPEG 2000 and HEIC where they are built in.
        image_size: side of the result in pixels.
        channels: 1 for grey, 3 for colour, 2 for the grey image twice (a stereo pair without parallax).
        fit: "crop" for the middle square; "pad" for the whole picture, on a ground of the mean colour of its border;
            "stretch" for the whole picture with its sides made equal.
        transparency: the ground under transparent pixels. "auto": white, or black if the drawing is so light that it
            would hardly show on white (its distance from white, root mean square weighted by opacity, below 64 of 255
            grey levels); "white"; "black"; "drop": the colour that the file has there.

    Returns:
        ``[channels, image_size, image_size]``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, is damaged or too large, or its grey levels have no known range; the
            message names the file.
    """
    return read_known_image(path, image_size, channels, fit=fit, transparency=transparency).pixels


def read_known_image(
    path: str | os.PathLike[str], image_size: int, channels: int, *, fit: Fit, transparency: Transparency
) -> ReadImage:
    """As :func:`read_image`, with the key that identifies the picture."""
    path = user_path(path)
    check_reading(image_size, channels, fit, transparency)
    try:
        with warnings.catch_warnings():
            # The size is judged below; a decoder's other complaints are not for the caller of a library.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=list(formats())) as image:
                _check_size(image, path)
                image.load()
                upright = turned_upright(image)
                key = _key(path, image, upright)
                tags = getattr(image, "tag_v2", {})
                plain = eight_bits(upright, transparency, colour=channels == 3, tags=tags)
                is_deep = upright.mode.startswith("I")
                del upright
    except FileNotFoundError:
        raise
    except (MemoryError, RecursionError):
        raise
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise _unreadable(path, error) from error
        with named_errors(path):
            raise
    except Exception as error:  # decoders of damaged files raise nearly anything; whatever it is, the file is named
        raise _unreadable(path, error) from error
    del image  # of the largest pictures a copy less takes a quarter of the memory
    pixels = _fitted(plain, image_size, fit)
    is_dim = is_deep and int(np.asarray(plain).max()) <= _DIM
    return ReadImage(np.repeat(pixels, 2, 0) if channels == 2 else pixels, key, is_dim)


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).replace(str(path), "it").split()) or type(error).__name__
    needed = missing_decoder(path.suffix.lower())
    advice = "repair it or remove it" if needed is None else f"pip install {needed}, or save it as PNG"
    return ValueError(f"{shown(path)} cannot be read as an image ({shown(reason)}): {advice}")


def check_reading(image_size: int, channels: int, fit: str, transparency: str) -> None:
    """Raise ValueError for unknown options; the arguments are those of :func:`read_image`."""
    if image_size < 1:
        raise ValueError(f"image_size must be 1 or more; got {image_size}")
    if channels not in (1, 2, 3):
        raise ValueError(f"channels must be 1 (grey), 2 (the grey image twice) or 3 (colour); got {channels}")
    for name, value, known in (("fit", fit, get_args(Fit)), ("transparency", transparency, get_args(Transparency))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")


def _check_size(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"it must have pixels; got {width}×{height}")
    if width * height > MAX_PIXELS:
        raise ValueError(f"it must have at most {MAX_PIXELS:,} pixels; got {width}×{height}")
    num_bytes, channels = path.stat().st_size, len(image.getbands())
    most = (_MOST_SLOW_VALUES if image.format in _SLOW else _MOST_VALUES) // channels
    if num_bytes < _SMALL_FILE and width * height > most:
        raise ValueError(
            f"it must have at most {most:,} pixels in a file of less than {_SMALL_FILE:,} bytes; got "
            f"{width}×{height} in {num_bytes:,}"
        )
    if image.format in ("JPEG", "MPO") and (scans := path.read_bytes().count(_START_OF_SCAN)) > _MOST_SCANS:
        raise ValueError(f"it must have at most {_MOST_SCANS} scans; got {scans}")


def _fitted(image: Image.Image, size: int, fit: Fit) -> NDArray[np.uint8]:
    """``[channels, size, size]``, uint8, of a picture in "L" or "RGB"."""
    width, height = image.size
    if width == height and width % size == 0:
        block = width // size
        parts = []
        for band in bands(image, multiple=block):
            pixels = np.asarray(band, dtype=np.uint8).reshape(band.height, width, -1).transpose(2, 0, 1)
            parts.append(average_blocks(np.ascontiguousarray(pixels), block))
        return np.concatenate(parts, axis=1)
    if fit == "crop" or width == height:
        fitted = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    elif fit == "stretch":
        fitted = image.resize((size, size), Image.Resampling.BILINEAR)
    else:
        longest = max(width, height)
        inner = (max(1, round(width * size / longest)), max(1, round(height * size / longest)))
        fitted = Image.new(image.mode, (size, size), _border_colour(image))
        small = image.resize(inner, Image.Resampling.BILINEAR)
        fitted.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return np.asarray(fitted, dtype=np.uint8).reshape(size, size, -1).transpose(2, 0, 1).copy()


def _border_colour(image: Image.Image) -> int | tuple[int, ...]:
    right, bottom = image.width, image.height
    boxes = (0, 0, right, 1), (0, bottom - 1, right, bottom), (0, 0, 1, bottom), (right - 1, 0, right, bottom)
    edges = [np.asarray(image.crop(box), dtype=np.float64).reshape(-1, len(image.getbands())) for box in boxes]
    mean = tuple(int(level) for level in np.rint(np.concatenate(edges).mean(axis=0)))
    return mean[0] if len(mean) == 1 else mean


def _key(path: Path, image: Image.Image, upright: Image.Image) -> int:
    """The key of a picture: a hash of its pixels where all decoders agree on every bit, otherwise of its file."""
    digest = hashlib.blake2b(digest_size=8)
    if image.format in _EXACT and (
        image.format != "TIFF" or str(image.info.get("compression", "raw")) in _EXACT_IN_TIFF
    ):
        modes = [upright.mode]
        if upright.mode in _PLAIN_MODES:
            modes = ["RGBA" if has_transparency(upright) else "RGB"]
            if modes == ["RGBA"] and all(
                band.convert("RGBA").getchannel("A").getextrema() == (255, 255) for band in bands(upright)
            ):
                modes = ["RGBA", "RGB"]
        deep = modes[-1].startswith("I")  # versions of Pillow differ in how they hold 16 bits
        digest.update(f"{'I' if deep else modes[-1]} {upright.size}".encode())
        for band in bands(upright):
            for mode in modes:
                band = band if band.mode == mode else band.convert(mode)
            pixels = np.asarray(band)
            digest.update(np.ascontiguousarray(pixels.astype("<i4") if deep else pixels).data)
    else:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return int.from_bytes(digest.digest(), "little", signed=True)


def load_image(
    path: str | os.PathLike[str],
    image_size: int,
    channels: int,
    *,
    fit: Fit = "crop",
    transparency: Transparency = "auto",
) -> Tensor:
    """One image from a file, as :meth:`matcaps.data.Transform.evaluate` takes it.

    Args:
        path: the file.
        image_size: side in pixels that the transform was made for.
        channels: 1, 2 or 3, as :func:`read_image`.
        fit: how a picture that is not square is fitted, as in :func:`read_image`.
        transparency: the ground under transparent pixels, as in :func:`read_image`.

    Returns:
        ``[1, channels, image_size, image_size]``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as :func:`read_image`.
    """
    return torch.from_numpy(read_image(path, image_size, channels, fit=fit, transparency=transparency))[None]
