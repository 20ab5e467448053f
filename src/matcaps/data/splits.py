"""Rules that divide images into training, validation and test images.

No image is ever in two parts: each rule divides the positions of one official part, and images of different official
parts are different images. :func:`split_dataset` checks it before it returns.
"""

import warnings
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor

from matcaps.data.dataset import ImageDataset
from matcaps.data.random import make_keys
from matcaps.data.settings import SplitSettings
from matcaps.data.shares import VALIDATION, drawn_share


@dataclass(frozen=True, eq=False)
class Split:
    """The parts of a data set under a rule; no image is in two of them.

    Attributes:
        train: images to train on.
        validation: images for choosing settings; None if the rule keeps none.
        test: images to test on. Under the rules "elevation" and "azimuth": viewpoints never trained on.
        familiar_test: under those rules, the other test images, seen from viewpoints that were trained on (of other
            objects); otherwise None.
    """

    train: ImageDataset
    validation: ImageDataset | None
    test: ImageDataset
    familiar_test: ImageDataset | None = None

    def __post_init__(self) -> None:
        parts = [part for part in (self.train, self.validation, self.test, self.familiar_test) if part is not None]
        for source in {part.split for part in parts}:
            indices = torch.cat([part.indices for part in parts if part.split == source])
            # a user can do nothing about this: it would be a bug of a rule
            assert len(indices.unique()) == len(indices), f"an image of the {source} part is in two parts of a split"


def balanced_choice(labels: Tensor, count: int, seed: int, identities: Tensor | None = None) -> Tensor:
    """A seeded choice of images, evenly over the classes.

    Each class is put in an order of its own; the choice takes the first of every class, then the second of every
    class, and so on. So a smaller choice with the same seed is part of a larger one.

    Args:
        labels: ``[N]``, int64.
        count: how many to choose; all if there are fewer.
        seed: the seed.
        identities: ``[N]``, int64, what an image's place in that order follows from; None: its position.

    Returns:
        ``[min(count, N)]`` positions, int64, ascending.
    """
    known = torch.arange(len(labels)) if identities is None else identities
    keys = torch.from_numpy((make_keys(seed, 0, known.numpy()) >> 1).astype("int64"))
    by_key = keys.argsort(stable=True)
    by_class = by_key[labels[by_key].argsort(stable=True)]
    first_of_class = torch.searchsorted(labels[by_class].contiguous(), labels[by_class].contiguous())
    rank = torch.arange(len(labels)) - first_of_class
    # Within a rank by key, so that what is left over after the last full round is a fair draw.
    order = torch.stack([rank, keys[by_class]], 1)
    chosen = by_class[_sorted_rows(order)[:count]]
    return chosen.sort().values


def _sorted_rows(rows: Tensor) -> Tensor:
    """The order that sorts ``[N, 2]`` rows by the first column, then by the second."""
    by_second = rows[:, 1].argsort(stable=True)
    return by_second[rows[by_second, 0].argsort(stable=True)]


