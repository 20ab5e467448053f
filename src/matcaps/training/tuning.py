"""A training that starts from saved weights: what they decide, what is kept of them, and what the record says."""

import warnings
from dataclasses import replace
from typing import Any

from matcaps.data import DataBundle
from matcaps.models import BaselineCNN, EMCapsNet, model_config
from matcaps.models.freezing import freeze, short_name
from matcaps.models.modules import effective
from matcaps.models.pretrained import load_tuned, read_model_config, weights_digest
from matcaps.models.sources import read_config, resolve_folder
from matcaps.models.transfer import check_sizes
from matcaps.training.settings import ModelSettings, TrainSettings
from matcaps.training.unfinished import check_finished

_NOT_DECIDED = ("implementation",)
"""What a network's configuration has and its weights do not decide."""


def settle(settings: TrainSettings) -> TrainSettings:
    """Write down in settings what their pretrained weights decide: the network's settings, and the weights' SHA-256.

    So a run that is resumed needs the weights no more, and one that is repeated has the same ones or is refused.

    Raises:
        FileNotFoundError: there are no such weights, or they are of a run that has not finished.
        ValueError: they are others than ``pretrained_sha256`` says, of another kind of network than the preset, or
            have layers with settings of their own.
    """
    chosen = settings.model
    if chosen.pretrained is None:
        return settings
    check_finished(chosen.pretrained)
    folder = resolve_folder(chosen.pretrained)
    digest, own = weights_digest(folder), read_model_config(folder)
    if chosen.pretrained_sha256 not in (None, digest):
        raise ValueError(
            f"pretrained_sha256 must be that of the weights in {folder}, {digest}; got {chosen.pretrained_sha256}: "
            "they have changed since; find the earlier ones, or leave it out"
        )
    if type(own) is not type(model_config(chosen.preset)):
        kind = type(own).__name__.removesuffix("Config")
        raise ValueError(
            f"preset must be of the kind that the pretrained weights are of, {kind}; got {chosen.preset!r}: name such "
            "a preset, or other weights"
        )
    layers = read_config(folder).get("layers")
    if layers:
        raise ValueError(
            f"the pretrained weights must have one setting for all layers; in {folder} {', '.join(layers)} depart: "
            "fine-tune them from Python, with from_pretrained"
        )
    decided = {name: value for name, value in vars(own).items() if name not in _NOT_DECIDED}
    if getattr(model_config(chosen.preset), "class_iterations", None) is not None and chosen.iterations is None:
        decided["class_iterations"] = effective(own, "class_iterations")  # None would be the preset's
    return replace(settings, model=chosen.filled({"pretrained_sha256": digest, **decided}))


def check_preset(chosen: ModelSettings) -> None:
    """Refuse a preset that somebody named beside pretrained weights whose layers have other sizes.

    Raises:
        ValueError: the sizes differ.
    """
    own = read_model_config(resolve_folder(str(chosen.pretrained)))
    check_sizes(own, model_config(chosen.preset, **chosen.changes()), f"preset {chosen.preset}")


def start_from_pretrained(
    settings: TrainSettings, bundle: DataBundle, changes: dict[str, Any]
) -> EMCapsNet | BaselineCNN:
    """Make the network from the weights that settings name; a warning says what was not kept.

    The class layer is kept where the weights were trained to tell the same classes apart, by number and, if they say
    so, by name.

    Args:
        settings: settled.
        bundle: the data.
        changes: what the data and the settings ask of the network, by field of its configuration.
    """
    source = str(settings.model.pretrained)
    folder = resolve_folder(source)
    description = read_config(folder)
    tuned = load_tuned(folder, changes)
    network, anew, notes = tuned.network, set(tuned.anew), list(tuned.notes)
    classes, own = description.get("classes"), read_model_config(folder)
    if own.num_classes == len(bundle.classes) and classes not in (None, list(bundle.classes)):
        network.reset_classifier(len(bundle.classes))
        anew.add("class_capsules" if isinstance(network, EMCapsNet) else "classifier.4")
        notes.insert(0, "the class layer starts anew (as many classes, but others)")
    frozen = [] if not settings.model.freeze else freeze(network, *settings.model.freeze)
    random = [part for part in frozen if any(layer.split(".")[0] == part for layer in anew)]
    if random:
        raise ValueError(
            f"freeze must name parts that come from the pretrained weights whole; got {short_name(random[0])}, whose "
            "classes are others and start anew: leave it out"
        )
    preprocessing = description.get("preprocessing")
    normalise = preprocessing.get("normalise") if isinstance(preprocessing, dict) else None
    if normalise not in (None, bundle.transform.settings.normalise):
        notes.append(
            f"its images were normalised by {normalise!r}, these are by {bundle.transform.settings.normalise!r} "
            f"(--data.transform.normalise {normalise} for the same)"
        )
    if "class_capsules" in anew and settings.model.recalibrate and network.config.calibration != "none":
        notes.append("layers that are not frozen are calibrated anew (--model.recalibrate false leaves those kept)")
    if notes:
        warnings.warn(f"from {source}: {'; '.join(notes)}", stacklevel=2)
    return network.train()


def describe_origin(settings: TrainSettings) -> dict[str, Any]:
    """What a run's results say of the weights that it started from; nothing where there were none."""
    chosen = settings.model
    if chosen.pretrained is None:
        return {}
    return {
        "pretrained": {"source": chosen.pretrained, "sha256": chosen.pretrained_sha256},
        "frozen": list(chosen.freeze),
    }
