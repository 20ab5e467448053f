"""Use what a training left: test it on labelled images, or classify new ones."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from matcaps.data import DataBundle, DataSettings, Transform, load_data, load_image
from matcaps.data.build import Part, load_whole
from matcaps.data.settings import EARLIER_FOLDER, SplitSettings
from matcaps.models import EMCapsNet
from matcaps.models.pretrained import from_pretrained
from matcaps.models.sources import read_config, resolve_folder
from matcaps.training.data_record import check_folder_is_there, warn_of_changed_data
from matcaps.training.devices import place, resolve_device
from matcaps.training.evaluation import Evaluation, evaluate
from matcaps.training.record import SETTINGS_NAME, read_run_settings
from matcaps.training.unfinished import check_finished, open_checkpoint

_ALL = "all"
_PARTS = ("train", "validation", "test", "familiar_test", _ALL)


@dataclass(frozen=True, eq=False)
class SavedNetwork:
    """A trained network and what lies beside its weights.

    Attributes:
        network: in evaluation mode.
        description: the whole ``config.json``.
        folder: where both are; the run's folder if a run left them.
    """

    network: nn.Module
    description: dict[str, Any]
    folder: Path

    @property
    def transform(self) -> Transform:
        """How images are prepared for it.

        Raises:
            ValueError: it was saved without a description of its input.
        """
        return _transform(self.description)

    @property
    def classes(self) -> tuple[str, ...]:
        """Its classes' names, by label; raises as :attr:`transform` does."""
        _transform(self.description)
        return tuple(self.description["classes"])

    def load_image(self, path: str | PathLike[str]) -> Tensor:
        """An image file as :attr:`transform` takes it, read as its training images were.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no image, or the network was saved without a description of its input.
        """
        return load_image(
            path, self.transform.image_size, self.description["model"]["in_channels"], **read_as(self.description)
        )


def open_saved(source: str, checkpoint: str | None = None) -> SavedNetwork:
    """Load a network and what lies beside it.

    Args:
        source: folder of a run or of saved weights, weights that come with matcaps, or an id on the Hugging Face hub.
        checkpoint: "last", or a path: a checkpoint of the run in place of its final weights.

    Raises:
        FileNotFoundError: the network is missing, or the run has not finished.
        ValueError: its files are malformed.
    """
    return SavedNetwork(*(_load(source) if checkpoint is None else open_checkpoint(source, checkpoint)))


def load_saved_data(
    saved: SavedNetwork,
    *,
    data: str | None = None,
    folder: str | None = None,
    root: str | None = None,
    part: str = "test",
    num_crops: int | None = None,
) -> DataBundle:
    """Labelled images for a saved network, prepared as its training images were; arguments as :func:`evaluate_saved`.

    Returns:
        All parts, none limited in number; for the part "all" every image as the test part.

    Raises:
        FileNotFoundError: the data are missing.
        ValueError: the data do not fit the network, or the split makes no such part.
    """
    if part not in _PARTS:
        raise ValueError(f"part must be one of {', '.join(_PARTS)}; got {part!r}")
    settings = _data_settings(saved.folder, saved.description, data, folder)
    is_own = folder is None and _is_own(saved.folder, data)
    if is_own:
        check_folder_is_there(settings, saved.folder, "say where it is now with --folder")
    if root is not None:
        settings = replace(settings, root=root)
    transform = saved.transform
    options = transform.settings if num_crops is None else replace(transform.settings, num_test_crops=num_crops)
    settings = replace(settings, transform=options, max_test_images=None, max_train_images=None)
    if settings.name in ("smallnorb", "folder"):
        settings = replace(settings, image_size=transform.image_size)
    if part == _ALL:
        bundle = load_whole(settings)
        _check_fit(saved.description, bundle)
        return bundle
    bundle = load_data(settings)
    _check_fit(saved.description, bundle)
    if is_own:
        warn_of_changed_data(saved.folder, bundle)
    elif folder is not None and part == "test" and bundle.test.split == "train":
        warnings.warn(
            f"{folder} has no test part: tested on the {len(bundle.test)} images that a training on it would keep for "
            f"that; --part {_ALL} takes every image",
            stacklevel=2,
        )
    if getattr(bundle, part) is None:
        raise ValueError(f"part must be one that the split makes; it makes no {part!r}: change the split")
    return bundle


