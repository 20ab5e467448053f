"""A training on a GPU within so many seconds, by Python alone: ``gpu_train.py RECIPE FOLDER SECONDS``.

The command line needs packages that a bare machine lacks; this does not, and writes CSV where TensorBoard is
missing. The training stops in time and is tested with what it has learned by then.
"""

import dataclasses
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))


def main() -> None:
    recipe, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    began = time.monotonic()
    from matcaps.routing import resolve_implementation
    from matcaps.training import run
    from matcaps.training.recipes import recipe_settings

    settings = recipe_settings(recipe)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    epochs = int(os.environ.get("MATCAPS_EPOCHS", settings.epochs if recipe == "quickstart" else 30))
    settings = dataclasses.replace(settings, accelerator="gpu" if device == "cuda" else "cpu", epochs=epochs)
    print(f"{recipe}, {epochs} epochs, routing by {resolve_implementation(device, torch.float32)}", flush=True)
    from lightning.pytorch.callbacks import Timer
    from lightning.pytorch.loggers import CSVLogger

    if importlib.util.find_spec("tensorboard") is None:
        run.TensorBoardLogger = CSVLogger  # type: ignore[assignment, misc]

    left = seconds - (time.monotonic() - began) - 30
    stop = Timer(duration={"seconds": max(5, int(left))}, interval="step", verbose=True)
    result = run.train(settings, folder, callbacks=[stop])
    print(json.dumps({"test": str(result.test), "seconds": result.seconds, "folder": str(result.folder)}))


if __name__ == "__main__":
    main()
