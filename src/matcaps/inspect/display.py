"""What every view has: numbers, a figure of them, and sentences about them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from matplotlib.figure import Figure


class Display(ABC):
    """Numbers that are already measured, and how they are drawn and described.

    A view is a frozen dataclass with ``from_inspection``, which measures; :data:`matcaps.inspect.views.VIEWS` lists
    them.

    Attributes:
        caption: a sentence that tells a newcomer what the figure shows.
        as_json: whether :attr:`numbers` are few plain values, saved as JSON; else they are tensors, saved as NPZ.
        numbers: the values that the figure shows.
    """

    caption: ClassVar[str]
    as_json: ClassVar[bool] = False
    numbers: Any

    @property
    def sentences(self) -> Mapping[str, str]:
        """Sentences about the numbers, by their topic."""
        return {}

    @abstractmethod
    def plot(self) -> Figure:
        """Draw the numbers; nothing is measured here."""


class NothingToShowError(ValueError):
    """This view cannot be made here; the message gives the reason."""
