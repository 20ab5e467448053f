"""The contenders' turns in one configuration, and what comes of them."""

import contextlib
import math
import statistics
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks.cpu.peers import OURS
from benchmarks.cpu.peers.process import Worker, WorkerDiedError


class Entry:
    """A contender in one configuration: its worker, what it has answered, and its row."""

    def __init__(self, name: str, worker: Worker):
        self.name, self.worker = name, worker
        self.seconds: list[float] = []
        self.row: dict[str, Any] = {"state": "waiting"}

    def check(self, **request: Any) -> None:
        answer = self.ask(do="check", contender=self.name, **request)
        if "cannot" in answer:
            self.row = {"state": "cannot be built", "reason": answer["cannot"]}
        elif answer:
            self.expected_seconds = answer.pop("seconds")
            self.row = {"state": "timed", **answer}
        self.ask(do="rest")

    def turn(self, steps_due: int, seconds: float) -> None:
        """Take the steps that are due, and as many more as fit into the seconds."""
        used = 0.0
        while self.is_timed and (len(self.seconds) < steps_due or used + self.expected_seconds <= seconds):
            answer = self.ask(do="step")
            if answer:
                self.seconds.append(answer["seconds"])
                used += answer["seconds"]
                self.expected_seconds = statistics.median(self.seconds)
                self.row.update(loss=answer["loss"], peak_mib=answer["peak_mib"])
        self.ask(do="rest")

    def ask(self, **request: Any) -> dict[str, Any]:
        """The worker's answer; an empty one from a worker that dies, whose row then says so."""
        if self.row["state"] == "failed":
            return {}
        try:
            return self.worker.ask(**request)
        except WorkerDiedError as error:
            self.row = {"state": "failed", "reason": error.reason}
            say(f"{self.name} failed: {error}")
            return {}

    @property
    def is_timed(self) -> bool:
        return self.row["state"] == "timed"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(configuration: str, checkouts: dict[str, Path], options: Namespace) -> dict[str, dict[str, Any]]:
    """The rows of one configuration: each round gives each contender its turn."""
    with contextlib.ExitStack() as stack:
        entries = [Entry(name, stack.enter_context(Worker(options.threads))) for name in (OURS, *checkouts)]
        for entry in entries:
            say(f"{configuration}: {entry.name} builds and checks its network")
            checkout = str(checkouts[entry.name]) if entry.name in checkouts else None
            entry.check(checkout=checkout, configuration=configuration, batch=options.batch, threads=options.threads)
        for done in range(1, options.rounds + 1):
            for entry in entries:
                entry.turn(math.ceil(options.min_steps * done / options.rounds), options.seconds)
                if entry.is_timed:
                    median = statistics.median(entry.seconds)
                    say(f"{configuration}: round {done}, {entry.name}: {median:.3g} s, {len(entry.seconds)} steps")
    return summary(entries)


def summary(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    """Rows with seconds (median and quartiles) and with the ratios between medians."""
    for entry in entries:
        if entry.is_timed:
            times = sorted(entry.seconds)
            entry.row |= {
                "median": statistics.median(times),
                "quartile_1": times[len(times) // 4],
                "quartile_3": times[(3 * len(times)) // 4],
                "steps": len(times),
            }
    rows = {entry.name: entry.row for entry in entries}
    medians = {name: row["median"] for name, row in rows.items() if "median" in row}
    fastest_peer = min((median for name, median in medians.items() if name != OURS), default=None)
    for name, median in medians.items():
        rows[name]["ratio_to_ours"] = median / medians[OURS] if OURS in medians else None
        rows[name]["ratio_to_fastest_peer"] = median / fastest_peer if fastest_peer else None
    return rows
