"""Profiles ConvCaps1 of ``paper`` with Nsight Compute: ``python -m benchmarks.gpu.profile_kernels --record FILE``.

Starts ``ncu --clock-control none`` over one forward and one backward pass, of the slowest kernels that ``gpu/bench.py``
found, or else of all that visit children. What ncu says goes to a text file (``--text``); what matters of it is printed
and put into the record: why a kernel takes as long as it does.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

from benchmarks.gpu.measure import update_record
from benchmarks.measure import ROOT

SECTIONS = ("SpeedOfLight", "SchedulerStats", "WarpStateStats", "InstructionStats", "Occupancy", "LaunchStats")
KERNELS = ("iterate_first", "iterate_later", "iterate_back", "sweep")

WANTED = {
    "Duration": "us",
    "SM Frequency": "ghz",
    "DRAM Throughput": "dram_percent",
    "Executed Instructions": "instructions",
    "Issued Warp Per Scheduler": "issued",
    "Active Warps Per Scheduler": "warps",
    "Eligible Warps Per Scheduler": "eligible",
    "Warp Cycles Per Issued Instruction": "cycles_an_instruction",
    "Registers Per Thread": "registers",
    "Waves Per SM": "waves",
    "Theoretical Occupancy": "occupancy_percent",
}
"""Metrics of ncu's by what the record calls them."""


def slowest(record: dict[str, Any], layer: str, count: int = 3) -> list[str]:
    """Kernels of a layer whose launches take longest together."""
    sums: dict[str, float] = {}
    for row in record.get("kernels", []):
        if row["layer"] == layer:
            sums[row["kernel"]] = sums.get(row["kernel"], 0.0) + row["median"]
    return sorted(sums, key=lambda kernel: -sums[kernel])[:count] or list(KERNELS)


def command_of(kernels: list[str], layer: str, ncu: str = "ncu") -> list[str]:
    """What to start."""
    sections = [word for name in SECTIONS for word in ("--section", name)]
    return [
        ncu, "--clock-control", "none", "--print-details", "all", *sections,
        "--kernel-name", f"regex:^({'|'.join(kernels)})$",
        sys.executable, "-m", "benchmarks.gpu.profile_kernels", "--run", layer,
    ]  # fmt: skip


def read_profile(text: str) -> list[dict[str, Any]]:
    """What ncu says of each launch: the wanted metrics, and the stalls that cost most, in cycles an instruction."""
    rows: list[dict[str, Any]] = []
    for line in text.splitlines():
        if start := re.match(r"  (\w+) \((\d+), (\d+), (\d+)\)x\((\d+), \d+, \d+\), Context", line):
            grid = [int(start[i]) for i in (2, 3, 4)]
            rows.append({"kernel": start[1], "grid": grid, "threads": int(start[5]), "stalls": {}})
        metric = re.match(r"\s+(\S.*?)\s{2,}(?:(\S+)\s+)?([\d,.]*\d)\s*$", line)
        if metric is None or not rows:
            continue
        name, value = metric[1], float(metric[3].replace(",", ""))
        if name == "Duration":
            value *= {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}[metric[2]]
        if name in WANTED:
            rows[-1].setdefault(WANTED[name], value)
        elif name.startswith("Stall ") and value >= 0.1:
            rows[-1]["stalls"][name.removeprefix("Stall ").lower()] = value
    return rows


def show(row: dict[str, Any]) -> str:
    """A launch as a line."""
    stalls = sorted(row["stalls"].items(), key=lambda item: -item[1])[:5]
    found = ", ".join(f"{name} {row[name]:g}" for name in WANTED.values() if name in row)
    waits = ", ".join(f"{name} {cycles:g}" for name, cycles in stalls)
    return f"{row['kernel']} {row['grid']}: {found}; waits for {waits}"


def run(layer_name: str) -> None:
    """Both passes, once."""
    import torch

    from benchmarks.gpu.layers import LAYERS, both_passes, plan_on
    from matcaps.routing.cuda_program import program_for

    layer, device = LAYERS[layer_name], torch.device("cuda")
    plan = plan_on(layer, device)
    both_passes(plan, layer.inputs(device), program_for(plan.shape, plan.cut, device).launch)
    torch.cuda.synchronize()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", type=Path, help="of benchmarks.gpu.bench: says what is slowest, gets the profile")
    parser.add_argument("--text", type=Path, help="for all that ncu says")
    parser.add_argument("--layer", default="paper ConvCaps1")
    parser.add_argument("--run", metavar="LAYER", help="what ncu looks at; not for people")
    options = parser.parse_args(arguments)
    if options.run:
        run(options.run)
        return 0
    ncu = shutil.which("ncu")
    if ncu is None:
        print("no ncu (Nsight Compute) on PATH")
        return 1
    record = json.loads(options.record.read_text()) if options.record and options.record.exists() else {}
    kernels = slowest(record, options.layer)
    print(f"ncu: {', '.join(kernels)} of {options.layer}", flush=True)
    done = subprocess.run(command_of(kernels, options.layer, ncu), capture_output=True, text=True, cwd=ROOT)
    if options.text:
        options.text.write_text(done.stdout + done.stderr)
    rows = read_profile(done.stdout)
    said = done.stdout[-1000:] + done.stderr[-500:]
    print("\n".join(map(show, rows)) or f"ncu saw no kernel (exit status {done.returncode}): {said}")
    if rows and options.record:
        update_record(options.record, profile={"layer": options.layer, "launches": rows})
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
