"""What bounds the compiled core: ``python -m benchmarks.cpu.roofline``; half a minute on an idle machine.

Measures on one thread how fast multiply-adds are by themselves, how fast with their operands loaded from each level of
memory, and how fast the layers of ``make bench`` are, in turns. Adds a record to ``benchmarks/results``, which the
documentation draws. The bytes of a layer are counted, not measured: see :func:`traffic`.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import LAYERS, Layer
from benchmarks.measure import ROOT, interleave, machine, write_record
from matcaps.routing import native

LEVELS = {"first-level cache": 1 << 14, "second-level cache": 1 << 19, "memory": 1 << 28}
"""Bytes that lie in each level of today's processors."""

LOADS = (0, 1, 2, 3, 4)
"""Of four multiply-adds so many load a vector."""

LANES = 16
"""Parents of a block, as AVX-512 has them: what traffic is counted for."""


def traffic(layer: Layer) -> tuple[float, float]:
    """Bytes that a pass moves between the first and the second cache at least, forward and backward, by count.

    For a child and a block of parents: its sixteen components of matrices once for each visit of a window (moments in
    every iteration, distances in all but the last; backward the gradients of both and the last sweep, which also reads
    and writes the matrices' gradients); one number a parent for each assignment written, normalised and read.
    """
    t = layer.iterations
    blocks = layer.vote_components / 16 / LANES
    matrices, number = 16 * LANES * 4, LANES * 4
    forward = matrices * (2 * t - 1) + number * 4 * (t - 1)
    backward = matrices * (2 * (t - 1) + 1 + 2) + number * 7 * (t - 1)
    return forward * blocks, backward * blocks


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """Rates of multiply-adds and of layers, medians of turns: operations a second."""
    library = native.LIBRARY
    if library is None:
        raise SystemExit(f"the compiled core is not available: {native.MISSING}")
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for level, size in LEVELS.items():
            for loads in LOADS:
                rate = library.fma_peak(1, seconds=seconds / 20, loads=loads, memory=size)
                rates.setdefault((level, loads), []).append(rate)
    times = interleave({layer.name: layer.step("native") for layer in LAYERS}, rounds, seconds)
    layers = []
    for layer in LAYERS:
        parts = [statistics.median(step[part] for step in times[layer.name]) for part in (0, 1)]
        layers.append(
            {
                "name": layer.name,
                "seconds": parts,
                "operations": list(layer.operations),
                "bytes": list(traffic(layer)),
            }
        )
    return {
        "multiply_adds": [
            {"level": level, "loads": loads, "rate": statistics.median(found)}
            for (level, loads), found in rates.items()
        ],
        "layers": layers,
        "lanes": library.lanes(torch.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of a layer's turn")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.rounds, options.seconds)
    peak = max(row["rate"] for row in found["multiply_adds"])
    heads = "".join(f"{loads} of 4 load".rjust(14) for loads in LOADS)
    print(f"{'operands from':22}{heads}   (10⁹ operations a second)")
    for level in LEVELS:
        rates = [row["rate"] for row in found["multiply_adds"] if row["level"] == level]
        print(f"{level:22}" + "".join(f"{rate / 1e9:14.1f}" for rate in rates))
    for layer in found["layers"]:
        for kind, seconds, operations, moved in zip(
            ("forward", "backward"), layer["seconds"], layer["operations"], layer["bytes"], strict=True
        ):
            rate = operations / seconds
            line = f"{layer['name']:8}{kind:10}{seconds * 1e3:8.1f} ms{rate / 1e9:8.1f} · 10⁹ a second"
            print(f"{line}, {rate / peak:.0%} of the peak, {operations / moved:.1f} operations a byte")
    print(f"\n{write_record('roofline', {'machine': machine(), **found}, options.output)}")


if __name__ == "__main__":
    main()
