"""Class scores of images, for any network: its ``class_scores`` applied to the output of its ``forward``."""

from typing import Any

from torch import Tensor, nn

from matcaps.capsules import Capsules
from matcaps.models.baseline_cnn import BaselineCNN
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.modules import unwrap


def class_scores(network: nn.Module, images: Tensor) -> Tensor:
    """Class scores ``[B, classes]`` of images ``[B, C, H, W]``, or of several crops each, ``[B, crops, C, H, W]``.

    Args:
        network: one of ours, also wrapped; or any network that returns capsules or logits, which are scored as ours.
        images: prepared as in training.
    """
    output = network(images if images.ndim == 4 else images.flatten(0, 1))
    own: Any = getattr(unwrap(network), "class_scores", None)
    if own is None:
        own = EMCapsNet.class_scores if isinstance(output, Capsules) else BaselineCNN.class_scores
    scores: Tensor = own(output)
    return scores if images.ndim == 4 else scores.unflatten(0, images.shape[:2]).mean(dim=1)
