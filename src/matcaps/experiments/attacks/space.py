"""The allowed adversarial images: in the L∞ ball of ε around an image, and within the bounds of valid input."""

import numpy as np
import torch
from torch import Tensor

from matcaps._numbers import is_finite
from matcaps.data.random import Keys, uniform

Bounds = tuple[Tensor | float, Tensor | float]

# The numbers of an image's random streams, by use; the restarts of PGD come last, with one stream each.
TARGETS, NOISE, SQUARE, PGD = range(4)


def project(moved: Tensor, images: Tensor, epsilon: float, low: Tensor, high: Tensor) -> Tensor:
    """The nearest point in the ball of ``epsilon`` around the images and within the bounds."""
    return moved.clamp(images - epsilon, images + epsilon).clamp(low, high)


def uniform_noise(keys: Keys, images: Tensor) -> Tensor:
    """One number in [−1, 1) for each value of the images."""
    numbers = uniform(keys[:, None], np.arange(images.shape[1:].numel()))
    return torch.from_numpy(2 * numbers - 1).to(images).reshape(images.shape)


def image_numbers(images: Tensor, indices: Tensor | None) -> np.ndarray:
    """Numbers that identify the images, ``[B]``; by default their places in the batch."""
    if indices is None:
        return np.arange(len(images))
    if list(indices.shape) != [len(images)]:
        raise ValueError(f"indices must have shape [{len(images)}], one for each image; got {list(indices.shape)}")
    return indices.cpu().numpy()


def check_whole(name: str, value: int, least: int) -> None:
    """Refuse a value that is not a whole number of at least ``least``."""
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")


def check_attack(
    images: Tensor, labels: Tensor, epsilon: float, bounds: Bounds, targets: Tensor | None, objective: str
) -> tuple[Tensor, Tensor]:
    """Refuse arguments that do not fit; return the bounds, expanded to the images."""
    low, high = check_space(images, epsilon, bounds)
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and classes.dtype != torch.int64:
            raise TypeError(f"{name} must be int64 class indices; got {classes.dtype}")
        if classes is not None and list(classes.shape) != [len(images)]:
            raise ValueError(f"{name} must have shape [{len(images)}], one for each image; got {list(classes.shape)}")
    if objective not in ("loss", "logits"):
        raise ValueError(f'objective must be "loss" or "logits"; got {objective!r}')
    return low, high


def check_space(images: Tensor, epsilon: float, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Refuse images, ε or bounds that do not fit; return the bounds, expanded to the images."""
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point, as the network takes them; got {images.dtype}: transform them")
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images must have shape [B, C, H, W] with B of at least 1; got {list(images.shape)}")
    if not (is_finite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon must be finite and at least 0; got {epsilon}")
    low, high = (torch.as_tensor(bound).to(images).expand_as(images) for bound in bounds)
    if not ((low <= images) & (images <= high)).all():
        raise ValueError(
            f"images must lie within bounds; got values from {images.min():g} to {images.max():g} for bounds from "
            f"{low.min():g} to {high.max():g}: give the bounds of the same transform (attacks.input_bounds)"
        )
    return low, high
