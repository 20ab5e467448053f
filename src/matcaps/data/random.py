"""Random numbers that depend on a key and on nothing else.

A generator with a state gives an image a different augmentation when the batch is cut differently, when another
worker loads it or when a run resumes. Here every number is a hash of ``(seed, epoch, index, draw)``: no state, no
order, any image alone or a whole batch at once. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood 2014),
folded over the parts of the key.
"""

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _mix(z: Keys) -> Keys:
    """SplitMix64's finaliser: a bijection of 64 bits in which each input bit flips half the output bits."""
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


def _as_words(part: object) -> Keys:
    # Arrays of one element, never numpy scalars: only array arithmetic wraps around silently.
    return np.atleast_1d(np.asarray(part, dtype=np.int64)).view(np.uint64)


def make_keys(seed: int, epoch: int, indices: object) -> Keys:
    """One 64-bit key for each image of a batch.

    For a given seed and epoch, different indices never share a key.

    Args:
        seed: the run's seed, any signed 64-bit integer.
        epoch: the epoch, from 0.
        indices: ``[B]`` integers; what identifies each image within its set.

    Returns:
        ``[B]``, uint64.
    """
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, indices):
        key = _mix((key + _GOLDEN) ^ _as_words(part))
    return key


def uniform(keys: Keys, draw: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each key.

    Args:
        keys: ``[B]``, uint64, from :func:`make_keys`.
        draw: which of the key's independent numbers, from 0; or several, as an array that broadcasts with the keys.

    Returns:
        ``[B]``, or the broadcast shape, float64, with 53 random bits.
    """
    counter = _as_words(draw) + np.uint64(1)
    return (_mix(keys + counter * _GOLDEN) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform_between(keys: Keys, draw: int, low: float, high: float) -> NDArray[np.float64]:
    """One number in [low, high) for each key: ``[B]``, float64."""
    return low + (high - low) * uniform(keys, draw)


def integers(keys: Keys, draw: int, count: int) -> NDArray[np.int64]:
    """One of ``0, ..., count - 1`` for each key: ``[B]``, int64."""
    return (uniform(keys, draw) * count).astype(np.int64)


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of ``count`` images in an epoch: ``[count]``, int64, the same on every machine."""
    return np.argsort(make_keys(~seed, epoch, np.arange(count)), kind="stable")
