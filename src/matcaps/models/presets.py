"""The named networks. Published networks stay unchanged; variants that learn faster are presets of their own."""

from dataclasses import fields, replace
from typing import Any

from matcaps.models.config import BaselineCNNConfig, EMCapsNetConfig, ModelConfig

_PAPER = EMCapsNetConfig(in_channels=2, num_classes=5)

_PAPER_SMALL = replace(_PAPER, stem_channels=64, primary_capsules=8, conv_capsules1=16, conv_capsules2=16)

# With these, networks of three iterations learn from the first steps; docs/log.md has the runs. Annealing 0.045 was
# first best on 2,430 test images, with a prototype; on held-out training instances 1/50 to 1/16 differ by less than a
# seed moves.
_ANNEALED: dict[str, Any] = {"annealing": 0.045, "coordinate_scale": 5.0, "calibration": "full"}

# With full calibration, data are a cost, and a capsule becomes active by losing them. Here, agreeing data are a reward.
_AGREEMENT: dict[str, Any] = {**_ANNEALED, "activation_rule": "relative", "normalisation": "batch"}

# Hui's tutorial of 2017, for MNIST; it initialises every matrix with standard deviation 1.
_TUTORIAL = EMCapsNetConfig(
    stem_padding="same",
    temperature_schedule="tutorial",
    class_temperature_ratio=1.0,
    competition="window",
    activation_rule="standardised",
    coordinates="grid",
    coordinate_components=(0, 1),
    conv_weight_deviation=1.0,
    class_weight_deviation=1.0,
)

PRESETS: dict[str, ModelConfig] = {
    # Hinton et al. 2018, section 4, for smallNORB crops of 32×32×2; the temperatures are those of the authors' code.
    "paper": _PAPER,
    # the paper's network of 68 K parameters
    "paper-small": _PAPER_SMALL,
    # ours: the same two with soft assignments and full calibration
    "annealed": replace(_PAPER, **_ANNEALED),
    "annealed-small": replace(_PAPER_SMALL, **_ANNEALED),
    # ours: the same with normalised routing, so that capsules become active where votes agree
    "agreement": replace(_PAPER, **_AGREEMENT),
    "agreement-small": replace(_PAPER_SMALL, **_AGREEMENT),
    "tutorial": _TUTORIAL,
    # ours: the tutorial's network with soft assignments and full calibration
    "annealed-tutorial": replace(_TUTORIAL, annealing=1 / 16, coordinate_scale=5.0, calibration="full"),
    # ours: the tutorial's network with normalised routing
    "agreement-tutorial": replace(
        _TUTORIAL,
        annealing=1 / 16,
        coordinate_scale=5.0,
        calibration="full",
        activation_rule="relative",
        normalisation="batch",
    ),
    # ours: the paper's small network at the tutorial's image size, with soft assignments and full calibration
    "quickstart": EMCapsNetConfig(
        stem_padding="same",
        stem_channels=64,
        primary_capsules=8,
        conv_capsules1=16,
        conv_capsules2=16,
        annealing=1 / 16,
        coordinate_scale=5.0,
        calibration="full",
    ),
    # Hinton et al. 2018, section 5: 4.2 M parameters
    "baseline-cnn": BaselineCNNConfig(),
}


DEFAULT_WEIGHTS = {"annealed-small": "paper-small-smallnorb", "annealed-tutorial": "tutorial-mnist"}
"""The weights that come with matcaps for a preset: what ``create_model(preset, pretrained=True)`` starts from."""


def list_models() -> list[str]:
    """Return the names that :func:`matcaps.create_model` knows.

    Example:
        >>> "paper-small" in list_models()
        True
    """
    return list(PRESETS)


def model_config(preset: str, **changes: Any) -> ModelConfig:
    """Return a preset's configuration with some fields changed.

    Args:
        preset: one of :func:`list_models`.
        **changes: fields of the preset's configuration.

    Raises:
        ValueError: no such preset, or a value that a field cannot have.
        TypeError: no such field.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"preset must be one of {list_models()}; got {preset!r}")
    return changed_config(f"preset {preset!r}", PRESETS[preset], changes)


def changed_config(name: str, config: ModelConfig, changes: dict[str, Any]) -> ModelConfig:
    """Return a configuration with some fields changed; ``name`` describes it in error messages.

    Raises:
        ValueError: a value that a field cannot have.
        TypeError: no such field.
    """
    known = [field.name for field in fields(config)]
    for change in changes:
        if change not in known:
            raise TypeError(f"{name} has no setting {change!r}; it has {', '.join(known)}")
    return replace(config, **changes)