def evaluate_saved(
    source: str,
    *,
    data: str | None = None,
    folder: str | None = None,
    root: str | None = None,
    part: str = "test",
    num_crops: int | None = None,
    batch_size: int = 200,
    by: str | Sequence[str] = (),
    checkpoint: str | None = None,
    agreement: bool = False,
    accelerator: str = "auto",
) -> Evaluation:
    """Test a saved network on labelled images, prepared as its training images were, without augmentation.

    Args:
        source: folder of a run or of saved weights, weights that come with matcaps, or an id on the Hugging Face hub.
        data: name of the data set; None: the one that it was trained on, divided as then.
        folder: for the data set "folder": where the images are.
        root: folder that holds the data sets.
        part: "test", "validation", "familiar_test" or "train"; or "all": every image there is, whatever its part.
        num_crops: crops of each image whose scores are averaged; None: as in training.
        batch_size: images at a time.
        by: an attribute of the images, such as smallNORB's "instance", or several, by whose values to break the
            accuracy down.
        checkpoint: "last", or a path: a checkpoint of the run in place of its final weights.
        agreement: measure what routing does for the true class, too; see :func:`matcaps.inspect.routing_agreement`.
        accelerator: "gpu" for CUDA, "cpu", or "auto" for the first where there is one.

    Raises:
        FileNotFoundError: the network or the data are missing.
        ValueError: the data do not fit the network: other classes, another number of channels or another size; the
            images have no such attribute; the network has no routing to measure; or there is no GPU.
    """
    resolve_device(accelerator)  # first of all, so that nothing is read in vain where there is no GPU
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    saved = open_saved(source, checkpoint)
    if agreement and not isinstance(saved.network, EMCapsNet):
        raise ValueError(f"agreement is measured on capsule networks; {source} is a {type(saved.network).__name__}")
    bundle = load_saved_data(saved, data=data, folder=folder, root=root, part=part, num_crops=num_crops)
    chosen: Part = part  # type: ignore[assignment]
    if part == _ALL:
        chosen = "test"
    if chosen == "train":  # as the other parts are seen: in order, without augmentation
        bundle = replace(bundle, test=bundle.train)
        chosen = "test"
    device = place(saved.network, accelerator)
    loader = bundle.loader(chosen, batch_size=batch_size, device=device)
    return evaluate(saved.network, loader, bundle.classes, by, agreement=agreement)


def _load(source: str) -> tuple[nn.Module, dict[str, Any], Path]:
    """The network, the description beside it, and their folder, which is looked for, or fetched, once."""
    check_finished(source)
    folder = resolve_folder(source)
    return from_pretrained(folder), read_config(folder), folder


def _data_settings(saved: Path, description: dict[str, Any], data: str | None, folder: str | None) -> DataSettings:
    """The data to test on: the run's own, or the named set as published."""
    if _is_own(saved, data):
        own = read_run_settings(saved).data
        if folder is None:
            return own
        by_group = own.split.rule == "group"  # the groups are of its own images
        return replace(own, folder=folder, split=SplitSettings() if by_group else own.split)
    name = data or ("folder" if folder is not None else description.get("data"))
    if name is None:
        raise ValueError(f"{saved} does not say what it was trained on: name the data set to test on with --data")
    channels = description["model"]["in_channels"]
    reading = {} if name != "folder" else read_as(description)
    if name == "folder" and channels in (1, 3):
        reading["channels"] = channels
    return DataSettings.from_dict({"name": name, "folder": folder, **reading})


def read_as(description: Mapping[str, Any]) -> dict[str, Any]:
    """How a saved network's images were read from their files: :func:`matcaps.data.load_image`'s fit and transparency.

    Args:
        description: the whole ``config.json``.
    """
    reading = description.get("reading")
    if not isinstance(reading, dict):  # of an earlier version, which dropped transparency; only folders had any
        reading = EARLIER_FOLDER if description.get("data") == "folder" else {}
    return {"fit": reading.get("fit", "crop"), "transparency": reading.get("transparency", "auto")}


def _is_own(saved: Path, data: str | None) -> bool:
    """Whether a run lies there, and its own data set is meant."""
    return (saved / SETTINGS_NAME).is_file() and data in (None, read_run_settings(saved).data.name)


def _transform(description: dict[str, Any]) -> Transform:
    if "preprocessing" not in description or "classes" not in description:
        raise ValueError(
            "the saved network does not say how its images were prepared and what its classes are called: save it "
            "with preprocessing= and classes=, as matcaps train does"
        )
    return Transform.from_dict(description["preprocessing"])


def _check_fit(description: dict[str, Any], bundle: DataBundle) -> None:
    model = description["model"]
    if bundle.num_channels != model["in_channels"]:
        raise ValueError(
            f"the data must have {model['in_channels']} channels, as the network takes; got {bundle.num_channels} "
            f"in {bundle.settings.name}"
        )
    if bundle.classes != tuple(description["classes"]):
        raise ValueError(
            f"the data must have the network's classes, {', '.join(description['classes'])}; got "
            f"{', '.join(bundle.classes)} in {bundle.settings.name}"
        )
    size = description["preprocessing"]["image_size"]
    if bundle.transform.image_size != size:
        raise ValueError(
            f"the data must have images of {size} pixels a side, as the network takes; got "
            f"{bundle.transform.image_size} in {bundle.settings.name}"
        )
