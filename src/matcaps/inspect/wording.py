"""Words for numbers by iteration, which claim no more than the numbers show."""

import itertools
from collections.abc import Sequence

from matcaps._numbers import short_number

NOTICEABLE = 0.05
"""A distance or a share must differ by this part before a sentence calls it different."""


def arrows(values: Sequence[float], factor: float = 1.0) -> str:
    """Numbers by iteration: ``"20 → 30.8 → 59"``."""
    return " → ".join(short_number(factor * value).replace("-", "−") for value in values)


def rises(values: Sequence[float]) -> bool:
    """Whether each number is larger than the one before."""
    return all(after > before for before, after in itertools.pairwise(values))


def change(values: Sequence[float]) -> float:
    """The change from the first iteration to the last, as a fraction of the first."""
    return values[-1] / max(values[0], 1e-20) - 1


def direction(values: Sequence[float]) -> int:
    """The direction from the first iteration to the last: 1 up, -1 down, 0 neither or not known."""
    relative = change(values)
    return 1 if relative >= NOTICEABLE else -1 if relative <= -NOTICEABLE else 0
