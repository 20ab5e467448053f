"""A saved network is opened: everything is loaded, and what does not fit refused, before anything is written."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from matcaps.data import DataBundle, ImageDataset, make_loader
from matcaps.data.devices import send
from matcaps.data.loader import Batch
from matcaps.data.splits import limit_images
from matcaps.inference.prediction import warn_of_unlike
from matcaps.inference.saved import SavedNetwork, load_saved_data, open_saved
from matcaps.inspect import has_viewpoints
from matcaps.inspect.sets import Survey, survey
from matcaps.inspect.settings import InspectSettings
from matcaps.inspect.subject import Subject, centre_crop
from matcaps.inspect.traversal import class_poses
from matcaps.models import BaselineCNN, EMCapsNet, PoseDecoder
from matcaps.models.decoder import load_decoder
from matcaps.models.modes import device_of
from matcaps.models.scores import class_scores
from matcaps.models.sources import DECODER_NAME
from matcaps.training.devices import place, resolve_device


@dataclass(frozen=True, eq=False)
class SavedSubject(Subject):
    """A saved network and all that it is looked at with.

    Attributes:
        settings: what was asked for.
        saved: the network and what lies beside it.
        cnn: to compare with.
        bundle: the data; None where only an image file is looked at.
        measured: images for what holds over a set.
        decoder_path: where the decoder is, or would be.
        decoder: if there is one.
    """

    settings: InspectSettings
    saved: SavedNetwork
    cnn: SavedNetwork | None
    bundle: DataBundle | None
    measured: ImageDataset | None
    decoder_path: Path
    decoder: PoseDecoder | None

    @property
    def set_title(self) -> str:
        """What the set is."""
        assert self.measured is not None
        return f"{self.measured.name}, {self.settings.part} part"

    @cached_property
    def survey(self) -> Survey | None:
        """What holds over the set, measured when it is first asked for; None without a set."""
        return None if self.measured is None else survey(self.network, self.loader(self.measured))

    @cached_property
    def poses(self) -> Tensor | None:
        """Every class's pose on each image of the set, ``[N, J, 4, 4]``; None without a set."""
        if self.measured is None:
            return None
        return class_poses(self.network, self.measured, self.saved.transform, self.settings.batch_size)

    def loader(self, dataset: ImageDataset, saved: SavedNetwork | None = None) -> DataLoader[Batch]:
        """Batches of a data set, as this network, or another that was saved, takes them: the centre crop alone."""
        transform = centre_crop((saved or self.saved).transform)
        device = device_of(self.network)
        return make_loader(dataset, transform, train=False, batch_size=self.settings.batch_size, device=device)


def open_subject(settings: InspectSettings) -> SavedSubject:
    """Load all that an inspection needs.

    Raises:
        FileNotFoundError: the network, the image or the data are missing.
        FileExistsError: a decoder is to be trained where there is one.
        ValueError: something does not fit.
    """
    resolve_device(settings.accelerator)  # first of all, so that nothing is read in vain where there is no GPU
    saved = open_saved(settings.source, settings.checkpoint)
    network = saved.network
    if not isinstance(network, EMCapsNet):
        raise ValueError(f"{settings.source} has no capsules to look into: it is a {type(network).__name__}")
    device = place(network, settings.accelerator)
    transform, channels, size = saved.transform, network.config.in_channels, saved.transform.output_size
    decoder_path = (settings.home or settings.target) / DECODER_NAME
    if settings.train_decoder and decoder_path.exists():
        raise FileExistsError(f"{decoder_path} is there already: leave --train_decoder out, or move the file away")
    if not settings.train_decoder:
        decoder_path = find_decoder(settings, saved.folder) or decoder_path
    picture = None if settings.image is None else saved.load_image(settings.image)
    if picture is not None:
        warn_of_unlike(saved, {str(settings.image): picture})
    bundle = part = truth = None
    name = str(settings.image)
    if picture is None or settings.num_images or settings.train_decoder:
        bundle = load_saved_data(
            saved, data=settings.data, folder=settings.folder, root=settings.root, part=settings.part
        )
        part = getattr(bundle, settings.part)
    if picture is None:
        assert bundle is not None
        assert part is not None
        index = settings.index
        if not 0 <= index < len(part):
            raise ValueError(f"index must be from 0 to {len(part) - 1} in the {settings.part} part; got {index}")
        picture, truth = part.images[index : index + 1], int(part.labels[index])
        name = f"{bundle.settings.name}, {settings.part} image {index}"
    measured = limit_images(part, settings.num_images, 0) if part is not None and settings.num_images else None
    image = transform.evaluate(picture)
    with torch.no_grad():
        scores = class_scores(network, send(image, device))[0]
    return SavedSubject(
        settings=settings,
        saved=saved,
        network=network,
        classes=saved.classes,
        cnn=None if settings.cnn is None else _open_cnn(settings.cnn, measured, device),
        bundle=bundle,
        measured=measured,
        image=image,
        truth=truth,
        name=name,
        scores=tuple(scores.tolist()),
        decoder_path=decoder_path,
        decoder=(
            load_decoder(decoder_path, network.config.num_classes, (channels, size, size))
            if decoder_path.is_file()
            else None
        ),
    )


def find_decoder(settings: InspectSettings, folder: Path) -> Path | None:
    """Where a network's decoder is: one that an inspection trained comes before one that lies beside the weights.

    Args:
        settings: of an inspection that would have trained it.
        folder: of the weights.
    """
    places = (settings.home or settings.target, folder)
    return next((place / DECODER_NAME for place in places if (place / DECODER_NAME).is_file()), None)


def _open_cnn(source: str, measured: ImageDataset | None, device: torch.device) -> SavedNetwork:
    cnn = open_saved(source)
    if not isinstance(cnn.network, BaselineCNN):
        raise ValueError(f"cnn must be a BaselineCNN's run; {source} is a {type(cnn.network).__name__}")
    if measured is None or not has_viewpoints(measured):
        raise ValueError("cnn compares viewpoints: it needs images whose viewpoint is known, smallNORB's test part")
    if cnn.network.config.in_channels != measured.num_channels or cnn.transform.image_size != measured.image_size:
        raise ValueError(
            f"cnn must take the same images, {measured.num_channels} channels of {measured.image_size} pixels; "
            f"{source} takes {cnn.network.config.in_channels} of {cnn.transform.image_size}"
        )
    cnn.network.to(device)
    return cnn
