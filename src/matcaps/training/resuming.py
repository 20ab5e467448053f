"""Resume a run: check that its checkpoint fits, and describe the effect of more epochs on its schedules."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from matcaps.training.checkpoint_files import CHECKPOINTS_NAME, newest_checkpoint, read_checkpoint
from matcaps.training.module import Training
from matcaps.training.record import RESULTS_NAME, SETTINGS_NAME, read_json, read_run_settings, write_settings
from matcaps.training.settings import TrainSettings, changes_of_a_run

_PARTS = {
    "state_dict": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": Mapping,
    "matcaps": Mapping,
}
"""The parts of a checkpoint, besides its number of steps, and their types."""


@dataclass(frozen=True)
class Extension:
    """A run that continues to another number of epochs than it was set up for.

    Attributes:
        before: epochs that it was set up for.
        after: epochs that it has now.
        step: its optimiser steps so far.
    """

    before: int
    after: int
    step: int

    def describe(self, training: Training) -> str:
        """Describe the effect on learning rate and margin."""
        settings, length = training.settings, training.steps_per_epoch
        stretched = []
        optimizer = settings.optimizer
        if optimizer.schedule in ("cosine", "linear"):
            old, new = (optimizer.factor(self.step, length * epochs) for epochs in (self.before, self.after))
            stretched.append(f"the learning rate ({optimizer.schedule}) is {new:.0%} of its peak, not {old:.0%}")
        loss = settings.loss
        if loss.name == "spread" and loss.margin_schedule == "authors" and loss.margin_scale is None:
            old, new = (training.margin(self.step, length * epochs) for epochs in (self.before, self.after))
            stretched.append(f"the margin (authors) is {new:.2f}, not {old:.2f}")
        start = f"the run continues to {self.after} epochs instead of {self.before}: "
        if not stretched:
            return start + "no schedule depends on their number, so the result is as if it had been set up so"
        return start + (
            f"from here on its schedules are those of a run of {self.after}: {' and '.join(stretched)}; it is not the "
            f"run that {self.after} epochs from the start would have been"
        )


def prepare_to_resume(folder: Path, training: Training, *, speaks: bool) -> tuple[Path | None, Extension | None]:
    """Find the checkpoint from which a run continues, check that it fits, and describe a change of epochs.

    Args:
        folder: the run's folder.
        training: made from its settings.
        speaks: whether this process warns and writes.

    Returns:
        The checkpoint, None if the run has none yet and starts from the beginning; the extension, None if there is
        none.

    Raises:
        ValueError: the checkpoint is damaged, of another network or of other settings, or the run has done more epochs.
    """
    settings, extension = training.settings, None
    path = newest_checkpoint(folder / CHECKPOINTS_NAME)
    before = read_run_settings(folder).epochs
    if path is not None:
        checkpoint = read_checkpoint(path)
        _check_parts(path, checkpoint)
        planned = checkpoint["matcaps"].get("settings")
        if planned is not None:
            _check_settings(folder, planned, settings)
            before = int(planned["epochs"])
        elif (folder / RESULTS_NAME).is_file():  # an earlier version's: how long the finished run was
            before = int(read_json(folder / RESULTS_NAME).get("epochs", before))
        _check_processes(path, checkpoint, settings)
        _check_fit(path, checkpoint, training)
        step = checkpoint["global_step"]
        if step > training.total_steps:
            done = step / training.steps_per_epoch
            raise ValueError(
                f"epochs must be at least the {done:.4g} that the run in {folder} has done; got {settings.epochs}"
            )
        if before != settings.epochs:
            extension = Extension(before, settings.epochs, step)
            if speaks:
                warnings.warn(extension.describe(training), stacklevel=3)
    if speaks and read_run_settings(folder).epochs != settings.epochs:
        own = read_run_settings(folder).to_dict()
        write_settings(folder / SETTINGS_NAME, own | {"epochs": settings.epochs})
    return path, extension


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Convert errors within the block to one that names the checkpoint as the cause."""
    try:
        yield
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be resumed from ({reason}): {_advice(path)}") from error


