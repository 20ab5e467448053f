"""Times every routing in the paper's small network: all votes at once, in blocks of images (as they are), compiled.

    .venv/bin/python -m benchmarks.cpu.routings [NAMES]

Contenders take turns with EM in the compiled core; a record goes to benchmarks/results, and a table is printed. Times
are the processor's, medians with quartiles; memory is what two steps add to a process of its own. One thread:
OMP_NUM_THREADS=1.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.cases import ROUTING_CONTENDERS, Routing
from benchmarks.measure import ROOT, interleave, machine, peak_memory, summary, write_record
from matcaps.experiments.tables import markdown
from matcaps.layers.routings import ROUTINGS


def measure(routing: str, contenders: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A routing's rows, and EM's beside them."""
    case, em = Routing(routing, options.batch), Routing("em", options.batch)
    steps = {"em": em.step("core"), **{name: case.step(name) for name in contenders}}
    times = interleave(steps, options.rounds, options.seconds)
    rows: dict[str, Any] = {name: summary(one) for name, one in times.items()}
    for name, row in rows.items():
        row["times_em"] = row["total"] / rows["em"]["total"]
        if not options.skip_memory:
            row["peak_mib"] = peak_memory(em if name == "em" else case, name)
    return {"routing": routing, "batch": options.batch, "rows": rows}


def table(cases: list[dict[str, Any]]) -> str:
    """The record as Markdown."""
    header = ["routing", "votes", "ms a step", "quartiles", "times EM's", "peak MiB"]
    lines = []
    for case in cases:
        for name, row in case["rows"].items():
            quartiles = f"{row['quartile_1']:.0f} to {row['quartile_3']:.0f}"
            peak = row.get("peak_mib")
            cells = [f"{row['total']:.0f}", quartiles, f"{row['times_em']:.1f}", "–" if peak is None else f"{peak:.0f}"]
            lines.append([case["routing"], "EM beside it, the compiled core" if name == "em" else name, *cells])
    return markdown(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"routings; default: {' '.join(ROUTINGS)}")
    parser.add_argument("--skip-compile", action="store_true", help="leave torch.compile out, which takes minutes")
    parser.add_argument("--skip-memory", action="store_true", help="leave out the processes that measure memory")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.0, help="a contender's turn in each round; 0: one step")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    unknown = set(options.names) - set(ROUTINGS)
    if unknown or options.rounds < 1 or options.batch < 1:
        parser.error(f"names must be from {', '.join(ROUTINGS)}, and --rounds and --batch at least 1")
    contenders = [name for name in ROUTING_CONTENDERS if not (options.skip_compile and name == "compiled")]
    record: dict[str, Any] = {"machine": machine(), "cases": []}
    path = None
    for name in options.names or ROUTINGS:
        record["cases"].append(measure(name, contenders, options))
        path = write_record("routings", record, options.output)  # after each, so that an end costs one routing
        print(table(record["cases"][-1:]), flush=True)
    print(f"\n{table(record['cases'])}\n\n{path}")


if __name__ == "__main__":
    main()
