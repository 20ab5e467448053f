"""One self-contained HTML page about one or several runs."""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names

if TYPE_CHECKING:
    from matcaps.report.collect import RunFacts, ShownMistake, collect_run
    from matcaps.report.page import make_report

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("RunFacts", "ShownMistake", "collect_run"), f"{__name__}.collect"),
        "make_report": f"{__name__}.page",
    },
)

__all__ = ["RunFacts", "ShownMistake", "collect_run", "make_report"]
