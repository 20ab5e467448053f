"""Time training steps of a network on an idle machine, and beside a process that keeps one core busy.

    python -m benchmarks.cpu.busy [--network paper-small] [--batch 16 64] [--seconds 3] [--rounds 3]

One thread and all cores, as torch starts its threads and as the command `matcaps` does (threads that wait soon sleep).
Each figure has a process of its own, for the OpenMP runtime reads its settings once; they take turns. The machine
should be idle.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch

import matcaps
from matcaps.cli.waiting import SETTINGS
from matcaps.losses import spread_loss

SPIN = "while True: pass"


def steps(network: str, batch: int, threads: int, seconds: float) -> list[float]:
    """Train on random images for so many seconds; the seconds of each step."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = matcaps.create_model(network)
    channels = model.config.in_channels
    images = torch.rand(batch, channels, *(2 * [28 if channels == 1 else 32]))
    labels = torch.randint(0, model.config.num_classes, (batch,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    taken: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(taken) < 5:
        start = time.perf_counter()
        optimizer.zero_grad()
        spread_loss(model(images).activations, labels, 0.9).backward()
        optimizer.step()
        taken.append(time.perf_counter() - start)
    return taken[2:]


def timed(options: argparse.Namespace, batch: int, threads: int, waiting: dict[str, str], *, busy: bool) -> list[float]:
    """The steps of one process, beside one that counts for nothing where `busy`."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | waiting
    command = [sys.executable, "-m", "benchmarks.cpu.busy", "--one", str(threads), "--network", options.network]
    command += ["--batch", str(batch), "--seconds", str(options.seconds)]
    other = subprocess.Popen([sys.executable, "-c", SPIN]) if busy else None
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        if other:
            other.kill()
            other.wait()
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="paper-small")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(*steps(options.network, options.batch[0], options.one, options.seconds))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cases = [
        (batch, threads, waiting, busy)
        for batch in options.batch
        for threads, waiting in ((1, "torch"), (cores, "torch"), (cores, "matcaps"))
        for busy in (False, True)
    ]
    found: dict[tuple[int, int, str, bool], list[float]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            batch, threads, waiting, busy = case
            found[case] += timed(options, batch, threads, SETTINGS if waiting == "matcaps" else {}, busy=busy)
    print(f"{options.network}, milliseconds a training step: mean, and quartiles; {cores} cores")
    print("| batch | threads | waiting as | idle | beside a busy process |")
    print("| ---: | ---: | --- | ---: | ---: |")
    for batch, threads, waiting, busy in cases:
        if not busy:
            idle, beside = (words(found[batch, threads, waiting, at]) for at in (False, True))
            print(f"| {batch} | {threads} | {waiting} | {idle} | {beside} |")


def words(taken: list[float]) -> str:
    """Mean and quartiles; a mean, because what a busy machine costs lies in the slow steps."""
    low, _, high = statistics.quantiles([seconds * 1e3 for seconds in taken], n=4)
    return f"{statistics.fmean(taken) * 1e3:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
