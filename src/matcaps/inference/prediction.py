"""Classify image files, folders and patterns; unreadable files are skipped, and unusual images cause a warning."""

import glob
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from matcaps._paths import user_path
from matcaps._progress import watched
from matcaps.data import Appearance, appearance
from matcaps.data.devices import send
from matcaps.data.images import endings
from matcaps.data.names import printable
from matcaps.inference.saved import SavedNetwork, open_saved
from matcaps.models.scores import class_scores
from matcaps.training.devices import place, resolve_device

_FAR, _NEAR = 0.4, 0.25
"""Differences in grey level (of 1) at the border above which an image has another background, or below which the
same."""
_BLANK, _SOME = 0.004, 0.04
"""Standard deviations of grey levels below which an image is blank, and above which training images are not."""


@dataclass(frozen=True)
class Predictions:
    """The result of :func:`predict_files`.

    Attributes:
        scores: for each image's path, the score of each class by its name.
        failures: for each unreadable file, and each pattern that matches nothing, the reason.
    """

    scores: dict[str, dict[str, float]]
    failures: dict[str, str]


def find_images(patterns: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The image files that match some files, folders and patterns, each once, in order.

    Args:
        patterns: a file of any name; a folder, for all images in it and below, hidden ones left out; or a pattern with
            ``*``, ``?``, ``[...]``, and ``**`` for any folders between, for the images and folders that match it.

    Returns:
        The files, and the reason for each pattern that matches none.
    """
    paths: dict[str, None] = {}
    failures: dict[str, str] = {}
    for pattern in patterns:
        path = str(user_path(pattern))
        if os.path.isdir(path):
            files, reason = _images_below(path), f"{pattern} holds no image ({', '.join(endings())})"
        elif os.path.exists(path) or not glob.has_magic(path):
            files, reason = [path], ""  # if it does not exist, reading it fails
        else:
            matching = sorted(glob.glob(path, recursive=True))
            files = [
                file for one in matching for file in (_images_below(one) if os.path.isdir(one) else _if_image(one))
            ]
            reason = f"no image matches the pattern {pattern}"
        if not files:
            failures[pattern] = reason
        paths |= dict.fromkeys(files)
    return list(paths), failures


def _images_below(folder: str) -> list[str]:
    files = (
        path
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return [one for path in files for one in _if_image(str(path))]


def _if_image(path: str) -> list[str]:
    return [path] if path.lower().endswith(endings()) else []


@torch.inference_mode()
def predict_files(
    source: str,
    patterns: Sequence[str],
    *,
    invert: bool = False,
    checkpoint: str | None = None,
    accelerator: str = "auto",
) -> Predictions:
    """Classify image files with a saved network; warn of images that look different from its training images.

    Args:
        source: folder of a run or of saved weights, weights that come with matcaps, or an id on the Hugging Face hub.
        patterns: files, folders and patterns, as :func:`find_images` takes them.
        invert: exchange black and white first.
        checkpoint: "last", or a path: a checkpoint of the run in place of its final weights.
        accelerator: "gpu" for CUDA, "cpu", or "auto" for the first where there is one.

    Raises:
        FileNotFoundError: the network is missing.
        ValueError: the network was saved without a description of its input, or there is no GPU.
    """
    resolve_device(accelerator)  # first: without the GPU asked for, nothing need be read
    saved = open_saved(source, checkpoint)
    classes, transform = saved.classes, saved.transform
    device = place(saved.network, accelerator)
    paths, failures = find_images(patterns)
    scores: dict[str, dict[str, float]] = {}
    appearances: dict[str, Appearance] = {}
    for path in watched(paths, "images"):
        try:
            image = saved.load_image(path)
        except OSError as error:
            failures[path] = f"{path}: {error.strerror or error}"
            continue
        except ValueError as error:
            failures[path] = str(error)
            continue
        image = 255 - image if invert else image
        appearances[path] = appearance(image)
        image_scores = class_scores(saved.network, transform.evaluate(send(image, device)))[0].tolist()
        scores[path] = dict(zip(classes, image_scores, strict=True))
    warn_of_unusual(saved, appearances, inverted=invert)
    return Predictions(scores, failures)


def warn_of_unusual(saved: SavedNetwork, images: Mapping[str, Appearance | Tensor], *, inverted: bool = False) -> None:
    """Warn of images that look different from a network's training images, if it recorded how those look.

    Args:
        saved: the network.
        images: the images, ``[1, C, H, W]``, uint8, or their appearances, by name.
        inverted: whether black and white were exchanged.
    """
    own = saved.description.get("appearance")
    try:
        usual = Appearance(**own) if isinstance(own, dict) else None
    except TypeError:  # of another version
        usual = None
    if usual is None:
        return
    looks = {name: one if isinstance(one, Appearance) else appearance(one) for name, one in images.items()}
    exchanged = [
        name
        for name, look in looks.items()
        if abs(look.border_mean - usual.border_mean) > _FAR and abs(1 - look.border_mean - usual.border_mean) < _NEAR
    ]
    blank = [name for name, look in looks.items() if look.deviation < _BLANK and usual.deviation > _SOME]
    if exchanged:
        trained, present = ("bright", "dark") if usual.border_mean > 0.5 else ("dark", "bright")
        advice = "leave --invert out for them" if inverted else "--invert exchanges black and white"
        warnings.warn(
            f"{_listed(exchanged, len(looks))} a {present} background, but the network was trained on a {trained} one "
            f"(grey level {usual.border_mean:.2f} of 1 at the border): {advice}",
            stacklevel=2,
        )
    if blank:
        warnings.warn(f"{_listed(blank, len(looks))} only one grey level: blank", stacklevel=2)


def _listed(names: Sequence[str], total: int) -> str:
    if total == 1:
        return f"{printable(names[0])} has"
    return (
        f"{len(names)} of {total} images ({', '.join(map(printable, names[:3]))}{', …' if len(names) > 3 else ''}) have"
    )
