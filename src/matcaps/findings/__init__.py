"""All that is to be seen inside a saved network, in a folder: figures, the numbers behind them, and what they say."""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names
from matcaps.findings.settings import InspectSettings

if TYPE_CHECKING:
    from matcaps.findings.run import Findings, inspect_saved

__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(("Findings", "inspect_saved"), f"{__name__}.run"))

__all__ = ["Findings", "InspectSettings", "inspect_saved"]
