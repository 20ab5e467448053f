"""Images to pick from: the test images that a network's own data set has, or else digits that come with matcaps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from matcaps.data import ImageDataset, Transform
from matcaps.data.devices import send
from matcaps.data.mnist import CLASSES
from matcaps.data.splits import limit_images
from matcaps.demo.strokes import drawn_digits
from matcaps.inference.saved import SavedNetwork, load_saved_data
from matcaps.inspect.traversal import RANGE
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of

NUM_IMAGES = 400
"""Images to pick from and to take the range of poses from, evenly over the classes."""

_SHOWN = 20  # at a time


@dataclass(frozen=True, eq=False)
class Examples:
    """Images to pick from.

    Attributes:
        dataset: the images, class by class in turn: 0, 1, 2, ..., 0, 1, 2, ....
        said: what they are, as a sentence for people.
    """

    dataset: ImageDataset
    said: str

    def page(self, number: int) -> range:
        """Positions of the images to show at a time; after the last page comes the first."""
        pages = max(1, -(-len(self.dataset) // _SHOWN))
        first = number % pages * _SHOWN
        return range(first, min(first + _SHOWN, len(self.dataset)))


def find_examples(saved: SavedNetwork, root: str | None = None) -> Examples | None:
    """Look for images that a network can be shown; reads files, asks no network.

    Args:
        saved: the network.
        root: folder that holds the data sets.

    Returns:
        Test images of the data that it was trained on, if they are there; for a network of digits that finds none the
        drawn ones; else None.
    """
    try:
        bundle = load_saved_data(saved, root=root)
    except (FileNotFoundError, ValueError) as error:
        if saved.classes != CLASSES["mnist"] or saved.description["model"]["in_channels"] != 1:
            return None
        missing = "MNIST is not here" if isinstance(error, FileNotFoundError) else str(error)
        return Examples(
            drawn_digits(NUM_IMAGES // 10),
            f"Digits drawn for matcaps, not MNIST's. {missing}: matcaps data fetch mnist brings its test images.",
        )
    chosen = _in_turn(limit_images(bundle.test, NUM_IMAGES, 0))
    return Examples(chosen, f"Test images of {chosen.name}, which the network did not learn from.")


def _in_turn(dataset: ImageDataset) -> ImageDataset:
    """The images, class by class in turn."""
    places = torch.zeros_like(dataset.labels)
    for label in range(dataset.num_classes):
        own = dataset.labels == label
        places[own] = torch.arange(int(own.sum()))
    return dataset.subset((places * dataset.num_classes + dataset.labels).argsort(stable=True))


@torch.no_grad()
def pose_ranges(network: EMCapsNet, transform: Transform, examples: Examples) -> Tensor:
    """The range of each component of each class's pose on images of the class.

    Args:
        network: in evaluation mode.
        transform: prepares images for it.
        examples: labelled images.

    Returns:
        ``[classes, 16, 2]``: the 2nd and the 98th percentile; of a class without images those of all classes' poses.
    """
    dataset = examples.dataset
    batches = (send(images, device_of(network)) for images in dataset.images.split(20))
    poses = torch.cat([network(transform.evaluate(images)).poses.flatten(2) for images in batches]).cpu()
    own = poses[torch.arange(len(poses)), dataset.labels]
    quantiles = torch.tensor(RANGE)
    ranges = []
    for label in range(network.config.num_classes):
        seen = own[dataset.labels == label]
        ranges.append((seen if len(seen) else own).quantile(quantiles, dim=0).T)
    return torch.stack(ranges)
