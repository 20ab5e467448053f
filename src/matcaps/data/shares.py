"""Shares of a folder's images, drawn by each image's content alone.

An image is held out if a number that follows from its key and the seed falls below the share. So it keeps its part
whatever other images are added or removed, and copies of a picture are always together. The price: shares are met on
average, not exactly, and with few images a class may get none; then a suitable seed is searched for and named.
"""

import warnings

import torch
from torch import Tensor

from matcaps.data.dataset import ImageDataset
from matcaps.data.random import make_keys, uniform
from matcaps.data.settings import SplitSettings

TEST, VALIDATION = 1, 2
"""Names of the two draws, which are independent."""

_SEEDS_TRIED = 200


class EmptyPartError(ValueError):
    """A part that was drawn from a folder's images is empty.

    Attributes:
        what: which part of what is empty.
        seed: of a split that gives every class an image in each part; None if none of the first 200 does.
    """

    def __init__(self, what: str, advice: str, seed: int | None):
        super().__init__(f"{what}: {advice}")
        self.what = what
        self.seed = seed


def drawn_share(keys: Tensor, share: float, seed: int, draw: int) -> Tensor:
    """Which images are held out: ``[N]`` booleans.

    Args:
        keys: ``[N]``, int64, see :attr:`ImageDataset.keys`.
        share: from 0 to below 1.
        seed: the split's seed.
        draw: :data:`TEST` or :data:`VALIDATION`.
    """
    return torch.from_numpy(uniform(make_keys(seed, draw, keys.numpy()), 0) < share)


def hold_out_tests(images: ImageDataset, rule: SplitSettings) -> tuple[ImageDataset, ImageDataset]:
    """Divide a folder without a test part: the images to train on (and validate), and those to test on.

    Raises:
        EmptyPartError: no image falls to one of them; the message says what to do.
        ValueError: there are not two classes.
    """
    assert images.keys is not None
    tests = drawn_share(images.keys, rule.test_fraction, rule.seed, TEST)
    if not tests.any() or tests.all():
        if images.num_classes < 2:
            raise ValueError(f"the data must have at least two classes; got only {', '.join(images.classes)}")
        role = "train" if tests.all() else "test"
        different = len(images.keys.unique())
        copies = "" if different == len(images) else f" ({different} different pictures)"
        raise EmptyPartError(
            f"{images.origin} has no folder 'test', and test_fraction={rule.test_fraction} of its {len(images)} "
            f"images{copies}, each chosen by its content, leaves none to {role}",
            advice(images, rule, holds_tests=True),
            suitable_seed(images, rule, holds_tests=True),
        )
    return images.subset(~tests), images.subset(tests)


def warn_of_missing_classes(
    images: ImageDataset,
    parts: dict[str, ImageDataset | None],
    rule: SplitSettings,
    *,
    holds_tests: bool,
) -> None:
    """Warn of classes without an image in a part that was drawn, and tell what to do.

    Args:
        images: all of them, before the draw.
        parts: what was made of them; None where nothing fell to a part that was wanted.
        rule: how.
        holds_tests: whether test images were drawn too.
    """
    there = images.labels.bincount(minlength=images.num_classes)
    lines = []
    for role, part in parts.items():
        counts = there * 0 if part is None else part.labels.bincount(minlength=images.num_classes)
        lacking = [
            f"{name} ({int(there[label])} in all)"
            for label, name in enumerate(images.classes)
            if there[label] and not counts[label]
        ]
        if len(lacking) == int((there > 0).sum()):
            lines.append(f"no image at all to {role}")
        elif lacking:
            more = ", ..." if len(lacking) > 5 else ""
            lines.append(f"no image to {role} of {', '.join(lacking[:5])}{more}")
    if lines:
        warnings.warn(
            f"{images.origin}: each image's part follows from its content, and so few images leave "
            f"{'; '.join(lines)}: {advice(images, rule, holds_tests=holds_tests)}",
            stacklevel=2,
        )


def advice(images: ImageDataset, rule: SplitSettings, *, holds_tests: bool) -> str:
    """What to do where a class gets no image in a part, with a seed that gives each one, if there is such a seed."""
    folders = "add images, or give folders 'train', 'val' and 'test' of your own"
    seed = suitable_seed(images, rule, holds_tests=holds_tests)
    if seed is None:
        return f"raise the fractions, try another --data.split.seed, {folders}"
    return f"a training with --data.split.seed {seed} has every class in each part; or {folders}"


def suitable_seed(images: ImageDataset, rule: SplitSettings, *, holds_tests: bool) -> int | None:
    """The first seed of a split that gives every class an image in each part; None if none of the first 200 does."""
    assert images.keys is not None
    everyone = images.labels.unique()
    for seed in range(_SEEDS_TRIED):
        tests = drawn_share(images.keys, rule.test_fraction if holds_tests else 0.0, seed, TEST)
        validates = ~tests & drawn_share(images.keys, rule.validation_fraction, seed, VALIDATION)
        trains = ~tests & ~validates
        wanted = [trains, *([tests] if holds_tests else []), *([validates] if rule.validation_fraction else [])]
        if all(torch.equal(images.labels[chosen].unique(), everyone) for chosen in wanted):
            return seed
    return None


def warn_of_copies(parts: dict[str, ImageDataset | None]) -> None:
    """Warn of images in a folder's other parts that are copies of training images, and of pictures in two classes."""
    train = parts["train"]
    assert train is not None
    assert train.keys is not None
    lines = []
    for role, part in parts.items():
        if role == "train" or part is None or part.keys is None:
            continue
        copies = int(torch.isin(part.keys, train.keys).sum())
        if copies:
            lines.append(f"{copies:,} of the {len(part):,} images of its {role} part are copies of training images")
    every = [part for part in parts.values() if part is not None and part.keys is not None]
    pairs = torch.cat([torch.stack([part.keys, part.labels], 1) for part in every if part.keys is not None]).unique(
        dim=0
    )
    twice = len(pairs) - len(pairs[:, 0].unique())
    if twice:
        lines.append(f"{twice:,} of its pictures are in more than one class")
    if lines:
        warnings.warn(f"{train.origin}: {'; '.join(lines)}: remove them where they do not belong", stacklevel=2)
