"""Load data from settings, for training, evaluation and experiments."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch.utils.data import DataLoader

from matcaps.data.dataset import ImageDataset
from matcaps.data.embedded import load_embedded
from matcaps.data.fingerprint import Fingerprint, fingerprint
from matcaps.data.folder import read_earlier, read_part, warn_of_unused_files
from matcaps.data.groups import with_groups
from matcaps.data.layouts import find_layout
from matcaps.data.loader import Batch, make_loader
from matcaps.data.mnist import load_mnist
from matcaps.data.settings import DataSettings, SplitSettings
from matcaps.data.shares import hold_out_tests, warn_of_copies, warn_of_missing_classes
from matcaps.data.smallnorb import load_smallnorb
from matcaps.data.splits import limit_images, split_dataset, stratified_fraction
from matcaps.data.transforms import Transform

Part = Literal["train", "validation", "test", "familiar_test"]


@dataclass(frozen=True, eq=False)
class DataBundle:
    """A data set, divided and ready to be loaded.

    Attributes:
        train: images to train on.
        validation: images for choosing settings; None if there are none.
        test: images to test on.
        familiar_test: under a split by elevation or azimuth, test images from viewpoints that were trained on.
        transform: how images become the network's input.
        settings: the settings of the data, with the transform resolved.
        seed: seed of the order and the augmentation.
        fingerprint: of all images, before any limit on their number; None if it was not taken.
    """

    train: ImageDataset
    validation: ImageDataset | None
    test: ImageDataset
    familiar_test: ImageDataset | None
    transform: Transform
    settings: DataSettings
    seed: int
    fingerprint: Fingerprint | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self.train.classes

    @property
    def num_channels(self) -> int:
        """Channels of the network's input."""
        return self.train.num_channels

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels, after cropping."""
        return self.transform.output_size

    def loader(
        self,
        part: Part,
        *,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int | None = None,
        device: torch.device | None = None,
    ) -> DataLoader[Batch]:
        """A loader of one part: shuffled and augmented for "train", in order and plain for the others.

        Args:
            part: which part.
            rank: this process, from 0.
            world_size: number of processes.
            batch_size: images in a batch; None: as in the settings.
            device: where batches are prepared, and stay; None: on the CPU.

        Raises:
            ValueError: there is no such part.
        """
        dataset = getattr(self, part)
        if dataset is None:
            raise ValueError(f"part must be one that the split has; it has no {part!r}: change the split")
        return make_loader(
            dataset,
            self.transform,
            train=part == "train",
            batch_size=batch_size or self.settings.batch_size,
            seed=self.seed,
            num_workers=self.settings.num_workers,
            rank=rank,
            world_size=world_size,
            balanced=self.settings.balance == "sampling",
            device=device,
        )


def load_data(settings: DataSettings, seed: int = 0) -> DataBundle:
    """Read a data set, divide it by its rule and make its transform. Nothing is downloaded.

    Args:
        settings: which data, in which parts, prepared how.
        seed: the run's seed, for order and augmentation; the split has its own.

    Returns:
        The parts and the transform.

    Raises:
        FileNotFoundError: files are missing; the message says how to get them.
        ValueError: a file is malformed, or the rule leaves a part empty.
    """
    parts, rule = _read(settings), settings.split
    if "validation" in parts:  # the folder's own: no more is taken from the training images
        rule = replace(rule, validation_fraction=0.0)
    whole = parts.get("train")
    holds_tests = settings.name == "folder" and "test" not in parts and rule.rule != "group"
    if holds_tests:
        assert whole is not None
        train, test = _hold_out_tests(whole, rule)
        parts |= {"train": train, "test": test}
    split = split_dataset(parts.get("train"), parts.get("test"), rule)
    if "validation" in parts:
        split = replace(split, validation=parts["validation"])
    if whole is not None and whole.keys is not None:
        drawn: dict[str, ImageDataset | None] = {"train": split.train}
        if holds_tests:
            drawn["test"] = split.test
        if rule.validation_fraction:
            drawn["validation"] = split.validation
        if len(drawn) > 1 and rule.rule != "group":
            warn_of_missing_classes(whole, drawn, rule, holds_tests=holds_tests)
        warn_of_copies({"train": split.train, "validation": split.validation, "test": split.test})
    settings = replace(settings, transform=settings.transform.resolve(settings.name))

    def limited(part: ImageDataset | None, count: int | None) -> ImageDataset | None:
        return None if part is None else limit_images(part, count, rule.seed)

    return DataBundle(
        train=limit_images(split.train, settings.max_train_images, rule.seed),
        validation=limited(split.validation, settings.max_test_images),
        test=limit_images(split.test, settings.max_test_images, rule.seed),
        familiar_test=limited(split.familiar_test, settings.max_test_images),
        transform=Transform(settings.transform, split.train.image_size),
        settings=settings,
        seed=seed,
        fingerprint=fingerprint({name: getattr(split, name) for name in get_args(Part)}),
    )


def load_whole(settings: DataSettings) -> DataBundle:
    """Every image of a data set, whatever its part, to test on; training part and test part are both all of them.

    Args:
        settings: which data, prepared how; the split and the limits in number do not count.

    Raises:
        FileNotFoundError: files are missing; the message says how to get them.
        ValueError: a file is malformed.
    """
    if settings.split.rule == "group":
        settings = replace(settings, split=SplitSettings())
    parts = [*_read(settings).values()]
    keys = [part.keys for part in parts if part.keys is not None]
    whole = replace(
        parts[0],
        split="all",
        images=torch.cat([part.images for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        indices=torch.arange(sum(map(len, parts))),
        attributes={name: torch.cat([part.attributes[name] for part in parts]) for name in parts[0].attributes},
        keys=torch.cat(keys) if len(keys) == len(parts) else None,
    )
    settings = replace(settings, transform=settings.transform.resolve(settings.name))
    return DataBundle(
        train=whole,
        validation=None,
        test=whole,
        familiar_test=None,
        transform=Transform(settings.transform, whole.image_size),
        settings=settings,
        seed=0,
    )


def _read(settings: DataSettings) -> dict[str, ImageDataset]:
    """The official parts that the split needs, by name; of a folder the training part may be all that it has."""
    name, rule = settings.name, settings.split
    if name == "embedded":
        return {part: load_embedded(part) for part in ("train", "test")}
    if name == "smallnorb":
        size = settings.image_size or 48
        needed = {"both": ("train", "test")}.get(rule.source, (rule.source,))
        return {part: load_smallnorb(settings.root, part, size=size) for part in needed}
    if name == "folder":
        return _read_folder(settings)
    return {part: load_mnist(settings.root, part, name=name) for part in ("train", "test")}


def _read_folder(settings: DataSettings) -> dict[str, ImageDataset]:
    assert settings.folder is not None
    size, channels, fit, transparency = (
        settings.image_size or 32,
        settings.channels,
        settings.fit,
        settings.transparency,
    )
    if settings.split.choose_by == "position":
        read = {
            part: read_earlier(settings.folder, part, size, channels, fit=fit, transparency=transparency)
            for part in ("train", "test")
        }
    else:
        layout = find_layout(settings.folder)
        warn_of_unused_files(layout)
        by_group = settings.split.rule == "group"
        read = {
            part: read_part(layout, part, size, channels, fit=fit, transparency=transparency)
            for part in (["train"] if by_group else layout.files)
        }
        if by_group:
            assert read["train"] is not None
            assert settings.split.groups is not None
            read["train"] = with_groups(read["train"], layout, settings.split.groups)
    return {name: part for name, part in read.items() if part is not None}


def _hold_out_tests(images: ImageDataset, rule: SplitSettings) -> tuple[ImageDataset, ImageDataset]:
    """The images of a folder without a test part to train on, and those to test on."""
    if images.keys is not None:
        return hold_out_tests(images, rule)
    tests = stratified_fraction(images.labels, rule.test_fraction, rule.seed)
    if not tests.any():
        raise ValueError(
            f"{images.origin} has no folder 'test', and test_fraction={rule.test_fraction} of its "
            f"{len(images)} images leaves none to test: raise test_fraction, or add a folder 'test'"
        )
    return images.subset(~tests), images.subset(tests)
