"""What every view is: numbers, a figure of them, and what they say, side by side."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from matplotlib.figure import Figure


class Display(ABC):
    """Numbers that are measured already, and how they are drawn and said.

    A view is a frozen dataclass with ``from_subject``, which measures; :data:`matcaps.inspect.views.VIEWS` lists them.

    Attributes:
        caption: what the figure shows, in a sentence for a newcomer.
        as_json: whether :attr:`numbers` are few plain values, to be kept as JSON; else tensors, kept as NPZ.
        numbers: what is behind the figure.
    """

    caption: ClassVar[str]
    as_json: ClassVar[bool] = False
    numbers: Any

    @property
    def sentences(self) -> Mapping[str, str]:
        """What the numbers say, by what it is about."""
        return {}

    @abstractmethod
    def plot(self) -> Figure:
        """Draw the numbers; nothing is measured here."""


class NothingToShowError(ValueError):
    """A view cannot be had of this subject; the message says why."""
