"""A network and data so small that a whole training takes a second, and ways to stop it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from matcaps.data import DataSettings, SplitSettings
from matcaps.training import LossSettings, ModelSettings, OptimizerSettings, TrainSettings
from matcaps.training.loop import Callback
from matcaps.training.record import read_metrics, write_settings

TINY = ModelSettings(
    "quickstart", stem_channels=4, stem_stride=4, primary_capsules=2, conv_capsules1=2, conv_capsules2=2
)
TINY_CNN = ModelSettings("baseline-cnn", channels1=2, channels2=2, hidden_units=8)

STEPS = 5
"""Optimiser steps in an epoch of :func:`tiny_settings`."""

AT_EVERY_STEP = 1e-6
"""Minutes between checkpoints, so that there is one after every step."""


def tiny_settings(**changes: Any) -> TrainSettings:
    """Three epochs of five steps of eight images; ``loss=``, ``optimizer=`` and others replace what is here."""
    base = TrainSettings(
        recipe="quickstart",
        model=TINY,
        data=DataSettings(
            max_train_images=STEPS * 8,
            max_test_images=20,
            batch_size=8,
            split=SplitSettings(validation_fraction=0.1),
        ),
        loss=LossSettings(margin_epochs=7),
        optimizer=OptimizerSettings(gradient_clip=2.0, schedule="linear", warmup_steps=3),
        epochs=3,
        accelerator="cpu",
        calibration_images=8,
    )
    return replace(base, **changes)


def write_config(settings: TrainSettings, folder: Path) -> str:
    """The argument of ``matcaps train`` that gives these settings."""
    write_settings(folder / "config.yaml", settings.to_dict())
    return f"--config={folder / 'config.yaml'}"


class StoppedError(Exception):
    """What :class:`Stop` raises: no error that the library knows or catches."""


class Stop(Callback):
    """Interrupt a training where a hook is called after a number of optimiser steps."""

    def __init__(self, hook: str, step: int):
        def stop(trainer: Any, *_: Any, **__: Any) -> None:
            if trainer.global_step == step:
                raise StoppedError

        setattr(self, hook, stop)


class Spoil(Callback):
    """An infinite gradient at step 7, and note what the parameter is from then on."""

    def __init__(self, name):
        self.name, self.seen = name, []

    def on_after_backward(self, trainer, module):
        if trainer.global_step == 7:
            module.get_parameter(self.name).grad.view(-1)[0] = float("inf")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step >= 7:
            self.seen.append(module.get_parameter(self.name).detach().clone())


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def repeatable_metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what depends on the clock."""
    return [
        {name: value for name, value in row.items() if name != "train/images_per_second"}
        for row in read_metrics(folder / "metrics.csv")
    ]
