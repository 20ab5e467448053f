"""The settings in which two runs differ; imports no torch."""

from dataclasses import asdict
from typing import Any

from matcaps.models.presets import model_config
from matcaps.training.settings import (
    INCIDENTAL,
    INCIDENTAL_DATA,
    INCIDENTAL_MODEL,
    OF_PRETRAINED,
    TrainSettings,
    flatten,
)


def differences(first: TrainSettings, second: TrainSettings) -> list[str]:
    """List the settings that affect results and differ between two runs, such as ``"epochs: 20, 100"``.

    A preset with changes counts as the network that it makes. It does not matter under which name a run was
    started, where its data were, what it wrote or measured during training and how often, or what computed it.
    """
    second = second.with_weights_of(first)  # a run's settings include those that its weights decided
    one, two = (flatten(_normalised(settings)) for settings in (first, second))
    names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    return [f"{name}: {one.get(name)}, {two.get(name)}" for name in names]


def _normalised(settings: TrainSettings) -> dict[str, Any]:
    values = settings.to_dict()
    for name in ("recipe", *INCIDENTAL):
        del values[name]
    config = model_config(settings.model.preset, **settings.model.changes())
    pretrained = {name: values["model"][name] for name in OF_PRETRAINED}
    values["model"] = {"architecture": type(config).__name__, **asdict(config), **pretrained}
    for name in ("in_channels", "num_classes", "image_size", *INCIDENTAL_MODEL):  # the data decide the first three
        values["model"].pop(name, None)
    data = settings.data
    values["data"]["transform"] = asdict(data.transform.resolve(data.name))
    for name in INCIDENTAL_DATA:
        del values["data"][name]
    del values["data"]["split"]["groups"]  # the table's path; its groups are separate settings
    return values
