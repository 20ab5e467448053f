"""In which settings two runs differ; free of torch."""

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
    """Say in which settings two runs differ that bear on what they compute, such as ``"epochs: 20, 100"``.

    A preset with changes counts as the network that it makes, and it does not matter under which name a run was
    started, where its data lay, what it wrote or looked at on the way and how often, or what computed it.
    """
    second = second.with_weights_of(first)  # a run says all that its weights decided
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
    for name in ("in_channels", "num_classes", "image_size", *INCIDENTAL_MODEL):  # the data set the first three
        values["model"].pop(name, None)
    data = settings.data
    values["data"]["transform"] = asdict(data.transform.resolve(data.name))
    for name in INCIDENTAL_DATA:
        del values["data"][name]
    del values["data"]["split"]["groups"]  # where the table lies; its groups are named beside it
    return values
