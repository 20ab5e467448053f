"""Copy a network's weights to a network that differs: layers that fit are kept, others are new, and notes name them."""

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from matcaps.layers.parameters import fit_beta_activation
from matcaps.models.config import FROM_DATA, ROUTED_LAYERS, BaselineCNNConfig, EMCapsNetConfig, ModelConfig
from matcaps.models.modules import Departures, build_model, changed_fields, describe, effective
from matcaps.models.presets import changed_config

_NEW_LAYERS_ONLY = ("calibration", "conv_weight_deviation", "class_weight_deviation", "implementation")
"""Fields that only affect how a layer starts, or what computes it: a kept layer does not change."""

_SIZES = (
    "stem_channels",
    "primary_capsules",
    "conv_capsules1",
    "conv_capsules2",
    "stem_kernel_size",
    "pose",
    "channels1",
    "channels2",
    "hidden_units",
    "convolutions",
    "routing_rank",
)
_IN_THE_WEIGHTS = {
    "temperature_schedule": "the inverse temperatures",
    "class_temperature_ratio": "the inverse temperatures",
    "normalisation": "its statistics",
}


@dataclass(frozen=True, eq=False)
class Tuned:
    """A network adapted to other data.

    Attributes:
        network: an :class:`EMCapsNet` or :class:`BaselineCNN`.
        anew: the names of the new layers.
        notes: clauses that describe the changes.
    """

    network: Any
    anew: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def warning(self, source: object, *further: str) -> str:
        """One line about weights from a source; empty if all of them were kept unchanged."""
        notes = [*self.notes, *further]
        if any(layer in ROUTED_LAYERS for layer in self.anew) and self.network.config.calibration != "none":
            notes.append('call calibrate(images, "all") before training')
        return f"{source}: {'; '.join(notes)}" if notes else ""


def transfer(original: nn.Module, changes: dict[str, Any]) -> Tuned:
    """Make a network like ``original`` with some fields of its configuration changed.

    Args:
        original: an :class:`EMCapsNet` or :class:`BaselineCNN`; it is the result where nothing changes.
        changes: new values by field; None means no change.

    Raises:
        ValueError: a value that a field cannot have, or a change that the weights do not allow.
        TypeError: no such field.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        return Tuned(original)
    described = describe(original)
    old, departures = described.config, described.departures
    new = changed_config(f"the pretrained {type(original).__name__}", old, changes)
    differing = changed_fields(old, new)
    check_sizes(old, new)
    for name in _IN_THE_WEIGHTS:
        if name in differing:
            raise ValueError(
                f"{name} must be {getattr(old, name)!r}, as in the pretrained weights, which contain "
                f"{_IN_THE_WEIGHTS[name]}; got {getattr(new, name)!r}: leave it out, or train from scratch"
            )
    anew = _new_layers(old, new)
    kept = {
        layer: {option: value for option, value in options.items() if option not in changes}
        for layer, options in departures.items()
        if layer not in anew
    }
    network = build_model(new, kept)
    _copy(original, network, old, new, anew)
    return Tuned(network, tuple(anew), tuple(_notes(old, new, differing, anew, kept)))


def check_sizes(pretrained: ModelConfig, wanted: ModelConfig, what: str = "it") -> None:
    """Refuse a network whose layers between the first and the last have other sizes than the weights.

    Args:
        pretrained: the configuration of the weights.
        wanted: the configuration to use them for.
        what: describes the wanted configuration in the message.

    Raises:
        ValueError: they differ.
    """
    if type(pretrained) is not type(wanted):
        kinds = [type(config).__name__.removesuffix("Config") for config in (pretrained, wanted)]
        raise ValueError(f"the pretrained weights are of class {kinds[0]}; {what} is of class {kinds[1]}: {_ADVICE}")
    for name in changed_fields(pretrained, wanted):
        if name in _SIZES:
            raise ValueError(
                f"{name} must be {getattr(pretrained, name)!r}, as in the pretrained weights; {what} has "
                f"{getattr(wanted, name)!r}: {_ADVICE}"
            )


_ADVICE = "keep the weights' value, or train from scratch"


def adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Make a convolution's weights take another number of channels.

    As in timm (``adapt_input_conv`` in timm/models/_manipulate.py, there only from three channels): for one
    channel, the sum over all, so that a grey image has the effect of equal channels; else the channels repeated in
    turn, multiplied by old over new, so that sums keep their size.

    Args:
        weight: ``[out, C, K, K]``.
        in_channels: wanted.

    Returns:
        ``[out, in_channels, K, K]``.
    """
    old = weight.shape[1]
    if in_channels == old:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight.repeat(1, math.ceil(in_channels / old), 1, 1)[:, :in_channels] * (old / in_channels)


def _new_layers(old: ModelConfig, new: ModelConfig) -> list[str]:
    if isinstance(new, BaselineCNNConfig) and isinstance(old, BaselineCNNConfig):
        if [side // 4 for side in old.image_size] != [side // 4 for side in new.image_size]:
            return ["classifier"]
        return ["classifier.4"] if old.num_classes != new.num_classes else []
    return ["class_capsules"] if old.num_classes != new.num_classes else []


def _copy(original: nn.Module, network: nn.Module, old: ModelConfig, new: ModelConfig, anew: list[str]) -> None:
    weights = original.state_dict()
    fresh = network.state_dict()
    for name in weights:
        if any(name.startswith(f"{layer}.") for layer in anew):
            weights[name] = fresh[name]
    stem = "stem.weight" if isinstance(new, EMCapsNetConfig) else "features.0.weight"
    weights[stem] = adapt_channels(weights[stem], new.in_channels)
    for layer in ROUTED_LAYERS:
        name = f"{layer}.routing.inverse_temperature"
        if layer not in anew and name in weights and len(weights[name]) != len(fresh[name]):
            weights[name] = _schedule(weights[name], layer, old, new)
    name = "class_capsules.routing.beta_activation"
    if name in weights:
        weights[name] = fit_beta_activation(weights[name], fresh[name])
    network.load_state_dict(weights)


def _schedule(saved: Tensor, layer: str, old: Any, new: Any) -> Tensor:
    """The inverse temperatures for another number of iterations, with the scale that calibration had found.

    Those of a normalised routing keep their last value, which is learned.
    """
    name, count = "inverse_temperature", "iterations"
    if layer == "class_capsules":
        name, count = "class_inverse_temperature", "class_iterations"
    before, after = (saved.new_tensor(getattr(config, name)) for config in (replace(old, **{count: len(saved)}), new))
    if old.normalisation == "batch":
        return saved[-1] / after[-1] * after
    return saved[0] / before[0] * after


def _notes(
    old: ModelConfig, new: ModelConfig, differing: list[str], anew: list[str], departures: Departures
) -> list[str]:
    notes = []
    if anew:
        reason = (
            f"{new.num_classes} classes, the weights have {old.num_classes}"
            if "num_classes" in differing
            else "images of another size"
        )
        notes.append(f"{anew[0]} starts anew ({reason})")
    if "in_channels" in differing:
        how = "summed into one" if new.in_channels == 1 else f"repeated and scaled for {new.in_channels}"
        notes.append(f"the first convolution's {old.in_channels} channels are {how}")
    others = [name for name in differing if name not in FROM_DATA + _NEW_LAYERS_ONLY]
    if others:
        values = ", ".join(f"{name} {effective(new, name)!r} for {effective(old, name)!r}" for name in others)
        notes.append(f"the weights were trained with other settings ({values})")
    if departures:
        notes.append(f"layers with settings of their own keep them ({', '.join(departures)})")
    return notes
