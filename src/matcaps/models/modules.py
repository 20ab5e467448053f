"""Derive a network's configuration from its modules, or the reason why no configuration describes it."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from matcaps.models.baseline_cnn import BaselineCNN
from matcaps.models.config import CONFIGS, ROUTED_LAYERS, BaselineCNNConfig, EMCapsNetConfig, ModelConfig
from matcaps.models.em_capsnet import EMCapsNet

_OF_ONE_LAYER = ("activation_rule", "variance_floor", "annealing", "iterations", "competition")
"""Options in which a single routed layer may differ from the network's configuration, such as a new class layer."""

_CHANGE_NO_NUMBER = {"training", "inplace", "implementation", "config"}

Departures = dict[str, dict[str, Any]]
"""By routed layer and option, the values in which single layers differ from the network's configuration."""


@dataclass(frozen=True)
class Description:
    """Everything needed to make a network again, except its weights.

    Attributes:
        config: the network's configuration, with the sizes that its modules have now.
        departures: see :data:`Departures`.
    """

    config: ModelConfig
    departures: Departures


def build_model(config: ModelConfig, departures: Departures | None = None) -> Any:
    """Make the network that a configuration describes, with fresh weights.

    Raises:
        ValueError: ``departures`` name no routed layer, or an option that a single layer cannot have.
    """
    network = EMCapsNet(config) if isinstance(config, EMCapsNetConfig) else BaselineCNN(config)
    for name, options in (departures or {}).items():
        if not isinstance(network, EMCapsNet) or name not in ROUTED_LAYERS or not isinstance(options, dict):
            raise ValueError(f"layers must hold options by routed layer, of {', '.join(ROUTED_LAYERS)}; got {name!r}")
        layer = getattr(network, name)
        for option, value in options.items():
            if option not in _OF_ONE_LAYER or (option == "competition" and name == "class_capsules"):
                raise ValueError(f"layer {name} cannot have {option!r} of its own; got {value!r}")
            value = getattr(replace(config, **{option: value}), option)  # the configuration checks it
            if option == "iterations":
                layer.routing.set_iterations(value)
            else:
                setattr(layer if option == "competition" else layer.routing, option, value)
    return network


def describe(model: nn.Module) -> Description:
    """Describe a network by its modules, including changes that were made to it after it was created.

    Args:
        model: one of ours, also as ``torch.compile``, ``DataParallel``, ``DistributedDataParallel`` or
            ``AveragedModel`` wrap it or its layers.

    Raises:
        TypeError: it is not one of our networks, or is a subclass.
        ValueError: no configuration describes this network: it has a layer of another kind, additional parameters, or
            layers that do not fit each other.
    """
    model = unwrap(model)
    config: Any = getattr(model, "config", None)
    if type(model) not in (EMCapsNet, BaselineCNN) or not isinstance(config, CONFIGS[type(model).__name__]):
        raise TypeError(
            f"model must be one of {list(CONFIGS)}; got {type(model).__name__}: save a subclass's weights with "
            "safetensors, because from_pretrained cannot make a subclass"
        )
    layers = dict(_walk(model))
    _compare_kinds(layers, dict(_walk(_sketch(config, {}))))
    if isinstance(config, EMCapsNetConfig):
        config, departures = _read_capsules(layers, config)
    else:
        config, departures = _read_cnn(layers, config), {}
    twin = _sketch(config, departures)
    _compare_tensors(named_tensors(model), named_tensors(twin))
    _compare_settings(layers, dict(_walk(twin)))
    return Description(config, departures)


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of ``torch.compile``, data parallelism and weight averaging."""
    while True:
        if isinstance(model, nn.DataParallel | DistributedDataParallel | AveragedModel):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch.compile's wrapper, whose class is slow to import
            model = model.get_submodule("_orig_mod")
        else:
            return model


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by the names that they have in an unwrapped network."""
    return {
        f"{name}.{key}" if name else key: tensor
        for name, module in _walk(model)
        for key, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and key not in module._non_persistent_buffers_set
    }


