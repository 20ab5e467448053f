"""``matcaps report``."""

from pathlib import Path

from matcaps.cli.parsing import PLAIN, make_parser, out


def report_command(arguments: list[str]) -> int:
    """Write a page about a run, or about several side by side."""
    parser = make_parser(
        "report",
        "Write one self-contained HTML file about one run or several: settings, curves, test figures, worst mistakes.",
    )
    parser.add_argument("runs", type=str, nargs="+", help="folders of finished runs")
    parser.add_argument("--output", type=str | None, help="the file; default: report.html in the first run's folder")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets; default: as in the run")
    parser.add_argument("--title", type=str | None, help="the page's title; default: the runs' names")
    parsed = parser.parse_args(arguments)
    from matcaps.report import collect_run, make_report
    from matcaps.training.record import write_text

    folders = [Path(run) for run in parsed.runs]
    path = Path(parsed.output) if parsed.output is not None else folders[0] / "report.html"
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into: make it, or give another --output")
    runs = [collect_run(folder, root=parsed.root) for folder in folders]
    write_text(path, make_report(runs, title=parsed.title))
    out.print(f"report: {path}", **PLAIN)
    return 0
