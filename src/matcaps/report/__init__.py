"""One page in HTML about one run or several, with everything in it."""

from matcaps.inspect.mistakes import ShownMistake
from matcaps.report.collect import RunFacts, collect_run
from matcaps.report.page import make_report

__all__ = ["RunFacts", "ShownMistake", "collect_run", "make_report"]
