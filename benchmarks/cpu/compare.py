"""Times public implementations of matrix capsules, in checkouts that you name, against matcaps.

    python -m benchmarks.cpu.compare --peer officium=../Capsules --peer yl-1993=../Matrix-Capsules-EM-PyTorch

Every contender builds the same two networks and takes whole training steps, each in a process of its own; they have
their turns one after the other, again and again, so that all of them meet the same machine. Prints a table and writes
the record to ``benchmarks/results``; ``--markdown RECORD`` prints the table of a record.
"""

import argparse
import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

from benchmarks.cpu.peers import CONTENDERS, PEERS
from benchmarks.cpu.peers.checkout import commit_of, parse_peer
from benchmarks.cpu.peers.common import CONFIGURATIONS
from benchmarks.cpu.peers.report import markdown
from benchmarks.cpu.peers.turns import measure
from benchmarks.measure import ROOT, machine, write_record


def without_paths(value: Any, checkouts: dict[str, Path]) -> Any:
    """A record whose texts name no folder of this machine: of an absolute path the file's name is left."""
    if isinstance(value, dict):
        return {name: without_paths(item, checkouts) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item, checkouts) for item in value]
    if isinstance(value, str):
        for name, checkout in checkouts.items():
            value = value.replace(str(checkout), name)
        return re.sub(r"(?<![\w.:/\\-])(?:[A-Za-z]:)?[/\\](?:[^\s'\"():;,/\\]+[/\\])+([^\s'\"():;,/\\]*)", r"\1", value)
    return value


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; got {text!r}")
    return int(text)


def duration(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more; got {text!r}")
    return value


def read_record(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or not {"machine", "settings", "peers", "cases"} <= record.keys():
        raise ValueError("it is no record of this script")
    return record


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    repositories = "; ".join(f"{name}: {peer.REPOSITORY}" for name, peer in PEERS.items())
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=CHECKOUT", help=f"repeatable; {repositories}"
    )
    parser.add_argument("--configuration", action="append", choices=[*CONFIGURATIONS, "all"], help="repeatable")
    parser.add_argument("--batch", type=positive, default=24)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=duration, default=10.0, help="a contender's turn in each round")
    parser.add_argument(
        "--min-steps", type=positive, default=3, help="steps, over all rounds, of one that is slower than its turn"
    )
    parser.add_argument("--threads", type=positive, help="of each contender; torch's own number without it")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--markdown", type=Path, metavar="RECORD", help="print the table of a record, time nothing")
    options = parser.parse_args(arguments)
    if options.markdown:
        try:
            options.record = read_record(options.markdown)
        except (OSError, ValueError) as error:
            parser.error(f"cannot read {options.markdown}: {error}")
        return options
    if not options.peer:
        parser.error(f"give at least one --peer NAME=CHECKOUT; there are adapters for {', '.join(PEERS)}")
    try:
        peers = [parse_peer(text) for text in options.peer]
    except ValueError as error:
        parser.error(str(error))
    options.checkouts = dict(peers)
    if len(options.checkouts) < len(peers):
        parser.error(f"one checkout for each peer; got {', '.join(name for name, _ in peers)}")
    try:
        options.output.mkdir(parents=True, exist_ok=True)  # rather now than after an hour
    except OSError as error:
        parser.error(f"cannot make the folder {options.output}: {error.strerror}")
    chosen = options.configuration or ["all"]
    options.configurations = [name for name in CONFIGURATIONS if name in chosen or "all" in chosen]
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.markdown:
        print(markdown(options.record), end="")
        return 0
    checkouts, where = options.checkouts, machine()
    if options.threads:
        where["threads"] = options.threads
    record: dict[str, Any] = {
        "machine": where,
        "settings": {name: getattr(options, name) for name in ("batch", "rounds", "seconds", "min_steps")},
        "peers": {
            name: {"repository": CONTENDERS[name].REPOSITORY, "commit": commit_of(checkout)}
            for name, checkout in checkouts.items()
        },
        "cases": [],
    }
    for name in options.configurations:
        rows = measure(name, checkouts, options)
        record["cases"].append({"configuration": dataclasses.asdict(CONFIGURATIONS[name]), "rows": rows})
        record = without_paths(record, checkouts)
        # after each configuration, into one file, so that an interruption of the next one does not lose it
        path = write_record("compare", record, options.output)
    print(markdown(record))
    print(path)
    return int(any(row["state"] == "failed" for case in record["cases"] for row in case["rows"].values()))


if __name__ == "__main__":
    sys.exit(main())