def _walk(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module by name, without wrappers; a module in two places appears twice."""
    module = unwrap(module)
    yield name, module
    for key, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{name}.{key}" if name else key)


def _sketch(config: ModelConfig, departures: Departures) -> nn.Module:
    """The network with arbitrary weights; not on the meta device, where torch would import its compiler."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return build_model(config, departures)


def _read_capsules(layers: dict[str, Any], config: EMCapsNetConfig) -> tuple[EMCapsNetConfig, Departures]:
    stem, classes = layers["stem"], layers["class_capsules"]
    values = {
        "in_channels": stem.in_channels,
        "stem_channels": stem.out_channels,
        "primary_capsules": layers["primary_capsules"].activation.out_channels,
        "conv_capsules1": _parents(layers, "conv_capsules1"),
        "conv_capsules2": _parents(layers, "conv_capsules2"),
        "num_classes": _parents(layers, "class_capsules"),
        "pose": classes.pose,
        "routing": classes.routing.kind,
        "routing_rank": getattr(classes.routing, "rank", None),
        "coordinate_scale": classes.coordinate_scale,
        "class_beta_activation": "shared" if classes.routing.shared_beta_activation else "each",
    }
    if classes.coordinate_components is None:
        values["coordinates"] = "none"
    else:
        values["coordinate_components"] = tuple(classes.coordinate_components)
        if config.coordinates == "none":  # without coordinates from the network the layer uses its own grid
            values["coordinates"] = "grid"
    options = {name: _options(layers[name]) for name in ROUTED_LAYERS}
    for option in _OF_ONE_LAYER:
        layer_values = [layer_options[option] for layer_options in options.values() if option in layer_options]
        if all(value == layer_values[0] for value in layer_values):
            values[option] = layer_values[0]
    values["class_iterations"] = _class_iterations(classes, config, values.get("iterations", config.iterations))
    config = replace(config, **values)
    departures = {
        name: {option: value for option, value in layer_options.items() if value != getattr(config, option)}
        for name, layer_options in options.items()
    }
    return config, {name: layer_options for name, layer_options in departures.items() if layer_options}


def _options(layer: Any) -> dict[str, Any]:
    routing = layer.routing
    options = {name: getattr(routing, name) for name in ("activation_rule", "variance_floor", "annealing")}
    if not hasattr(layer, "competition"):  # the class capsules; class_iterations holds their iterations
        return options
    return {**options, "iterations": routing.num_iterations, "competition": layer.competition}


def _class_iterations(classes: Any, config: EMCapsNetConfig, iterations: int) -> int | None:
    """The value of ``class_iterations``: None as long as the class capsules have as many as the other layers."""
    count = classes.routing.num_iterations
    return None if count == iterations and count != config.class_iterations else count


def _parents(layers: dict[str, Any], name: str) -> int:
    weight = layers[name].weight
    expected = 4 if name == "class_capsules" else 6
    if weight.ndim != expected:
        raise ValueError(f"{name}.weight must have {expected} dimensions; got shape {list(weight.shape)}")
    return weight.shape[expected - 3]


def _read_cnn(layers: dict[str, Any], config: BaselineCNNConfig) -> BaselineCNNConfig:
    return replace(
        config,
        in_channels=layers["features.0"].in_channels,
        channels1=layers["features.0"].out_channels,
        channels2=layers["features.3"].out_channels if "features.3" in layers else config.channels2,
        convolutions="two" if "features.3" in layers else "stem",
        hidden_units=layers["classifier.1"].out_features,
        dropout=layers["classifier.3"].p,
        num_classes=layers["classifier.4"].out_features,
    )


def _compare_kinds(layers: dict[str, nn.Module], expected: dict[str, nn.Module]) -> None:
    for name, module in expected.items():
        if type(layers.get(name)) is not type(module):
            got = type(layers[name]).__name__ if name in layers else "none"
            raise ValueError(
                f"{name} must be a {type(module).__name__}, so that from_pretrained can make it; got {got}: {_INSTEAD}"
            )
    additional = sorted(layers.keys() - expected.keys())
    if additional:
        raise ValueError(f"the network must have no additional layers; got {', '.join(additional)}: {_INSTEAD}")


def _compare_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        got = list(tensors[name].shape) if name in tensors else None
        if got != list(tensor.shape):
            raise ValueError(
                f"{name} must have shape {list(tensor.shape)}, as the configuration and the other layers require; got "
                f"{'none' if got is None else got}: replace what does not fit"
            )
    additional = sorted(tensors.keys() - expected.keys())
    if additional:
        raise ValueError(f"the network must have no additional parameters; got {', '.join(additional)}: {_INSTEAD}")


def _compare_settings(layers: dict[str, nn.Module], expected: dict[str, nn.Module]) -> None:
    for name, module in expected.items():
        others = _settings(layers[name])
        for setting, value in _settings(module).items():
            if setting.startswith("_") or setting in _CHANGE_NO_NUMBER:
                continue
            got = others.get(setting)
            if got != value:
                layer = name.removesuffix(".routing") if setting in ("stride", "competition") else name
                raise ValueError(
                    f"{layer}.{setting} must be {value!r}, as in the network's configuration; got {got!r}: "
                    f"set it back, or {_INSTEAD}"
                )


def _settings(module: nn.Module) -> dict[str, Any]:
    """A module's attributes by name, with each option of a routing as an attribute of its own."""
    settings = dict(vars(module))
    spec = settings.pop("spec", None)
    return settings if spec is None else {**settings, **vars(spec)}


_INSTEAD = "save such a network's state_dict() with safetensors.torch.save_file"


def effective(config: ModelConfig, name: str) -> Any:
    """A field's effective value: ``class_iterations`` None means ``iterations``."""
    value = getattr(config, name)
    if name == "class_iterations" and value is None and isinstance(config, EMCapsNetConfig):
        return config.iterations
    return value


def changed_fields(config: ModelConfig, other: ModelConfig) -> list[str]:
    """The names of the fields whose effective values differ between two configurations of one kind."""
    names = [entry.name for entry in fields(config) if getattr(config, entry.name) != getattr(other, entry.name)]
    return [name for name in names if effective(config, name) != effective(other, name)]
