"""smallNORB, one object at a time, by elevation, azimuth and lighting."""

from dataclasses import dataclass

import torch
from torch import Tensor

from matcaps.data import ImageDataset, load_smallnorb
from matcaps.data.devices import send
from matcaps.inference.saved import SavedNetwork, open_saved
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of
from matcaps.training.devices import place, resolve_device

INSTANCES = (0, 1, 2, 3, 5)
"""Those of the test part, of every category."""
NUM_AZIMUTHS = 18
NUM_ELEVATIONS = 9
NUM_LIGHTINGS = 6


@dataclass(frozen=True, eq=False)
class View:
    """One pair of images, and what the network says to it.

    Attributes:
        pixels: ``[2, S, S]``, uint8: the left and the right camera's.
        activations: ``[5]``.
        truth: the object's category.
    """

    pixels: Tensor
    activations: Tensor
    truth: int


@dataclass(frozen=True, eq=False)
class ObjectViews:
    """A network, and smallNORB's test images by what they show.

    Attributes:
        source: what the network was opened by.
        saved: the network, of two channels and five classes.
        dataset: the test part.
        places: ``[5, 10, 9, 18, 6]``, int64: where the image of a category, instance, elevation, azimuth and lighting
            is in ``dataset``; -1 where there is none.
    """

    source: str
    saved: SavedNetwork
    dataset: ImageDataset
    places: Tensor

    def view(self, category: int, instance: int, elevation: int, azimuth: int, lighting: int) -> View | None:
        """One view.

        Args:
            category: 0 to 4.
            instance: 0 to 9.
            elevation: 0 to 8.
            azimuth: 0 to 17, in units of 20 degrees.
            lighting: 0 to 5.

        Returns:
            What is seen; None if there is no such image.
        """
        place = int(self.places[category, instance, elevation, azimuth, lighting])
        if place < 0:
            return None
        return View(self.dataset.images[place], self._activations(torch.tensor([place]))[0], category)

    def sweep(self, category: int, instance: int, elevation: int, lighting: int) -> Tensor:
        """The class activations all round an object: ``[18, 5]``, NaN where there is no image."""
        places = self.places[category, instance, elevation, :, lighting]
        found = torch.full((NUM_AZIMUTHS, 5), float("nan"))
        if (places >= 0).any():
            found[places >= 0] = self._activations(places[places >= 0])
        return found

    @torch.no_grad()
    def _activations(self, places: Tensor) -> Tensor:
        network = self.saved.network
        images = send(self.dataset.images[places], device_of(network))
        return network(self.saved.transform.evaluate(images)).activations.cpu()


def open_views(source: str, *, root: str | None = None, accelerator: str = "auto") -> ObjectViews:
    """Open a network of smallNORB and the test images; reads 24,300 pairs, which takes seconds.

    Args:
        source: as :func:`matcaps.demo.open_demo`.
        root: folder that holds the data sets.
        accelerator: as :func:`matcaps.demo.open_demo`.

    Raises:
        FileNotFoundError: the network or the images are missing; the message says how to get them.
        ValueError: the network is none of smallNORB, or a file is malformed.
    """
    resolve_device(accelerator)  # first of all, so that nothing is read in vain where there is no GPU
    saved = open_viewer(source)
    place(saved.network, accelerator)
    dataset = load_smallnorb(root, "test", size=saved.transform.image_size)
    columns = [dataset.attributes[name] for name in ("category", "instance", "elevation", "azimuth", "lighting")]
    columns[3] = torch.where(columns[3] >= 0, columns[3] // 2, -1)
    known = torch.stack(columns).amin(0) >= 0
    places = torch.full((5, 10, NUM_ELEVATIONS, NUM_AZIMUTHS, NUM_LIGHTINGS), -1)
    places[tuple(column[known] for column in columns)] = torch.arange(len(dataset))[known]
    return ObjectViews(source, saved, dataset, places)


def open_viewer(source: str) -> SavedNetwork:
    """Open a network, and refuse one that is none of smallNORB; raises as :func:`open_views`."""
    saved = open_saved(source)
    network = saved.network
    if not isinstance(network, EMCapsNet) or network.config.in_channels != 2 or network.config.num_classes != 5:
        raise ValueError(f"{source} is no capsule network of smallNORB: it must take 2 channels and have 5 classes")
    if 96 % saved.transform.image_size:
        raise ValueError(f"{source} must take images whose side divides 96; got {saved.transform.image_size}")
    return saved
