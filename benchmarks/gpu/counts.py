"""What a routing needs on a GPU, counted: operations, bytes, instructions of each kernel, and the times they imply.

``python -m benchmarks.gpu.counts`` prints them for ConvCaps1 of ``paper`` and ``paper-small``: of each launch as the
kernels are designed, beside what was measured, and of the equations. ``--record`` takes measured times from a record of
``gpu/bench.py`` instead of those kept here.

What the counts before these missed, which were off by two (forward) and four (backward):

- Instructions are not multiply-adds. A vote needs 64 multiply-adds and some 50 operations more; the first kernels took
  390 instructions a vote where the equations have 240, for addresses, loads from shared memory and copies of registers.
- A scheduler does not issue at every cycle: 0.61 of it was measured at 3.7 warps a scheduler, as many as the registers
  of a thread leave room for. One warp of ours issues every four cycles or so.
- Blocks come in waves. 576 blocks where 264 run at a time are two waves and a fifth, and the last takes as long as if
  it were alone; 288 blocks are one wave and a tenth.
- A second visit of the children, for a mean far from its centre, was counted as rare. One pair among the 256 of a
  block was enough, so most blocks made it; the bound was widened.
- Class capsules wait: 128 blocks, one a processor, whose threads stop for one another at every tile and every sum over
  splits. Their count is a tenth of what they take.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script it finds its own folder only

from benchmarks.gpu.layers import GOALS_MS, LAYERS, Launched, RoutedLayer, launches_of
from matcaps.routing.cuda_launch import Cut

FLOPS_PER_SECOND = 50e12
"""Plain float32 that an H100 attains, a multiply-add counted as two."""

BYTES_PER_SECOND = 3e12
PROCESSORS, SCHEDULERS, CLOCK = 132, 4, 1.97e9
"""Of an H100 or H200 at work."""

ISSUE = 0.6
"""Share of its cycles at which a scheduler issues an instruction, at most: measured (0.58 to 0.61)."""

ISSUE_OF_WARP, ISSUE_OF_SWEEP = 0.235, 0.3
"""Of one warp: its stalls, but for waiting its turn, were 4.2 cycles an instruction. The sweep's are fewer, as it has
four children at hand, whose instructions do not wait for one another."""

INSTRUCTIONS = {
    "moments, first": 131, "moments, later": 143, "densities": 115,
    "moments of gradients": 144, "data's gradients": 115, "sweep": 655, "staging": 30,
}  # fmt: skip
"""A vote of a thread, in the inner loops for sm_90 (``benchmarks/gpu/kernels.py`` counts them); staging: 15 to 34."""

MEASURED = {
    "paper ConvCaps1": {
        "iterate_first 0": 0.765, "compete 0": 0.097, "iterate_later 1": 0.768, "compete 1": 0.097,
        "iterate_later 2": 0.416, "iterate_back 2": 0.375, "compete_back 1": 0.099, "iterate_back 1": 0.803,
        "compete_back 0": 0.098, "iterate_back 0": 0.480, "sweep": 1.41, "gather": 0.043,
    },
    "paper-small ConvCaps1": {
        "iterate_first 0": 0.164, "compete 0": 0.016, "iterate_later 1": 0.122, "compete 1": 0.016,
        "iterate_later 2": 0.129, "iterate_back 2": 0.092, "compete_back 1": 0.018, "iterate_back 1": 0.160,
        "compete_back 0": 0.019, "iterate_back 0": 0.108, "sweep": 0.230, "gather": 0.014,
    },
}  # fmt: skip
"""Milliseconds on one H200, torch 2.11 with CUDA 13.0, commit 9525a69: medians of 12, events around each launch."""


def fewest_bytes(layer: RoutedLayer) -> tuple[int, int]:
    """Inputs and outputs, read or written once, of a forward and a backward pass."""
    windows = ((layer.size - (layer.kernel or layer.size)) // layer.stride + 1) ** 2
    children = layer.batch * layer.size**2 * layer.types * 17 * 4
    parents = layer.batch * windows * layer.parents * 17 * 4
    weights = (layer.kernel**2 or 1) * layer.types * layer.parents * 16 * 4
    return children + weights + parents, 2 * (children + weights) + parents


def limits_of(layer: RoutedLayer) -> dict[str, dict[str, float]]:
    """By pass: the equations' operations, the fewest bytes, and the milliseconds that the slower of them takes.

    Operations are :attr:`benchmarks.cases.Layer.operations`: votes once an iteration forward, and once backward.
    """
    found = {}
    for name, operations, num_bytes in zip(
        ("forward", "backward"), layer.as_layer.operations, fewest_bytes(layer), strict=True
    ):
        seconds = max(operations / FLOPS_PER_SECOND, num_bytes / BYTES_PER_SECOND)
        found[name] = {"operations": operations, "fewest_bytes": num_bytes, "limit_ms": seconds * 1e3}
    return found


class Count(NamedTuple):
    """Of one launch."""

    launch: str
    is_forward: bool
    instructions: int
    """Of a thread for each vote that it makes."""
    warp_votes: float
    """Votes that all the kernel's warps make in a visit of the children, 32 at a time."""
    num_bytes: int
    """Read and written, caches aside."""
    blocks: int
    resident: int
    """Blocks that a processor holds, as designed."""
    warps: int
    """Of a block."""

    @property
    def waves(self) -> float:
        return self.blocks / (PROCESSORS * self.resident)

    @property
    def compute_ms(self) -> float:
        """Full waves, then what is left, by fewer warps."""
        of_block = self.instructions * self.warp_votes / self.blocks / SCHEDULERS
        full, left = divmod(self.blocks, PROCESSORS * self.resident)
        cycles = full * self.resident * of_block / self.issue(self.resident)
        if left:
            fullest = -(-left // PROCESSORS)
            cycles += fullest * of_block / self.issue(fullest)
        return cycles / CLOCK * 1e3

    def issue(self, blocks: int) -> float:
        """Instructions a cycle of a scheduler, with so many blocks on its processor."""
        of_warp = ISSUE_OF_SWEEP if self.launch == "sweep" else ISSUE_OF_WARP
        return min(ISSUE, of_warp * blocks * self.warps / SCHEDULERS)

    @property
    def memory_ms(self) -> float:
        return self.num_bytes / BYTES_PER_SECOND * 1e3

    @property
    def expected_ms(self) -> float:
        return max(self.compute_ms, self.memory_ms)


def instructions_of(launched: Launched, iterations: int) -> int:
    """Instructions a vote of what a launch visits."""
    t, last, of = launched.iteration, iterations - 1, INSTRUCTIONS

    def forward(t: int) -> int:
        # a sixteenth of the children are visited once more, to find the first centre
        moments = of["moments, later"] if t else of["moments, first"] * 17 // 16
        return moments + of["staging"] + (of["densities"] + of["staging"]) * (t < last)

    def backward(t: int) -> int:
        of_gradients = (of["moments of gradients"] + of["staging"]) * (t < last)
        return of_gradients + (of["data's gradients"] + of["staging"]) * (t > 0)

    match launched.kernel:
        case "iterate_first" | "iterate_later":
            return forward(t)
        case "iterate_back":
            return backward(t)
        case "route_windows":
            return sum(map(forward, range(iterations)))
        case "route_windows_back":
            return sum(map(backward, range(iterations)))
        case "sweep":
            return of["sweep"]
    return 0  # compete, compete_back and gather make no votes


def bytes_of(launched: Launched, layer: RoutedLayer) -> int:
    """Bytes that a launch reads and writes but for those that all blocks share: logits and their gradients, one number
    a vote; factors; and the children's copies."""
    plan = layer.plan()
    shape, t, last = plan.shape, launched.iteration, layer.iterations - 1
    logits = 4 * plan.windows * shape.children * shape.parents
    copies = 68 * plan.windows * shape.children * -(-shape.parents // plan.cut.lanes)
    factors = 16 * shape.factors * plan.pairs
    match launched.kernel:
        case "iterate_first" | "iterate_later":
            return logits * ((t > 0) + (t < last))
        case "iterate_back":
            return logits * (2 * (t < last) + (t > 0)) + factors // layer.iterations
        case "compete":
            return logits
        case "compete_back":
            return 2 * logits
        case "route_windows":
            return 3 * last * logits
        case "route_windows_back":
            return 5 * last * logits + factors
        case "sweep":
            return 2 * last * logits + factors + copies
    return copies + 68 * plan.all_children  # gather


def counts_of(layer: RoutedLayer) -> list[Count]:
    """Of every launch of both passes, in order."""
    plan = layer.plan()
    cut: Cut = plan.cut
    blocks_of_parents = -(-plan.shape.parents // cut.lanes)
    lanes = cut.lanes * blocks_of_parents  # those without a parent make votes, too
    warp_votes = plan.windows * plan.shape.children * lanes / 32
    counts = []
    for one in launches_of(layer):
        blocks = one.grid[0] * one.grid[1] * one.grid[2]
        resident = cut.sweep_resident if one.kernel == "sweep" else cut.resident
        if one.kernel in ("compete", "compete_back", "gather"):
            resident = 2048 // one.threads
        counts.append(
            Count(
                one.name, one.is_forward, instructions_of(one, layer.iterations), warp_votes, bytes_of(one, layer),
                blocks, resident, -(-one.threads // 32),
            )
        )  # fmt: skip
    return counts


def expected_of(layer: RoutedLayer) -> dict[str, float]:
    """Milliseconds by launch."""
    return {count.launch: count.expected_ms for count in counts_of(layer)}


def measured_in(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Milliseconds by layer and launch, from a record of ``gpu/bench.py``."""
    found: dict[str, dict[str, float]] = {}
    for row in record["kernels"]:
        found.setdefault(row["layer"], {})[row["launch"]] = row["median"]
    return found


def show(layer: RoutedLayer, measured: dict[str, float]) -> None:
    """Print a layer's table."""
    print(
        f"\n{layer.name}, batch {layer.batch}\n{'launch':20}{'instructions':>13}{'MB':>7}{'blocks':>8}{'waves':>7}"
        f"{'compute ms':>12}{'memory ms':>11}{'expected':>10}{'measured':>10}{'ratio':>7}"
    )
    sums = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for count in counts_of(layer):
        time = measured.get(count.launch)
        beside = f"{time:10.3f}{time / count.expected_ms:7.2f}" if time is not None else ""
        print(
            f"{count.launch:20}{count.instructions:13}{count.num_bytes / 1e6:7.0f}{count.blocks:8}{count.waves:7.2f}"
            f"{count.compute_ms:12.3f}{count.memory_ms:11.3f}{count.expected_ms:10.3f}{beside}"
        )
        sums[count.is_forward][0] += count.expected_ms
        sums[count.is_forward][1] += time or 0.0
    for (expected, time), (name, limits) in zip(sums.values(), limits_of(layer).items(), strict=True):
        goals = GOALS_MS.get(layer.name)
        goal = f", goal {goals[name == 'backward']:.2f}" if goals else ""
        beside = f", measured {time:.3f}" if time else ""
        print(
            f"{name}: {limits['operations'] / 1e9:.1f} GFLOP and {limits['fewest_bytes'] / 1e6:.0f} MB need "
            f"{limits['limit_ms']:.3f} ms; expected {expected:.3f}{beside}{goal}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", type=Path, help="of benchmarks.gpu.bench, whose times stand beside the counts")
    parser.add_argument("--layer", choices=LAYERS, action="append", help="default: ConvCaps1 of both presets")
    options = parser.parse_args()
    measured = measured_in(json.loads(options.record.read_text())) if options.record else MEASURED
    for name in options.layer or MEASURED:
        show(LAYERS[name], measured.get(name, {}))


if __name__ == "__main__":
    main()
