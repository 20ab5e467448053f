"""Checks of numbers that callers give, and numbers in words; free of torch."""

import operator
import sys
from numbers import Real
from typing import Any


def whole(value: object) -> int | None:
    """An ``int`` of Python's, also of NumPy's and torch's whole numbers, so that JSON can hold it; else None."""
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def is_finite(value: Any) -> bool:
    """Whether a number is finite as a float, too; a whole one of more than 308 digits is not."""
    number = value if isinstance(value, int) else float(value)  # NumPy's narrow numbers compare in their own width
    return abs(number) <= sys.float_info.max  # torch.compile cannot trace math.isfinite


def is_number(value: object) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and is_finite(value)


def plain(value: float) -> float:
    """A number as JSON can hold it: NumPy's as Python's."""
    return value if isinstance(value, int) else float(value)


def check_count(name: str, value: object, least: int = 1, advice: str = "") -> int:
    """Return a count as an ``int``.

    Raises:
        ValueError: it is no whole number of at least ``least``.
    """
    count = whole(value)
    if count is None or count < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}{advice}")
    return count


def short_number(value: float) -> str:
    """A number from 0 to millions, for a small space: three digits, and never an exponent where it is large."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
