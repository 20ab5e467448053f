"""A training on a GPU within so many seconds: ``python -m benchmarks.gpu.train RECIPE FOLDER SECONDS``.

By Python alone: the command line needs packages that a bare machine lacks; this does not, and writes CSV where
TensorBoard is missing. Prints each epoch's seconds, ends in time with what has been learned by then, and tells
validation's figures. Test images are left alone, unless ``--test end`` asks for them. On a GPU steps are replayed as
CUDA graphs.
"""

import argparse
import csv
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.measure import update_record

SPARE = 30
"""Seconds left for the end: the weights, the test, the results."""


def last_figures(folder: Path) -> dict[str, float]:
    """The newest of each figure in a run's metrics that ends in accuracy or loss."""
    found: dict[str, float] = {}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            found |= {name: float(text) for name, text in row.items() if text and name.endswith(("accuracy", "/loss"))}
    return found


def main(arguments: list[str] | None = None) -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--epochs", type=int, help="at most; default: the recipe's")
    parser.add_argument("--test", choices=("never", "end"), default="never")
    parser.add_argument("--record", type=Path, help="of benchmarks.gpu.bench; gets what was measured")
    options = parser.parse_args(arguments)
    from matcaps.routing import resolve_implementation
    from matcaps.training import Callback, run
    from matcaps.training.recipes import recipe_settings

    class Clock(Callback):
        """Seconds from the start of an epoch to the start of the next, with what stands between; ends the training."""

        def __init__(self, end: float) -> None:
            self.marks: list[float] = []
            self._end = end

        def on_train_batch_end(self, loop: Any, training: Any, *_: Any) -> None:
            loop.should_stop = time.monotonic() > self._end

        def on_train_epoch_start(self, loop: Any, training: Any) -> None:
            self.mark()

        def on_train_end(self, loop: Any, training: Any) -> None:
            self.mark()

        def mark(self) -> None:
            self.marks.append(time.monotonic())
            if len(self.marks) > 1:
                print(f"epoch {len(self.marks) - 1}: {self.marks[-1] - self.marks[-2]:.2f} s", flush=True)

    settings = recipe_settings(options.recipe)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    changes = {"accelerator": "gpu" if device == "cuda" else "cpu", "test": options.test, "watched_parts": ()}
    changes["cuda_graph"] = device == "cuda"
    settings = dataclasses.replace(settings, epochs=options.epochs or settings.epochs, **changes)
    routing = resolve_implementation(device, torch.float32)
    print(f"{options.recipe}, {settings.epochs} epochs, routing by {routing}", flush=True)
    left = options.seconds - (time.monotonic() - began) - SPARE
    clock = Clock(time.monotonic() + max(5, left))
    result = run.train(settings, options.folder, callbacks=[clock])
    seconds = [after - before for before, after in zip(clock.marks, clock.marks[1:], strict=False)]
    found = {
        "recipe": options.recipe,
        "seconds": result.seconds,
        "epochs": len(seconds),
        "first_epoch_s": seconds[0],
        "epoch_s": statistics.median(seconds[1:] or seconds),
        "last": last_figures(result.folder),
        "test": None if result.test is None else str(result.test),
    }
    print(json.dumps(found), flush=True)
    if options.record:
        update_record(options.record, train=found)


if __name__ == "__main__":
    main()
