"""Seeing that a training stands still, and saying so once."""

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
"""A norm below which the gradient of all parameters together has vanished; good trainings here end at 1e-3 or more."""
LOSS_FLOOR = 1e-3
"""A mean loss below which there may be nothing left to learn: a spread loss whose margin is met has no gradient."""
EPOCHS, STEPS = 3, 60
"""Whole epochs in a row, of so many optimiser steps together, in which a class is never predicted, or a layer stays as
it is, before that is called stuck: at the beginning both are usual."""
_VANISHED_STEPS = 10
"""Optimiser steps, in whole epochs in a row, for which a gradient must have vanished."""
_VANISHED_SHARE = 0.9
"""Share of an epoch's steps whose gradient has vanished that makes an epoch without one."""


class StuckWatch(Callback):
    """Warn once of each: a gradient that has vanished, a class that is never predicted, a layer that says nothing.

    Looks at the training images as the training sees them, and for the layers at a few images after each epoch.

    Args:
        images: ``[B, C, H, W]``, to look at the layers on.
        classes: the classes' names.
        epochs: whole epochs in a row that a class or a layer has.
        steps: optimiser steps that these must have together.

    Attributes:
        said: the warnings so far, by what they are about, over all interruptions.
    """

    def __init__(self, images: Tensor, classes: tuple[str, ...], epochs: int = EPOCHS, steps: int = STEPS):
        self.said: dict[str, str] = {}
        self._images = images
        self._classes = classes
        self._epochs = epochs
        self._steps = steps
        self._since: dict[str, int] = {}  # epochs in a row, by what is wrong
        self._norms: list[Tensor] = []
        self._predicted = torch.zeros(0)
        self._shown = torch.zeros(0)

    def state_dict(self) -> dict[str, Any]:
        return {"said": self.said, "since": self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.said, self._since = dict(state_dict["said"]), dict(state_dict["since"])

    def on_train_epoch_start(self, loop: Loop, training: Training) -> None:
        self._norms = []
        self._predicted = torch.zeros(len(self._classes), dtype=torch.int64, device=training.device)
        self._shown = torch.zeros_like(self._predicted)

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
        predicted, shown = self._predicted, self._shown
        if loop.world_size > 1:
            predicted, shown = loop.fabric.all_reduce(torch.stack([predicted, shown]), reduce_op="sum")  # type: ignore[misc]
        if len(self._norms) < loop.num_training_batches:
            return  # the run went on within this epoch: the rest of it was seen by another process
        self._look_at_gradient(loop, training)
        self._look_at_classes(loop, predicted, shown)
        self._look_at_layers(loop, training)

    def _look_at_gradient(self, loop: Loop, training: Training) -> None:
        norms, epoch = torch.stack(self._norms), loop.current_epoch + 1
        loss, accuracy = (float(loop.metrics[f"train/{name}"]) for name in ("loss", "accuracy"))
        vanished = float((norms < GRADIENT_FLOOR).float().mean()) >= _VANISHED_SHARE
        wrong = vanished and loss > LOSS_FLOOR and accuracy < 1
        if self._lasts(loop, "gradient", wrong, epochs=1, steps=_VANISHED_STEPS):
            self._say(
                loop,
                "gradient",
                f"the gradient has vanished (norm {float(norms.median()):.0e} in epoch {epoch}), though the loss is "
                f"{loss:.3g} and {accuracy:.0%} of the training images are right: nothing is learnt any more. Try "
                "another --seed, a lower --optimizer.learning_rate, or --loss.name cross-entropy",
            )

    def _look_at_classes(self, loop: Loop, predicted: Tensor, shown: Tensor) -> None:
        missing = ((predicted == 0) & (shown > 0)).tolist()
        lasting = [
            name
            for name, one in zip(self._classes, missing, strict=True)
            if self._lasts(loop, f"class {name}", one, self._epochs, self._steps)
        ]
        if lasting:
            names = ", ".join(lasting[:5]) + (f" and {len(lasting) - 5} more" if len(lasting) > 5 else "")
            self._say(
                loop,
                "classes",
                f"no training image has been taken for {names} in {self._epochs} whole epochs: see whether the classes "
                "are uneven or mislabelled; else try another --seed, or a lower --optimizer.learning_rate",
            )

    @torch.no_grad()
    def _look_at_layers(self, loop: Loop, training: Training) -> None:
        if not isinstance(training.network, EMCapsNet):
            return
        said = []
        with evaluation_mode(training.network):
            outputs = training.network.layer_outputs(self._images.to(training.device))
        for name, capsules in outputs.items():
            low, high = float(capsules.activations.min()), float(capsules.activations.max())
            for state, wrong in (("dead", high < DEAD_BELOW), ("saturated", low > SATURATED_ABOVE)):
                if self._lasts(loop, f"{state} {name}", wrong, self._epochs, self._steps):
                    said.append(f"all capsules of {name} are {state}, with activations from {low:.2g} to {high:.2g}")
        if said:
            self._say(
                loop,
                "layers",
                f"{'; '.join(said)}, on all images looked at, for {self._epochs} epochs: they tell no images apart. "
                "Try --model.calibration full, another --seed, or a lower --optimizer.learning_rate",
            )

    def _lasts(self, loop: Loop, name: str, wrong: bool, epochs: int, steps: int) -> bool:
        """Whether something has been wrong for so many epochs in a row, and so many steps."""
        self._since[name] = self._since.get(name, 0) + 1 if wrong else 0
        since = self._since[name]
        return since >= epochs and since * int(loop.num_training_batches) >= steps

    def _say(self, loop: Loop, what: str, sentence: str) -> None:
        if what in self.said:
            return
        self.said[what] = sentence
        if loop.is_global_zero:
            warnings.warn(f"the training seems stuck: {sentence}", stacklevel=2)
