"""Detect that a training is stuck, and warn once."""

import warnings
from typing import Any

import torch
from torch import Tensor

from matcaps.data.loader import Batch
from matcaps.inspect.health import DEAD_BELOW, SATURATED_ABOVE
from matcaps.models import EMCapsNet
from matcaps.models.modes import evaluation_mode
from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training

GRADIENT_FLOOR = 1e-6
"""A gradient norm, over all parameters, below which it has vanished; good trainings here end at 1e-3 or more."""
LOSS_FLOOR = 1e-3
"""A mean loss below which there may be nothing left to learn: a spread loss whose margin is met has no gradient."""
EPOCHS, STEPS = 3, 60
"""Whole consecutive epochs, with at least this many optimiser steps, in which a class is never predicted, or a layer is
dead or saturated, before the training counts as stuck: at the beginning both are usual."""
_VANISHED_STEPS = 10
"""Optimiser steps, in whole consecutive epochs, for which a gradient must have vanished."""
_VANISHED_SHARE = 0.9
"""An epoch counts as without gradient if this share of its steps has a vanished gradient."""


class StuckWatch(Callback):
    """Warn once of each: a vanished gradient, a class that is never predicted, a dead or saturated layer.

    Gradients and classes are observed in training; layers are checked with a few images after each epoch.

    Args:
        images: ``[B, C, H, W]``, to check the layers with.
        classes: the classes' names.
        epochs: whole consecutive epochs before a warning about a class or layer.
        steps: optimiser steps that these epochs must have together.

    Attributes:
        warnings: the warnings so far, by topic, over all interruptions.
    """

    def __init__(self, images: Tensor, classes: tuple[str, ...], epochs: int = EPOCHS, steps: int = STEPS):
        self.warnings: dict[str, str] = {}
        self._images = images
        self._classes = classes
        self._epochs = epochs
        self._steps = steps
        self._since: dict[str, int] = {}  # consecutive epochs, by problem
        self._norms: list[Tensor] = []
        self._predicted = torch.zeros(0)
        self._shown = torch.zeros(0)
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"said": self.warnings, "since": self._since}
        if self._norms:  # within an epoch
            norms = torch.stack(self._norms)
            state["epoch"] = {"norms": norms, "predicted": self._predicted, "shown": self._shown}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.warnings, self._since = dict(state_dict["said"]), dict(state_dict["since"])
        self._loaded = state_dict.get("epoch")  # none between epochs, and in an earlier version's checkpoint

    def on_train_epoch_start(self, loop: Loop, training: Training) -> None:
        self._norms = []
        self._predicted = torch.zeros(len(self._classes), dtype=torch.int64, device=training.device)
        self._shown = torch.zeros_like(self._predicted)
        loaded, self._loaded = self._loaded, None
        if loaded is not None and loop.global_step % loop.num_training_batches:
            self._norms = [*loaded["norms"].to(training.device)]
            self._predicted, self._shown = (loaded[name].to(training.device) for name in ("predicted", "shown"))

    def on_train_batch_end(
        self,
        loop: Loop,
        training: Training,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._norms.append(training.gradient_norm)
        for counts, labels in ((self._predicted, outputs["predicted"]), (self._shown, batch.labels)):
            counts.index_add_(0, labels, torch.ones_like(labels))  # bincount would wait for a GPU

    def on_train_epoch_end(self, loop: Loop, training: Training) -> None:
        norms, self._norms = self._norms, []
        predicted, shown = self._predicted, self._shown
        if loop.world_size > 1:
            predicted, shown = loop.fabric.all_reduce(torch.stack([predicted, shown]), reduce_op="sum")  # type: ignore[misc]
        if len(norms) < loop.num_training_batches:
            return  # an earlier version's run was resumed within this epoch: nobody knows the rest
        self._check_gradient(loop, torch.stack(norms))
        self._check_classes(loop, predicted, shown)
        self._check_layers(loop, training)

    def _check_gradient(self, loop: Loop, norms: Tensor) -> None:
        epoch = loop.current_epoch + 1
        loss, accuracy = (float(loop.metrics[f"train/{name}"]) for name in ("loss", "accuracy"))
        vanished = float((norms < GRADIENT_FLOOR).float().mean()) >= _VANISHED_SHARE
        wrong = vanished and loss > LOSS_FLOOR and accuracy < 1
        if self._lasts(loop, "gradient", wrong, epochs=1, steps=_VANISHED_STEPS):
            self._warn(
                loop,
                "gradient",
                f"the gradient has vanished (norm {float(norms.median()):.0e} in epoch {epoch}), though the loss is "
                f"{loss:.3g} and {accuracy:.0%} of the training images are right: the network no longer learns. Try "
                "another --seed, a lower --optimizer.learning_rate, or --loss.name cross-entropy",
            )

    def _check_classes(self, loop: Loop, predicted: Tensor, shown: Tensor) -> None:
        missing = ((predicted == 0) & (shown > 0)).tolist()
        lasting = [
            name
            for name, one in zip(self._classes, missing, strict=True)
            if self._lasts(loop, f"class {name}", one, self._epochs, self._steps)
        ]
        if lasting:
            names = ", ".join(lasting[:5]) + (f" and {len(lasting) - 5} more" if len(lasting) > 5 else "")
            self._warn(
                loop,
                "classes",
                f"no training image was predicted as {names} in {self._epochs} whole epochs: check whether the classes "
                "are uneven or mislabelled; otherwise try another --seed, or a lower --optimizer.learning_rate",
            )

    @torch.no_grad()
    def _check_layers(self, loop: Loop, training: Training) -> None:
        if not isinstance(training.network, EMCapsNet):
            return
        problems = []
        with evaluation_mode(training.network):
            outputs = training.network.layer_outputs(self._images.to(training.device))
        for name, capsules in outputs.items():
            low, high = float(capsules.activations.min()), float(capsules.activations.max())
            for state, wrong in (("dead", high < DEAD_BELOW), ("saturated", low > SATURATED_ABOVE)):
                if self._lasts(loop, f"{state} {name}", wrong, self._epochs, self._steps):
                    problems.append(
                        f"all capsules of {name} are {state}, with activations from {low:.2g} to {high:.2g}"
                    )
        if problems:
            self._warn(
                loop,
                "layers",
                f"{'; '.join(problems)}, on all images measured, for {self._epochs} epochs: they do not distinguish "
                "images. Try --model.calibration full, another --seed, or a lower --optimizer.learning_rate",
            )

    def _lasts(self, loop: Loop, name: str, wrong: bool, epochs: int, steps: int) -> bool:
        """Whether a problem has lasted for this many consecutive epochs and steps."""
        self._since[name] = self._since.get(name, 0) + 1 if wrong else 0
        since = self._since[name]
        return since >= epochs and since * int(loop.num_training_batches) >= steps

    def _warn(self, loop: Loop, what: str, sentence: str) -> None:
        if what in self.warnings:
            return
        self.warnings[what] = sentence
        if loop.is_global_zero:
            warnings.warn(f"the training seems stuck: {sentence}", stacklevel=2)
