"""From settings to data: the one way in for training, evaluation and experiments."""

from dataclasses import dataclass, replace
from typing import Literal

from torch.utils.data import DataLoader

from matcaps.data.dataset import ImageDataset
from matcaps.data.embedded import load_embedded
from matcaps.data.folder import load_image_folder
from matcaps.data.loader import Batch, make_loader
from matcaps.data.mnist import load_mnist
from matcaps.data.settings import DataSettings, SplitSettings
from matcaps.data.smallnorb import load_smallnorb
from matcaps.data.splits import limit_images, split_dataset, stratified_fraction
from matcaps.data.transforms import Transform

Part = Literal["train", "validation", "test", "familiar_test"]


@dataclass(frozen=True, eq=False)
class DataBundle:
    """A data set, divided and ready to be loaded.

    Attributes:
        train: images to train on.
        validation: images to choose by; None if the settings keep none.
        test: images to judge by.
        familiar_test: under a split by elevation or azimuth, test images from viewpoints that were trained on.
        transform: how images become the network's input.
        settings: where all this came from, with the transform resolved.
        seed: seed of the order and the augmentation.
    """

    train: ImageDataset
    validation: ImageDataset | None
    test: ImageDataset
    familiar_test: ImageDataset | None
    transform: Transform
    settings: DataSettings
    seed: int

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
        self, part: Part, *, rank: int = 0, world_size: int = 1, batch_size: int | None = None
    ) -> DataLoader[Batch]:
        """A loader of one part: shuffled and augmented for "train", in order and plain for the others.

        Args:
            part: which part.
            rank: this process, from 0.
            world_size: number of processes.
            batch_size: images in a batch; None: as in the settings.

        Raises:
            ValueError: there is no such part.
        """
        dataset = getattr(self, part)
        if dataset is None:
            raise ValueError(f"part must be one that the split makes; it makes no {part!r}: change the split")
        return make_loader(
            dataset,
            self.transform,
            train=part == "train",
            batch_size=batch_size or self.settings.batch_size,
            seed=self.seed,
            num_workers=self.settings.num_workers,
            rank=rank,
            world_size=world_size,
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
    train, test, rule = _read(settings)
    split = split_dataset(train, test, rule)
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
    )


def _read(settings: DataSettings) -> tuple[ImageDataset | None, ImageDataset | None, SplitSettings]:
    """The official parts that the split needs, and the split's rule."""
    name, rule = settings.name, settings.split
    if name == "embedded":
        return load_embedded("train"), load_embedded("test"), rule
    if name == "smallnorb":
        size = settings.image_size or 48
        needed = {"both": ("train", "test")}.get(rule.source, (rule.source,))
        parts = {split: load_smallnorb(settings.root, split, size=size) for split in needed}
        return parts.get("train"), parts.get("test"), rule
    if name == "folder":
        assert settings.folder is not None
        size = settings.image_size or 32
        train = load_image_folder(settings.folder, size, settings.channels)
        test = load_image_folder(settings.folder, size, settings.channels, split="test")
        assert train is not None
        if test is None:
            tests = stratified_fraction(train.labels, rule.test_fraction, rule.seed)
            if not tests.any():
                raise ValueError(
                    f"{settings.folder} has no folder 'test', and test_fraction={rule.test_fraction} of its "
                    f"{len(train)} images leaves none to test: raise test_fraction, or add a folder 'test'"
                )
            return train.subset(~tests), train.subset(tests), rule
        return train, test, rule
    return load_mnist(settings.root, "train", name=name), load_mnist(settings.root, "test", name=name), rule
