"""A network's layers: the shapes of their outputs and their numbers of parameters."""

from dataclasses import dataclass

import torch
from torch import nn

from matcaps.models.baseline_cnn import BaselineCNN
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.modes import evaluation_mode


@dataclass(frozen=True)
class LayerSummary:
    """One row: the layer's name, the shapes of its outputs (without the batch), its number of parameters."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    num_parameters: int


@torch.no_grad()
def summarise(model: nn.Module, image_size: tuple[int, int]) -> list[LayerSummary]:
    """Run one blank image through a model and describe its layers.

    Args:
        model: an :class:`EMCapsNet` or :class:`BaselineCNN`.
        image_size: rows and columns of the image.

    Returns:
        One row per layer, the input first; capsule layers have two shapes, of poses and activations.

    Raises:
        TypeError: the model is of another class.
        ValueError: the model cannot take images of this size.
    """
    if not isinstance(model, EMCapsNet | BaselineCNN):
        raise TypeError(f"model must be an EMCapsNet or a BaselineCNN; got {type(model).__name__}")
    if min(image_size) < 1:
        raise ValueError(f"image_size must be rows and columns, at least 1 each; got {image_size}")
    with evaluation_mode(model):  # dropout would draw random numbers
        return _rows(model, image_size)


def _rows(model: EMCapsNet | BaselineCNN, image_size: tuple[int, int]) -> list[LayerSummary]:
    images = next(model.parameters()).new_zeros(1, model.config.in_channels, *image_size)
    rows = [LayerSummary("image", (_shape(images),), 0)]
    if isinstance(model, EMCapsNet):
        outputs = model.layer_outputs(images)
        positions = outputs["primary_capsules"].poses.shape[1:3]
        rows.append(LayerSummary("stem", ((model.config.stem_channels, *positions),), _count(model.stem)))
        for name, capsules in outputs.items():
            layer = model.get_submodule(name)
            rows.append(LayerSummary(name, (_shape(capsules.poses), _shape(capsules.activations)), _count(layer)))
        return rows
    model(images)  # the check of the image size
    for name in ("features", "classifier"):
        for index, layer in enumerate(model.get_submodule(name).children()):
            images = layer(images)
            label = f"{name}.{index} {type(layer).__name__}"
            rows.append(LayerSummary(label, (_shape(images),), _count(layer)))
    return rows


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[1:])


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
