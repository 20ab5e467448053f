"""``matcaps report``."""

from pathlib import Path

from matcaps._paths import user_path
from matcaps.cli.parsing import PLAIN, make_parser, out

REPORT_NAME = "report.html"
"""The report's name in a run's folder."""


def report_command(arguments: list[str]) -> int:
    """Write a page about one run or several side by side."""
    parser = make_parser(
        "report",
        "Write one self-contained HTML file about one run or several: settings, curves, agreement of votes, test "
        "figures, worst mistakes.",
    )
    parser.add_argument("runs", type=str, nargs="+", help="folders of finished runs")
    parser.add_argument("--output", type=str | None, help="the file; default: report.html in the first run's folder")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets; default: as in the run")
    parser.add_argument("--title", type=str | None, help="the page's title; default: the runs' names")
    parsed = parser.parse_args(arguments)
    folders = [user_path(run) for run in parsed.runs]
    path = user_path(parsed.output) if parsed.output is not None else folders[0] / REPORT_NAME
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(
            f"no folder {path.parent} to write {path.name} into: create it, or give another --output"
        )
    write_report(folders, path, root=parsed.root, title=parsed.title)
    return 0


def write_report(folders: list[Path], path: Path, *, root: str | None = None, title: str | None = None) -> None:
    """Write the page about some runs, and print its path."""
    from matcaps.report import collect_run, make_report
    from matcaps.training.record import write_text

    write_text(path, make_report([collect_run(folder, root=root) for folder in folders], title=title))
    out.print(f"report: {path}", **PLAIN)