def _advice(path: Path) -> str:
    run = path.parent.parent
    return (
        "remove it to continue from another checkpoint or, without one, from the start; or start a new training: "
        f"matcaps train --config {run / SETTINGS_NAME} --output NEW"
    )


def _check_parts(path: Path, checkpoint: dict[str, Any]) -> None:
    missing = [name for name, kind in _PARTS.items() if not isinstance(checkpoint.get(name), kind)]
    own = checkpoint["matcaps"] if "matcaps" not in missing else {}
    of_ours = {"random_state": Tensor, "seconds": int | float}
    missing += [f"matcaps.{name}" for name, kind in of_ours.items() if own and not isinstance(own.get(name), kind)]
    of_processes = own.get("processes", [{}])
    if not isinstance(of_processes, list) or not all(isinstance(one, Mapping) for one in of_processes):
        missing.append("matcaps.processes")
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}, which every checkpoint of this version has: {_advice(path)}"
        )


def _check_settings(folder: Path, planned: dict[str, Any], settings: TrainSettings) -> None:
    changed = [line for line in changes_of_a_run(planned, settings.to_dict()) if not line.startswith("epochs: ")]
    if changed:
        raise ValueError(
            f"{folder / SETTINGS_NAME} has other settings than the run was trained with ({'; '.join(changed)}): put "
            "them back, or start a new run with them: matcaps train --config"
        )


def _check_processes(path: Path, checkpoint: dict[str, Any], settings: TrainSettings) -> None:
    """Refuse a checkpoint of another number of processes, each of which has its own random numbers and counts."""
    count = settings.devices * settings.num_nodes
    written = len(checkpoint["matcaps"].get("processes", [{}] * count))  # an earlier version's says nothing of it
    if written != count:
        raise ValueError(
            f"{path} was written by {written} process{'es' if written > 1 else ''}, and a run continues with as many "
            f"as it began with; got {count}: --devices times --num_nodes must be {written}"
        )


def _check_fit(path: Path, checkpoint: dict[str, Any], training: Training) -> None:
    """Refuse weights and optimiser states of another network, and weights that are not finite."""
    averaged = ("current_model_state", "averaging_state")
    if training.settings.optimizer.ema_decay is not None and not all(name in checkpoint for name in averaged):
        raise ValueError(f"{path} lacks {' or '.join(averaged)}, the averaged weights: {_advice(path)}")
    expected = training.state_dict()
    for part in ("state_dict", "current_model_state"):
        weights = checkpoint.get(part, expected)
        problem = _misfit(weights, expected)
        if problem:
            raise ValueError(
                f"{path} does not fit the network of the run's {SETTINGS_NAME}: {problem}: {_advice(path)}"
            )
        broken = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
        if broken:
            raise ValueError(
                f"{path} has numbers that are not finite, first in {broken[0]}: {_advice(path)}, with a lower "
                "learning rate"
            )
    optimizer, _ = training.make_optimizer()
    try:
        optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        for parameter, state in optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                if state[name].shape != parameter.shape:
                    raise ValueError(f"{name} has the shape {list(state[name].shape)}, not {list(parameter.shape)}")
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} has an optimiser's state that does not fit ({error}): {_advice(path)}") from error


def _misfit(weights: Any, expected: Mapping[str, Tensor]) -> str:
    """Describe why some weights do not fit the network; empty if they fit."""
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        return "it has no tensors by name"
    for name, value in expected.items():
        if name not in weights:
            return f"{name} is missing"
        if weights[name].shape != value.shape:
            return f"{name} has the shape {list(weights[name].shape)}, but the network has {list(value.shape)}"
    extra = next((name for name in weights if name not in expected), None)
    return "" if extra is None else f"it has {extra}, which the network does not have"
