"""What a routing needs at least: floating-point operations, bytes, and the time that each implies on a GPU.

``python -m benchmarks.counts`` prints them for the layers of ``paper`` and ``paper-small``.
"""

from typing import Any, NamedTuple

from benchmarks.cases import Layer

FLOPS_PER_SECOND = 50e12
"""Plain float32 that an H100 attains, a multiply-add counted as two."""

BYTES_PER_SECOND = 3e12

CASES = [
    Layer("paper", 32, 32, batch=128),
    Layer("paper-small", 8, 16, batch=128),
]
"""ConvCaps1 of both presets: 14×14 children, kernel 3, stride 2, three iterations."""


class Counts(NamedTuple):
    """Of one pass."""

    operations: int
    fewest_bytes: int
    moved_bytes: int
    """What the Triton kernels read and write, caches aside: assignments between iterations too."""

    @property
    def compute_ms(self) -> float:
        return self.operations / FLOPS_PER_SECOND * 1e3

    @property
    def memory_ms(self) -> float:
        return self.fewest_bytes / BYTES_PER_SECOND * 1e3

    @property
    def moved_ms(self) -> float:
        return self.moved_bytes / BYTES_PER_SECOND * 1e3


def counts_of(layer: Layer) -> tuple[Counts, Counts]:
    """Forward and backward.

    Operations are those of the equations, with the votes computed once an iteration forward and once backward
    (:attr:`Layer.operations`). The fewest bytes are the inputs and outputs, read or written once. Between iterations
    the log-densities, one number a child of a window and parent, pass through memory: children compete across windows.
    """
    windows = ((layer.size - layer.kernel) // layer.stride + 1) ** 2
    children = layer.batch * layer.size**2 * layer.children * 17 * 4
    parents = layer.batch * windows * layer.parents * 17 * 4
    weights = layer.kernel**2 * layer.children * layer.parents * 16 * 4
    densities = layer.vote_components // 16 * 4
    records = layer.batch * windows * layer.parents * 36 * 4
    copies = layer.batch * windows * layer.kernel**2 * layer.children * 17 * 4
    later, t = layer.iterations - 1, layer.iterations
    forward, backward = layer.operations
    fewest_forward = children + weights + parents
    fewest_backward = 2 * (children + weights) + parents
    # forward: log-densities written, read to compete, read by the next iteration
    moved_forward = fewest_forward * t + later * 3 * densities + t * records
    # backward: g(d) written; both read to compete, to fit, and in the last sweep; the copies written and gathered
    factors = layer.batch * windows * layer.parents * (64 * t - 15) * 4
    moved_backward = fewest_backward + 2 * later * children + later * 7 * densities
    moved_backward += 2 * copies + 2 * factors + 4 * t * records
    return Counts(forward, fewest_forward, moved_forward), Counts(backward, fewest_backward, moved_backward)


def as_record(layer: Layer) -> dict[str, dict[str, Any]]:
    """Both passes, for the record of a benchmark."""
    return {
        name: {**counts._asdict(), "compute_ms": counts.compute_ms, "memory_ms": counts.memory_ms}
        for name, counts in zip(("forward", "backward"), counts_of(layer), strict=True)
    }


def main() -> None:
    print(
        f"{'layer':14}{'pass':10}{'GFLOP':>8}{'ms':>8}{'fewest MB':>11}{'ms':>8}"
        f"{'moved MB':>10}{'ms':>8}{'goal, ms':>10}"
    )
    for layer in CASES:
        for name, counts in zip(("forward", "backward"), counts_of(layer), strict=True):
            goal = 3 * max(counts.compute_ms, counts.memory_ms)
            print(
                f"{layer.name:14}{name:10}{counts.operations / 1e9:8.1f}{counts.compute_ms:8.3f}"
                f"{counts.fewest_bytes / 1e6:11.1f}{counts.memory_ms:8.3f}{counts.moved_bytes / 1e6:10.0f}"
                f"{counts.moved_ms:8.3f}{goal:10.2f}"
            )


if __name__ == "__main__":
    main()
