"""One self-contained HTML page about one or several runs."""

from matcaps.inspect.mistakes import ShownMistake
from matcaps.report.collect import RunFacts, collect_run
from matcaps.report.page import make_report

__all__ = ["RunFacts", "ShownMistake", "collect_run", "make_report"]