def stratified_fraction(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """A seeded choice of the same share of every class: ``[N]`` booleans.

    Of a class of n images, ``round(fraction · n)`` are chosen, but never all of them.

    Args:
        labels: ``[N]``, int64.
        fraction: from 0 to below 1.
        seed: the seed.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    keys = torch.from_numpy((make_keys(seed, 1, torch.arange(len(labels)).numpy()) >> 1).astype("int64"))
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(round(fraction * len(members)), len(members) - 1)
        chosen[members[keys[members].argsort(stable=True)[:count]]] = True
    return chosen


def _has_instance(dataset: ImageDataset, instances: tuple[int, ...]) -> Tensor:
    return torch.isin(dataset.attributes["instance"], torch.tensor(instances, dtype=torch.int64))


def _familiar(dataset: ImageDataset, settings: SplitSettings, role: str) -> Tensor | None:
    """Which images show a viewpoint to train on: ``[N]`` booleans; None if the rule has no viewpoints."""
    if settings.rule not in ("elevation", "azimuth"):
        return None
    values = dataset.attributes[settings.rule]
    unknown = int((values < 0).sum())
    if unknown:
        raise ValueError(
            f"the rule {settings.rule!r} needs the {settings.rule} of every image; it is unknown (-1) for {unknown:,} "
            f"of the {len(dataset):,} images of {dataset.name}'s {dataset.split} part, which would {role}: "
            "use source='test' with test_instances, or the published info file"
        )
    chosen = settings.train_elevations if settings.rule == "elevation" else settings.train_azimuths
    return torch.isin(values, torch.tensor(chosen, dtype=torch.int64))


def split_dataset(train: ImageDataset | None, test: ImageDataset | None, settings: SplitSettings) -> Split:
    """Divide a data set by a rule.

    Args:
        train: the official training part; may be None if the source is "test".
        test: the official test part; may be None if the source is "train".
        settings: the rule.

    Returns:
        Parts that share no image.

    Raises:
        ValueError: a part is empty, the rule needs labels that the set does not have, or an official part is
            missing.
    """
    if settings.rule == "group":
        return _split_by_groups(train, settings)
    sources = {"both": (train, test), "train": (train, train), "test": (test, test)}[settings.source]
    train_pool, test_pool = sources
    if train_pool is None or test_pool is None:
        raise ValueError(f"the source {settings.source!r} needs an official part that was not given")
    is_single = train_pool is test_pool
    if settings.uses_attributes:
        for pool in (train_pool, test_pool):
            if "instance" not in pool.attributes:
                raise ValueError(
                    f"the rule {settings.rule!r} needs labels that {pool.name} does not have: use smallnorb"
                )

    trains, tests = (torch.ones(len(pool), dtype=torch.bool) for pool in (train_pool, test_pool))
    validates = torch.zeros_like(trains)
    if settings.test_instances:
        tests &= _has_instance(test_pool, settings.test_instances)
        if is_single:
            trains &= ~tests
    if settings.validation_instances:
        validates |= trains & _has_instance(train_pool, settings.validation_instances)
    if settings.train_instances:
        trains &= _has_instance(train_pool, settings.train_instances)

    train_views = _familiar(train_pool, settings, "train")
    test_views = _familiar(test_pool, settings, "test")
    familiar_test = None
    if train_views is not None and test_views is not None:
        trains &= train_views
        validates &= train_views
        # In a single source with no test objects the familiar views of the tested objects are what trains.
        if not is_single or settings.test_instances:
            familiar = tests & test_views
            familiar_test = test_pool.subset(familiar) if familiar.any() else None
        tests &= ~test_views

    trains &= ~validates
    if settings.validation_fraction:
        if train_pool.keys is not None:
            validates |= trains & drawn_share(train_pool.keys, settings.validation_fraction, settings.seed, VALIDATION)
        else:
            candidates = trains.nonzero().flatten()
            chosen = stratified_fraction(train_pool.labels[candidates], settings.validation_fraction, settings.seed)
            validates[candidates[chosen]] = True
        trains &= ~validates
    parts = {"train": (train_pool, trains), "test": (test_pool, tests)}
    # Of few images chosen by their content none may fall to validation: then there is none.
    if settings.validation_instances or (settings.validation_fraction and (train_pool.keys is None or validates.any())):
        parts["validation"] = (train_pool, validates)
    for role, (pool, chosen) in parts.items():
        if not chosen.any():
            raise ValueError(
                f"no image is left to {role} of the {len(pool):,} in {pool.name}'s {pool.split} part under {settings}"
            )
    made = {role: pool.subset(chosen) for role, (pool, chosen) in parts.items()}
    return Split(made["train"], made.get("validation"), made["test"], familiar_test)


def _split_by_groups(pool: ImageDataset | None, settings: SplitSettings) -> Split:
    """Divide the images of one part so that each group is in one of the new parts alone."""
    if pool is None or "group" not in pool.attributes:
        raise ValueError("the rule 'group' needs images whose groups are known: read a folder with groups")
    names = pool.value_names["group"]
    left_out = [str(name) for name in settings.test_groups]
    unknown = [name for name in left_out if name not in names]
    if unknown:
        raise ValueError(
            f"test_groups must be groups of {settings.groups}; got {unknown[0]!r}: it has {', '.join(names[:10])}"
            f"{', ...' if len(names) > 10 else ''}"
        )
    own = pool.attributes["group"]
    tests = torch.isin(own, torch.tensor([names.index(name) for name in left_out]))
    validates = torch.zeros_like(tests)
    if settings.validation_fraction:
        numbers = torch.tensor([int.from_bytes(sha256(name.encode()).digest()[:7]) for name in names])
        drawn = drawn_share(numbers, settings.validation_fraction, settings.seed, VALIDATION)
        validates = ~tests & drawn[own]
    trains = ~tests & ~validates
    if not trains.any():
        raise ValueError(f"no group is left to train of the {len(names)} in {settings.groups} under {settings}")
    validation = pool.subset(validates) if validates.any() else None
    if settings.validation_fraction and validation is None:
        warnings.warn(
            f"no group of {settings.groups} fell to validation, as each is drawn by its name alone: this training has "
            "no validation images; try another --data.split.seed, or raise validation_fraction",
            stacklevel=2,
        )
    return Split(pool.subset(trains), validation, pool.subset(tests))


def limit_images(dataset: ImageDataset, count: int | None, seed: int) -> ImageDataset:
    """At most ``count`` images of a set, evenly over the classes; all of them if None."""
    if count is None or count >= len(dataset):
        return dataset
    limited = dataset.subset(balanced_choice(dataset.labels, count, seed, dataset.keys))
    return replace(limited, origin=f"{dataset.origin}; {count:,} of {len(dataset):,} images")
