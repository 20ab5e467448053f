"""``matcaps data``."""

from typing import Any

from matcaps.cli.parsing import PLAIN, make_parser, out

ACTIONS = ("list", "fetch", "verify")
DATA_SETS = ("mnist", "fashion-mnist", "smallnorb")


def data_command(arguments: list[str]) -> int:
    """List, fetch and verify data sets."""
    parser = make_parser(
        "data", "list: show what is present; fetch: download what is missing; verify: compare checksums."
    )
    parser.add_argument("action", type=str, help="list, fetch or verify")
    parser.add_argument("names", type=str, nargs="*", help=f"any of {', '.join(DATA_SETS)}; fetch needs at least one")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parsed = parser.parse_args(arguments)
    if parsed.action not in ACTIONS:
        raise ValueError(f"the action must be list, fetch or verify; got {parsed.action!r}")
    for name in parsed.names:
        if name not in DATA_SETS:
            raise ValueError(f"the data set must be one of {', '.join(DATA_SETS)}; got {name!r}")
    if parsed.action == "fetch" and not parsed.names:
        raise ValueError(f"name what to fetch: {', '.join(DATA_SETS)}")
    names: list[str] = parsed.names or list(DATA_SETS)
    return {"list": _list_data, "fetch": _fetch_data, "verify": _verify_data}[parsed.action](names, parsed.root)


def _list_data(names: list[str], root: str | None) -> int:
    from matcaps.data import data_root
    from matcaps.data.files import missing_files

    out.print(f"data root: {data_root(root)}", **PLAIN)
    for name in names:
        missing = missing_files(name, root)
        state = f"missing {', '.join(missing)}" if missing else "there"
        out.print(f"  {name}: {state}", **PLAIN)
    out.print("  embedded: there (it comes with matcaps)")
    return 0


def _fetch_data(names: list[str], root: str | None) -> int:
    from rich.progress import DownloadColumn, TaskID, TransferSpeedColumn

    from matcaps.cli.bar import make_bars
    from matcaps.data import fetch

    with make_bars(DownloadColumn(), TransferSpeedColumn()) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        statuses = [status for name in names for status in fetch(name, root, progress=progress)]
    _print_statuses(statuses)
    return 0


def _verify_data(names: list[str], root: str | None) -> int:
    from matcaps.data import verify

    statuses = [status for name in names for status in verify(name, root)]
    _print_statuses(statuses)
    return 0 if all(status.state == "ok" for status in statuses) else 1


def _print_statuses(statuses: list[Any]) -> None:
    for status in statuses:
        out.print(f"{status.state:<8} {status.path or status.name}: {status.detail}", **PLAIN)
