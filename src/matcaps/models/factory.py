"""Make a network from a preset's name."""

import warnings
from os import PathLike
from typing import Any

from matcaps.models.baseline_cnn import BaselineCNN
from matcaps.models.config import FROM_DATA, ModelConfig
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.modules import build_model, changed_fields, effective
from matcaps.models.presets import DEFAULT_WEIGHTS, PRESETS, changed_config, list_models, model_config
from matcaps.models.pretrained import load_tuned, read_model_config
from matcaps.models.sources import list_pretrained, resolve_folder
from matcaps.models.transfer import check_sizes


def create_model(
    preset: str,
    *,
    pretrained: bool | str | PathLike[str] | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    **changes: Any,
) -> EMCapsNet | BaselineCNN:
    """Make a network from a preset, with fresh weights, or with pretrained ones for fine-tuning.

    Args:
        preset: one of :func:`matcaps.list_models`, or the name of weights that come with matcaps, for a network of
            their kind.
        pretrained: a source as :func:`matcaps.from_pretrained` takes it: a name, a folder, a hub id; True for the
            preset's own weights (``annealed-small``, ``annealed-tutorial``, and each name of weights). The network then
            has the settings that the weights were trained with, except for those given
            here. The preset's layers must have the same sizes; a warning names the preset's settings that differ.
            :func:`matcaps.from_pretrained` explains which layers are kept and which are new.
        in_channels: image channels; the preset's own, or the weights', if None.
        num_classes: classes; the preset's own, or the weights', if None.
        **changes: any other field of the preset's configuration
            (:class:`matcaps.models.EMCapsNetConfig`, or :class:`matcaps.models.BaselineCNNConfig`).

    Returns:
        The network, in training mode. An :class:`EMCapsNet` needs ``calibrate(images)`` before it is trained, which
        leaves pretrained layers alone.

    Raises:
        ValueError: no such preset, a value that a setting cannot have, or weights that do not fit it.
        TypeError: no such setting.
        FileNotFoundError: the pretrained weights do not exist.

    Example:
        >>> network = create_model("paper-small", in_channels=3, num_classes=7, annealing=1 / 16)
        >>> network.config.num_classes
        7
        >>> import torch
        >>> network = create_model("annealed-small", pretrained=True, num_classes=7, in_channels=1)
        >>> network.calibrate(torch.rand(32, 1, 32, 32))
        ('class_capsules',)
    """
    for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
        if value is not None:
            changes[name] = value
    config = _config(preset, changes)
    if pretrained is None or pretrained is False:
        return build_model(config)
    source = _default_weights(preset) if pretrained is True else pretrained
    folder = resolve_folder(source)
    own = read_model_config(folder)
    check_sizes(own, config, f"preset {preset}")
    tuned = load_tuned(folder, changes)
    ignored = [
        f"{name} {effective(own, name)!r} for {effective(config, name)!r}"
        for name in changed_fields(own, config)
        if name not in changes and name not in FROM_DATA
    ]
    settings = f"settings are those of the weights, not of preset {preset} ({', '.join(ignored)})"
    warning = tuned.warning(source, *([settings] if ignored else []))
    if warning:
        warnings.warn(warning, stacklevel=2)
    return tuned.network.train()


def _config(preset: str, changes: dict[str, Any]) -> ModelConfig:
    if isinstance(preset, str) and preset in list_pretrained():
        return changed_config(f"the network of {preset!r}", read_model_config(preset), changes)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(
            f"preset must be one of {list_models()}, or of the weights {list_pretrained()}; got {preset!r}: to load "
            "your own weights use from_pretrained"
        )
    return model_config(preset, **changes)


def _default_weights(preset: str) -> str:
    if preset in list_pretrained():
        return preset
    if preset not in DEFAULT_WEIGHTS:
        raise ValueError(
            f"pretrained must name the weights, because preset {preset!r} has no weights of its own, as "
            f"{', '.join(DEFAULT_WEIGHTS)} have; got True: give one of {', '.join(list_pretrained())}, a folder or a "
            "hub id"
        )
    return DEFAULT_WEIGHTS[preset]
