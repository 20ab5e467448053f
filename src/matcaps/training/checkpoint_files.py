"""Checkpoints that survive a kill at any moment and never execute code."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from matcaps.models.files import whole_file

CHECKPOINTS_NAME = "checkpoints"
AFTER_EPOCH = "after-epoch"
WITHIN_EPOCH = "within-epoch"


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write to a file beside, flush it to the disk, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(checkpoint, content)  # into a file it would say of a full disk only that writing failed
    with whole_file(path) as partial:
        partial.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values.

    Raises:
        ValueError: the file is damaged, is no checkpoint, or holds objects that would need code to be run.
    """
    what = f"{path} is not a whole checkpoint of tensors and plain values"
    mend = "remove it to go on from an earlier one"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose own words would have it read with code
        raise ValueError(f"{what}: it is damaged, or holds objects that only code could make: {mend}") from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{what}: {error}; {mend}") from error
    steps = checkpoint.get("global_step") if isinstance(checkpoint, dict) else None
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise ValueError(f"{what}: it has no number of steps, global_step: {mend}")
    return checkpoint


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most optimiser steps; None if there is none.

    Raises:
        ValueError: a checkpoint is damaged.
    """
    found = [folder / f"{name}.ckpt" for name in (AFTER_EPOCH, WITHIN_EPOCH)]
    found = [path for path in found if path.is_file()]
    return max(found, key=lambda path: read_checkpoint(path)["global_step"], default=None)
