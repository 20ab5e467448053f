"""The convolutional network that the paper compares capsules with."""

from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from matcaps.layers.shared_batch import Dropout
from matcaps.models.config import BaselineCNNConfig

if TYPE_CHECKING:
    from matcaps.models.export.writing import Exported


class BaselineCNN(nn.Module):
    """Two 5×5 convolutions with 2×2 max pooling, a fully connected layer with dropout, class scores.

    The paper gives the layers (Hinton et al. 2018, section 5) and 4.2 M parameters for 32×32×2. This number is right
    only if the convolutions are padded, as they are here.

    Args:
        config: its layers' sizes; :func:`matcaps.create_model` makes one from the preset ``"baseline-cnn"``.

    Example:
        >>> import torch
        >>> from matcaps import create_model
        >>> create_model("baseline-cnn")(torch.randn(1, 2, 32, 32)).shape
        torch.Size([1, 5])
    """

    def __init__(self, config: BaselineCNNConfig):
        super().__init__()
        self.config = config
        if config.convolutions == "stem":  # that of the capsule networks
            first = nn.Conv2d(config.in_channels, config.channels1, 5, stride=2)
            self.features = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2))
        else:
            self.features = nn.Sequential(
                nn.Conv2d(config.in_channels, config.channels1, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(config.channels1, config.channels2, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(2),
            )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(_num_features(config), config.hidden_units),
            nn.ReLU(),
            Dropout(config.dropout),
            nn.Linear(config.hidden_units, config.num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]`` to logits ``[B, classes]``.

        Raises:
            ValueError: the images' shape is not the one that the network was made for.
        """
        expected = [self.config.in_channels, *self.config.image_size]
        if images.ndim != 4 or list(images.shape[1:]) != expected:
            raise ValueError(
                f"images must have shape [B, {', '.join(map(str, expected))}]; got {list(images.shape)}: "
                "create the model with the in_channels and image_size of your images"
            )
        return self.classifier(self.features(images))

    @staticmethod
    def class_scores(output: Tensor) -> Tensor:
        """The class scores of an output of :meth:`forward`: the logits' softmax, ``[B, classes]``."""
        return output.softmax(dim=1)

    def save_pretrained(self, folder: str | PathLike[str], **metadata: object) -> None:
        """Write weights and configuration; see :func:`matcaps.models.pretrained.save_pretrained`."""
        from matcaps.models.pretrained import save_pretrained

        save_pretrained(self, folder, **metadata)

    def export(self, format: str, path: str | PathLike[str], **options: Any) -> "Exported":
        """Write it as ONNX or as a program of ``torch.export``; see :func:`matcaps.models.export_network`."""
        from matcaps.models.export.writing import export_network

        return export_network(self, format, path, **options)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Send to the Hugging Face hub; see :func:`matcaps.models.push_to_hub`."""
        from matcaps.models.hub import push_to_hub

        return push_to_hub(self, repository, **options)

    @property
    def num_classes(self) -> int:
        """Number of classes of the present last layer."""
        return self.classifier[-1].out_features  # type: ignore[return-value]

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last fully connected layer by a new one, for other classes.

        Args:
            num_classes: two or more.

        Raises:
            ValueError: there are fewer.
        """
        config, old = replace(self.config, num_classes=num_classes), self.classifier[-1]
        assert isinstance(old, nn.Linear)
        self.classifier[-1] = nn.Linear(old.in_features, config.num_classes).to(old.weight).train(old.training)
        self.config = config

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str], **changes: Any) -> "BaselineCNN":
        """Load from a folder or a hub id, in evaluation mode; see :func:`matcaps.from_pretrained`."""
        from matcaps.models.pretrained import from_pretrained

        return from_pretrained(source, expected=cls, **changes)


def _num_features(config: BaselineCNNConfig) -> int:
    """The number of values that leave the last pooling."""
    if config.convolutions == "stem":
        rows, columns = (((size - 5) // 2 + 1) // 2 for size in config.image_size)
        return config.channels1 * rows * columns
    rows, columns = (size // 4 for size in config.image_size)
    return config.channels2 * rows * columns
