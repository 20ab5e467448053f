"""The tables of a record of ``benchmarks/cpu/compare.py``, as Markdown that can also be read as it is."""

import re
from typing import Any

from benchmarks.cpu.peers import CONTENDERS, OURS

HEAD = [
    "implementation",
    "one step",
    "quartiles",
    f"times {OURS}",
    "times the fastest peer",
    "peak memory",
    "steps",
    "parameters",
]


def markdown(record: dict[str, Any]) -> str:
    """Return a table for each configuration of a record, then what the peers do otherwise, then the machine."""
    machine, settings = record["machine"], record["settings"]
    parts = []
    for case in record["cases"]:
        parts += [_title(case["configuration"], settings["batch"]), _table(case["rows"])]
    parts += ["\n".join(_notes(record))]
    parts += [
        "Whole training steps in float32 (forward, spread loss, backward, Adam), medians, every implementation in turn "
        f"on one machine: {machine['cpu']}, {machine['cores']} cores, threads: {machine['threads']}, torch "
        f"{machine['torch']}, {OURS} {machine['commit']}, {machine['date']}."
    ]
    text = "\n\n".join(parts) + "\n"
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]{33}\b", r"\1", text)  # commits by their first digits


def _title(configuration: dict[str, Any], batch: int) -> str:
    letters = zip(
        "ABCD",
        (configuration[name] for name in ("stem_channels", "primary_capsules", "conv_capsules1", "conv_capsules2")),
        strict=True,
    )
    size = configuration["image_size"]
    return (
        f"`{configuration['name']}`: {', '.join(f'{letter}={count}' for letter, count in letters)}, images "
        f"{configuration['in_channels']}×{size}×{size}, {configuration['num_classes']} classes, batch {batch}, "
        f"{configuration['iterations']} iterations"
    )


def _table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [HEAD, ["---"] * len(HEAD)]
    for name, row in rows.items():
        if row["state"] == "timed":
            quartiles = f"{_number(row['quartile_1'])} to {_number(row['quartile_3'])} s"
            peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f} MiB"
            ratios = [_number(row[ratio]) for ratio in ("ratio_to_ours", "ratio_to_fastest_peer")]
            counts = [str(row["steps"]), f"{row['parameters']:,}"]
            lines.append([name, f"{_number(row['median'])} s", quartiles, *ratios, peak, *counts])
        else:
            reason = row["reason"].replace("|", "\\|")
            lines.append([name, f"{row['state']}: {reason}", *[""] * (len(HEAD) - 2)])
    # a long reason does not widen the column for everybody
    widths = [max(len(line[i]) for line in lines if i != 1 or len(line[i]) < 20) for i in range(len(HEAD))]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def _notes(record: dict[str, Any]) -> list[str]:
    notes = []
    for name in dict.fromkeys(name for case in record["cases"] for name in case["rows"]):
        commit = f" ({record['peers'][name]['commit']})" if name in record["peers"] else ""
        notes.append(f"- {name}{commit}: {CONTENDERS[name].NOTE}.")
        for case in record["cases"]:
            row, where = case["rows"].get(name, {}), case["configuration"]["name"]
            if row.get("without_gradient"):
                notes.append(f"  In {where} no gradient reaches {', '.join(row['without_gradient'])}.")
            if row.get("state") == "timed" and row["loss"] is None:
                notes.append(f"  In {where} its loss is not finite after {row['steps']} steps.")
    return notes


def _number(value: float | None) -> str:
    """Three digits, or nothing for what could not be compared."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
