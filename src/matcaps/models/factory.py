"""From a preset's name to a network."""

from typing import Any

from matcaps.models.baseline_cnn import BaselineCNN
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.presets import model_config
from matcaps.models.pretrained import build_model


def create_model(
    preset: str, *, in_channels: int | None = None, num_classes: int | None = None, **changes: Any
) -> EMCapsNet | BaselineCNN:
    """Make a network from a preset, with fresh weights.

    Args:
        preset: one of :func:`matcaps.list_models`.
        in_channels: image channels; the preset's own if None.
        num_classes: classes; the preset's own if None.
        **changes: any other field of the preset's configuration
            (:class:`matcaps.models.EMCapsNetConfig`, or :class:`matcaps.models.BaselineCNNConfig`).

    Returns:
        The network, in training mode. An :class:`EMCapsNet` wants ``calibrate(images)`` before it is trained.

    Raises:
        ValueError: no such preset, or a value that a setting cannot have.
        TypeError: no such setting.

    Example:
        >>> network = create_model("paper-small", in_channels=3, num_classes=7, annealing=1 / 16)
        >>> network.config.num_classes
        7
    """
    if in_channels is not None:
        changes["in_channels"] = in_channels
    if num_classes is not None:
        changes["num_classes"] = num_classes
    return build_model(model_config(preset, **changes))
