"""A decoder: from class capsules' poses back to the image."""

from pathlib import Path

from torch import Tensor, nn

from matcaps._numbers import check_count
from matcaps.capsules import POSE_COMPONENTS, POSE_SIZE
from matcaps.models.pretrained import load_into, read_weights


class PoseDecoder(nn.Module):
    """Reconstruct an image from one class capsule's pose; the other poses are set to 0.

    Three fully connected layers, 512 and 1024 hidden ReLU units and one output a pixel, as in Sabour, Frosst and
    Hinton (2017), section 4.1; the outputs are linear because images here may be standardised.

    Args:
        num_classes: class capsules.
        image_shape: channels, rows and columns of the image.
        hidden_units: units of the two hidden layers.

    Raises:
        ValueError: a count is not a whole number of at least 1.

    Example:
        >>> import torch
        >>> decoder = PoseDecoder(10, (1, 28, 28))
        >>> decoder(torch.randn(2, 10, 4, 4), torch.tensor([3, 7])).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self, num_classes: int, image_shape: tuple[int, int, int], hidden_units: tuple[int, int] = (512, 1024)
    ):
        super().__init__()
        for name, counts, length in (("image_shape", image_shape, 3), ("hidden_units", hidden_units, 2)):
            if len(counts) != length:
                raise ValueError(f"{name} must be {length} numbers; got {counts!r}")
            for count in counts:
                check_count(name, count)
        check_count("num_classes", num_classes)
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        first, second = hidden_units
        channels, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Linear(num_classes * POSE_COMPONENTS, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, channels * height * width),
            nn.Unflatten(1, self.image_shape),
        )

    def forward(self, poses: Tensor, classes: Tensor) -> Tensor:
        """Decode the pose of one class per image.

        Args:
            poses: ``[B, classes, 4, 4]``, of all class capsules.
            classes: ``[B]``, int64, the classes whose poses to decode: the true ones in training, later the predicted
                ones.

        Returns:
            ``[B, C, H, W]``.

        Raises:
            ValueError: the shapes do not fit.
        """
        expected = [len(classes), self.num_classes, POSE_SIZE, POSE_SIZE]
        if classes.ndim != 1 or list(poses.shape) != expected:
            raise ValueError(
                f"poses must have shape [B, {self.num_classes}, 4, 4] and classes [B]; "
                f"got {list(poses.shape)} and {list(classes.shape)}"
            )
        chosen = nn.functional.one_hot(classes, self.num_classes).to(poses.dtype)
        return self.layers((poses.flatten(2) * chosen.unsqueeze(-1)).flatten(1))


def load_decoder(path: Path, num_classes: int, image_shape: tuple[int, int, int]) -> PoseDecoder:
    """Load a decoder, in evaluation mode; how many hidden units it has, its tensors say.

    Args:
        path: what a training with ``reconstruction_weight`` or :func:`matcaps.training.train_decoder` left, or a
            decoder with other ``hidden_units`` saved in the same way.
        num_classes: the network's.
        image_shape: channels, rows and columns of the network's input.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no decoder, its numbers are not finite, or it is one for other images or classes.
    """
    weights = read_weights(path)
    hidden = [weights.get(name) for name in ("layers.0.bias", "layers.2.bias")]
    sizes = [len(bias) for bias in hidden if bias is not None and bias.ndim == 1 and len(bias)]
    if len(sizes) != 2:
        raise ValueError(f"{path} is not a decoder: layers.0 and layers.2 must each have a bias")
    try:
        decoder = load_into(lambda: PoseDecoder(num_classes, image_shape, hidden_units=(sizes[0], sizes[1])), weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit {num_classes} classes and images of {list(image_shape)}: {error}"
        ) from error
    return decoder.eval()
