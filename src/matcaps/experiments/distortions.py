"""Rotated and shifted test images: how well a network recognises objects in positions that it was not trained on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from matcaps.data import ImageDataset, Transform, make_loader, rotate_images, shift_images
from matcaps.models.modes import device_of
from matcaps.training.evaluation import evaluate

ROTATIONS = (0, 10, 20, 30, 45, 60)
"""Degrees, each in both directions."""

SHIFTS = (0, 1, 2, 3, 4, 6)
"""Whole pixels, each in the four directions."""


def measure_distortions(
    network: nn.Module,
    dataset: ImageDataset,
    transform: Transform,
    *,
    rotations: Sequence[float] = ROTATIONS,
    shifts: Sequence[int] = SHIFTS,
    batch_size: int = 200,
) -> dict[str, Any]:
    """Errors on a data set's images rotated and shifted.

    Args:
        network: an :class:`matcaps.models.EMCapsNet` or :class:`matcaps.models.BaselineCNN`, on any device.
        dataset: images and labels.
        transform: how they become the network's input.
        rotations: degrees, each in both directions.
        shifts: pixels, each in the four directions.
        batch_size: images at a time.

    Returns:
        ``rotation`` and ``shift``: for each amount, its error in per cent over its directions, and
        the number of images classified for it.
    """

    def error(variants: list[Tensor]) -> dict[str, float]:
        results = []
        for images in variants:
            distorted = replace(dataset, images=images)
            loader = make_loader(distorted, transform, train=False, batch_size=batch_size, device=device)
            results.append(evaluate(network, loader, dataset.classes))
        error_percent = sum(result.error_percent for result in results) / len(results)
        return {"error_percent": error_percent, "num_images": sum(result.num_images for result in results)}

    images, device = dataset.images, device_of(network)
    return {
        "rotation": [
            {"degrees": amount, **error([rotate_images(images, sign * amount) for sign in _signs(amount)])}
            for amount in rotations
        ],
        "shift": [
            {
                "pixels": amount,
                **error(
                    [shift_images(images, sign * amount, 0) for sign in _signs(amount)]
                    + [shift_images(images, 0, sign * amount) for sign in _signs(amount) if amount]
                ),
            }
            for amount in shifts
        ],
    }


def _signs(amount: float) -> tuple[int, ...]:
    return (1, -1) if amount else (1,)
