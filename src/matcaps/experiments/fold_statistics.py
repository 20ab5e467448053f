"""Statistics of recipes over left-out objects: means with intervals, paired differences, and noise between seeds.

An object counts once, however many images it has, because its images are not independent. Everything is
seeded, so that the same records give the same results.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_SEED = 20_180_430
_RESAMPLES = 10_000
_AT_ONCE = 500
_FLIPS = 100_000
EXACT_OBJECTS = 30
"""Up to this number of objects, every pattern of signs is counted."""


@dataclass(frozen=True, eq=False)
class Table:
    """One measure of a recipe.

    Attributes:
        values: ``[objects, seeds]``; NaN where an object has no value for a seed.
        folds: ``[objects]``, the fold that left the object out: objects of one fold share a network.
    """

    values: Values
    folds: Sequence[Hashable]

    @property
    def by_object(self) -> Values:
        """``[objects]``, each object's mean over its seeds."""
        return np.nanmean(self.values, axis=1)

    @property
    def known(self) -> NDArray[np.bool_]:
        """``[objects]``, whether an object has a value with any seed."""
        return np.asarray(~np.isnan(self.values).all(axis=1), dtype=bool)

    def rows(self, chosen: NDArray[np.bool_]) -> "Table":
        """Some of the objects."""
        return Table(self.values[chosen], [fold for fold, one in zip(self.folds, chosen, strict=True) if one])


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How a recipe differs from another on the objects that both have.

    Attributes:
        num_objects: number of these objects.
        difference: the second's mean less the first's, with its interval.
        p: two-sided, of a sign-flip test over the objects.
        num_better: objects on which the second's value is lower.
        num_worse: objects on which it is higher.
    """

    num_objects: int
    difference: Estimate
    p: float
    num_better: int
    num_worse: int


@dataclass(frozen=True)
class Noise:
    """The difference between two seeds of one recipe.

    Attributes:
        num_pairs: pairs of seeds.
        num_objects: number of objects that both seeds have, for the pair with the fewest.
        of_mean: root mean square over the pairs of the difference of their means over the objects.
        of_object: root mean square over pairs and objects of the difference on one object.
    """

    num_pairs: int
    num_objects: int
    of_mean: float
    of_object: float


def estimate(table: Table) -> Estimate:
    """The mean over the objects, with a bootstrap over objects and seeds.

    Each resample draws objects, and for each fold seeds, as each fold and seed is a training of its own.
    """
    (means,) = _resampled([table])
    return _interval(float(table.by_object.mean()), means)


def compare(first: Table, second: Table) -> Comparison:
    """Compare two recipes on the same objects, row by row; rows with NaN in either are left out.

    Raises:
        ValueError: there is no object that both have.
    """
    both = np.asarray(first.known & second.known, dtype=bool)
    if not both.any():
        raise ValueError("two recipes must have an object in common to be compared; these have none")
    first, second = first.rows(both), second.rows(both)
    differences = second.by_object - first.by_object
    ours, theirs = _resampled([first, second])
    return Comparison(
        len(differences),
        _interval(float(differences.mean()), theirs - ours),
        sign_flip_p(differences),
        int((differences < 0).sum()),
        int((differences > 0).sum()),
    )


def noise_floor(tables: Sequence[Table]) -> Noise | None:
    """The difference between two seeds of one recipe; None if no recipe has two seeds on the same objects."""
    means, each, objects = [], [], []
    for table in tables:
        for one, other in combinations(range(table.values.shape[1]), 2):
            difference = table.values[:, one] - table.values[:, other]
            difference = difference[~np.isnan(difference)]
            if len(difference):
                means.append(difference.mean())
                each.append(difference)
                objects.append(len(difference))
    if not means:
        return None
    return Noise(len(means), min(objects), _root_mean_square(np.array(means)), _root_mean_square(np.concatenate(each)))


def sign_flip_p(differences: Values) -> float:
    """The share of all patterns of signs whose mean is at least as far from 0 as that of the differences.

    If two recipes did not differ, each object's difference could equally have the other sign. Up to
    :data:`EXACT_OBJECTS` objects all patterns are counted; beyond, 100,000 are drawn, always the same ones.

    Example:
        >>> sign_flip_p(np.array([1.0, 2.0, 3.0]))
        0.25
    """
    differences = differences[differences != 0]  # the sign of 0 does not matter
    if not len(differences):
        return 1.0
    scale = np.abs(differences).sum()
    reached = abs(differences.sum()) - 1e-9 * scale
    if len(differences) <= EXACT_OBJECTS:
        one, other = (np.sort(_signed_sums(half)) for half in np.array_split(differences, 2))
        above = len(other) - np.searchsorted(other, reached - one, side="left")
        below = np.searchsorted(other, -reached - one, side="right")
        return min(1.0, float((above + below).sum() / (len(one) * len(other))))
    generator = np.random.default_rng(_SEED)
    count = 0
    for start in range(0, _FLIPS, _AT_ONCE):
        signs = generator.integers(0, 2, (min(_AT_ONCE, _FLIPS - start), len(differences))) * 2 - 1
        count += int((np.abs(signs @ differences) >= reached).sum())
    return (count + 1) / (_FLIPS + 1)


def _signed_sums(values: Values) -> Values:
    """The sums under all patterns of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _resampled(tables: Sequence[Table]) -> list[Values]:
    """Means of resamples: the drawn objects are the same in all tables, the seeds are drawn for each table."""
    generator = np.random.default_rng(_SEED)
    num_objects = len(tables[0].values)
    draws: list[list[Values]] = [[] for _ in tables]
    seeds = [_seed_resampler(table) for table in tables]
    for start in range(0, _RESAMPLES, _AT_ONCE):
        count = min(_AT_ONCE, _RESAMPLES - start)
        weights = generator.multinomial(num_objects, np.full(num_objects, 1 / num_objects), count) / num_objects
        for own, resample in zip(draws, seeds, strict=True):
            own.append((weights * resample(generator, count)).sum(axis=1))
    return [np.concatenate(own) for own in draws]


def _seed_resampler(table: Table) -> Callable[[np.random.Generator, int], Values]:
    """A function that draws, for a number of resamples, each object's mean over seeds drawn for its fold."""
    parts = []
    for fold in dict.fromkeys(table.folds):
        rows = np.array([place for place, own in enumerate(table.folds) if own == fold])
        complete = ~np.isnan(table.values[rows]).any(axis=0)
        own = table.values[rows]
        # if no seed has all objects of a fold, only their means are used
        parts.append((rows, own[:, complete] if complete.any() else np.nanmean(own, axis=1, keepdims=True)))

    def resample(generator: np.random.Generator, count: int) -> Values:
        means = np.empty((count, len(table.values)))
        for rows, values in parts:
            number = values.shape[1]
            shares = generator.multinomial(number, np.full(number, 1 / number), count) / number
            means[:, rows] = shares @ values.T
        return means

    return resample


def _interval(mean: float, resampled: Values) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(mean, float(low), float(high))


def _root_mean_square(values: Values) -> float:
    return float(np.sqrt(np.mean(values**2)))
