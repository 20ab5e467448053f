"""Times the operator and whole networks: ``python -m benchmarks.cpu.bench``, or ``make bench``.

Runs the operator's tests first (``--skip-tests`` to leave them out), then every contender in turn, again and again, so
that all of them meet the same machine; prints tables and adds a record to ``benchmarks/results``. Run it on an idle
machine: rates are given as shares of the peak that is measured beside them.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

from benchmarks.cases import GROWTH, LAYER_CONTENDERS, LAYERS, NETWORKS, ONE_IMAGE, Layer
from benchmarks.measure import (
    ROOT,
    fma_peak,
    interleave,
    machine,
    peak_memory,
    summary,
    with_threads,
    write_record,
)
from matcaps.routing import available_implementations, native

PARTS = ("layers", "networks", "threads", "growth")


def spread_of(row: dict[str, float]) -> str:
    return f"{row['quartile_1']:.1f} to {row['quartile_3']:.1f}"


def bench_layers(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One layer, forward and backward: the compiled core, the reference and torch.compile of the reference."""
    contenders = [name for name in LAYER_CONTENDERS if name in available_implementations() or name == "compiled"]
    if options.skip_compile:
        contenders.remove("compiled")
    print(f"{'layer':8}{'contender':12}{'ms':>9}{'quartiles':>18}{'ratio':>8}{'peak MiB':>10}{'of FMA peak':>24}")
    cases = []
    for layer in LAYERS:
        peak = [fma_peak()]
        times = interleave({name: layer.step(name) for name in contenders}, options.rounds, options.seconds)
        peak.append(fma_peak())
        rows = {name: summary(times[name]) for name in contenders}
        for name, row in rows.items():
            row["peak_mib"] = peak_memory(layer, name)
            row["ratio"] = row["total"] / rows[contenders[0]]["total"]
            for kind, count in zip(("forward", "backward"), layer.operations, strict=True):
                row[f"{kind}_of_peak"] = count / (row[kind] * 1e-3) / max(peak)
            row["of_peak"] = sum(layer.operations) / (row["total"] * 1e-3) / max(peak)
            share = f"{row['forward_of_peak']:.1%} forward, {row['backward_of_peak']:.1%} back"
            print(
                f"{layer.name:8}{name:12}{row['total']:9.1f}{spread_of(row):>18}{row['ratio']:8.1f}"
                f"{row['peak_mib'] or float('nan'):10.0f}{share:>24}",
                flush=True,
            )
        cases.append({"layer": layer._asdict(), "fma_peak": max(peak), "rows": rows})
    return cases


def bench_networks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Whole training steps and inference, with the compiled core, and the steps of the reference."""
    print(f"\n{'network':24}{'contender':12}{'ms':>9}{'quartiles':>18}{'images/s':>10}{'peak MiB':>10}")
    cases = []
    for network in NETWORKS:
        contenders = ["native", "inference", "reference"]
        times = interleave({name: network.step(name) for name in contenders}, options.rounds, options.seconds)
        rows = {name: summary(times[name]) for name in contenders}
        for name, row in rows.items():
            row["peak_mib"] = peak_memory(network, name)
            row["images_per_second"] = network.batch / (row["total"] * 1e-3)
            print(
                f"{network.name:24}{name:12}{row['total']:9.1f}{spread_of(row):>18}{row['images_per_second']:10.0f}"
                f"{row['peak_mib'] or float('nan'):10.0f}",
                flush=True,
            )
        cases.append({"network": network._asdict(), "rows": rows})
    return cases


def bench_threads(options: argparse.Namespace) -> dict[str, Any]:
    """Threads: how a step and a single image scale, and what a thread pool beside torch's OpenMP costs."""
    counts = sorted({1, torch.get_num_threads()})
    print(f"\n{'network':24}{'threads':12}{'ms':>9}{'quartiles':>18}")
    found: dict[str, Any] = {"scaling": [], "pools": []}

    def show(name: str, kind: str, row: dict[str, float]) -> None:
        print(f"{name:24}{kind:12}{row['total']:9.2f}{spread_of(row):>18}", flush=True)

    for network, contender in [(NETWORKS[0], "native"), *((network, "inference") for network in ONE_IMAGE)]:
        rows = with_threads(counts, network.step(contender), options.rounds, options.seconds / 2)
        for count, row in rows.items():
            show(network.name, f"{count}", row)
        found["scaling"].append({"network": network._asdict(), "contender": contender, "rows": rows})
    library = native.LIBRARY
    if library is None:
        return found
    for network in (NETWORKS[0], ONE_IMAGE[0]):
        step = network.step("native")

        def turn(share: bool, step=step):
            library.share_threads(share)
            return step()

        times = interleave(
            {"shared": lambda turn=turn: turn(True), "own pool": lambda turn=turn: turn(False)},
            options.rounds,
            options.seconds / 2,
        )
        library.share_threads(True)
        rows = {name: summary(row) for name, row in times.items()}
        for name, row in rows.items():
            show(network.name, name, row)
        found["pools"].append({"network": network._asdict(), "rows": rows})
    return found


def bench_growth(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Time and memory as the batch, the map and the number of types grow: nanoseconds a vote component."""
    print(f"\n{'growing':12}{'layer':10}{'ms':>9}{'ns a component':>16}{'peak MiB':>10}{'votes, MiB':>12}")

    def row_of(layer: Layer, times: list[list[float]]) -> dict[str, Any]:
        row: dict[str, Any] = summary(times)
        row["ns_per_component"] = row["total"] * 1e6 / layer.vote_components
        row["peak_mib"] = peak_memory(layer, "native")
        row["votes_mib"] = layer.vote_components * 4 / 2**20
        return row

    found: dict[str, list[dict[str, Any]]] = {}
    for kind, layers in GROWTH.items():
        times = interleave({layer.name: layer.step("native") for layer in layers}, options.rounds, options.seconds / 4)
        found[kind] = []
        for layer in layers:
            row = row_of(layer, times[layer.name])
            found[kind].append({"layer": layer._asdict(), **row})
            print(
                f"{kind:12}{layer.name:10}{row['total']:9.2f}{row['ns_per_component']:16.3f}"
                f"{row['peak_mib'] or float('nan'):10.0f}{row['votes_mib']:12.0f}",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--skip-compile", action="store_true", help="leave torch.compile of the reference out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="a contender's turn in each round")
    parser.add_argument("--only", choices=PARTS, action="append", help="some of the tables; may be repeated")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 0:
        parser.error("--rounds must be at least 1 and --seconds not negative")
    if not options.skip_tests:
        subprocess.run([sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "routing")], check=True, cwd=ROOT)
    record: dict[str, Any] = {"machine": machine()}
    print(f"{record['machine']}\n")
    parts = {"layers": bench_layers, "networks": bench_networks, "threads": bench_threads, "growth": bench_growth}
    for name in options.only or PARTS:
        record[name] = parts[name](options)
    print(f"\n{write_record('bench', record, options.output)}")


if __name__ == "__main__":
    main()
