"""Primary capsules: from feature maps to the first capsules."""

import torch
from torch import Tensor, nn

from matcaps._numbers import check_count
from matcaps.capsules import POSE_COMPONENTS, POSE_SIZE, Capsules
from matcaps.layers.normalisation import convolution


class PrimaryCapsules(nn.Module):
    """Compute a pose and an activation for each capsule from the feature maps, by convolution.

    Poses are linear in the features, activations their logistic function (Hinton et al. 2018, section 4).

    Args:
        in_channels: input feature maps.
        num_capsules: capsule types, ``I``.
        kernel_size: rows and columns of the convolution; 1 in the paper.
        stride: of the convolution; 1 in the paper.
        normalise: whether poses and the activations' logits are batch-normalised; that of the poses has no learned
            scale, so that they keep deviation 1.

    Raises:
        ValueError: a count is not a whole number of at least 1.

    Example:
        >>> capsules = PrimaryCapsules(64, 8)(torch.rand(2, 64, 14, 14))
        >>> capsules.poses.shape, capsules.activations.shape
        (torch.Size([2, 14, 14, 8, 4, 4]), torch.Size([2, 14, 14, 8]))
    """

    def __init__(
        self, in_channels: int, num_capsules: int, kernel_size: int = 1, stride: int = 1, *, normalise: bool = False
    ):
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("num_capsules", num_capsules),
            ("kernel_size", kernel_size),
            ("stride", stride),
        ):
            check_count(name, value)
        components = num_capsules * POSE_COMPONENTS
        self.pose = convolution(normalise, in_channels, components, kernel_size, stride, affine=False)
        self.activation = convolution(normalise, in_channels, num_capsules, kernel_size, stride)

    def forward(self, features: Tensor) -> Capsules:
        """Map features ``[B, C, H, W]`` to capsules ``[B, H', W', I, 4, 4]`` and ``[B, H', W', I]``.

        Under autocast the convolutions run in its dtype; the capsules are float32, which routing needs.
        """
        poses = self.pose(features).movedim(1, -1).unflatten(-1, (-1, POSE_SIZE, POSE_SIZE))
        activations = self.activation(features).movedim(1, -1)
        device = features.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            poses, activations = poses.float(), activations.float()
        return Capsules(poses, activations.sigmoid())
