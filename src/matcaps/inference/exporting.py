"""Export a saved network, with what its images must be like."""

from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from matcaps.data import Transform
from matcaps.inference.saved import open_saved, reading_options
from matcaps.models.export.writing import FORMATS, Exported, export_network

_NORMALISED = {
    "scale": "divide grey levels, 0 to 255, by 255",
    "image": "subtract the mean of all its grey levels, and divide by their standard deviation",
    "crop": "subtract the mean of the crop's grey levels, and divide by their standard deviation",
}


def export_saved(
    source: str,
    path: str | PathLike[str] | None = None,
    *,
    format: str | None = None,
    checkpoint: str | None = None,
    image_size: int | None = None,
    **options: Any,
) -> Exported:
    """Do what :func:`matcaps.models.export_network` does for a saved network, and keep in the file how images are
    prepared and what the classes are called, where that is known.

    Args:
        source: folder of a run or of saved weights, weights that come with matcaps, or an id on the Hugging Face hub.
        path: the file; None for one of the source's name in the current folder.
        format: "onnx" or "torch"; None: what the path ends in, or else "onnx".
        checkpoint: "last", or a path: a checkpoint of the run in place of its final weights.
        image_size: side in pixels; None: as the network was trained.
        **options: further arguments of that function.

    Raises:
        FileNotFoundError: the network is missing.
        ValueError, ImportError, OSError: as that function raises them.
    """
    if format is None:
        ending = Path(path).suffix if path is not None else ""
        format = next((name for name, suffix in FORMATS.items() if suffix == ending), "onnx")
    if path is None:
        path = Path(source).name + FORMATS.get(format, "")
    saved = open_saved(source, checkpoint)
    known: dict[str, Any] = {}
    if "preprocessing" in saved.description and "classes" in saved.description:
        transform = saved.transform
        known = {"classes": list(saved.classes), "preparation": preparation(transform)}
        known["preparation"] |= {"reading": reading_options(saved.description)}
        image_size = transform.output_size if image_size is None else image_size
    return export_network(saved.network, format, path, image_size=image_size, **known, **options)


def preparation(transform: Transform) -> dict[str, Any]:
    """How an image becomes the network's input, for a program that has no matcaps: numbers and words."""
    settings = asdict(transform.settings)
    size, stored, normalise = transform.output_size, transform.image_size, settings["normalise"]
    steps = [f"take the image in grey levels from 0 to 255, {stored}×{stored} pixels", _NORMALISED[normalise]]
    if normalise != "scale":
        side = stored if normalise == "image" else size
        steps[-1] += f" (over {side}×{side} pixels and all channels, at least 1 over the root of their number)"
    if size != stored:
        steps.insert(1 if normalise == "crop" else 2, f"cut out the middle {size}×{size} pixels")
    return {
        "image_size": stored,
        "crop": size,
        "normalise": normalise,
        "words": "; ".join(steps),
    }
