"""Checkpoint files, which stay intact if the process is killed, and never execute code."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from matcaps._paths import named_errors
from matcaps.models.files import whole_file

CHECKPOINTS_NAME = "checkpoints"
AFTER_EPOCH = "after-epoch"
WITHIN_EPOCH = "within-epoch"


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write to a temporary file, flush it to the disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(checkpoint, content)  # not to the file: torch's error would not name a full disk
    with whole_file(path) as partial:
        partial.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values.

    Raises:
        ValueError: the file is damaged, is not a checkpoint, or contains objects that would execute code.
    """
    what = f"{path} is not a complete checkpoint of tensors and plain values"
    advice = "remove it to continue from an earlier one"
    try:
        with named_errors(path):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message would advise loading with code execution
        raise ValueError(f"{what}: it is damaged, or contains objects that need code: {advice}") from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{what}: {error}; {advice}") from error
    steps = checkpoint.get("global_step") if isinstance(checkpoint, dict) else None
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise ValueError(f"{what}: it has no number of steps, global_step: {advice}")
    return checkpoint


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most optimiser steps; None if there is none.

    Raises:
        ValueError: a checkpoint is damaged.
    """
    paths = [folder / f"{name}.ckpt" for name in (AFTER_EPOCH, WITHIN_EPOCH)]
    paths = [path for path in paths if path.is_file()]
    return max(paths, key=lambda path: read_checkpoint(path)["global_step"], default=None)
