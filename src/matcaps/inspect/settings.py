"""The settings of an inspection; imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from matcaps._paths import user_path
from matcaps.training.settings import Accelerator

INSPECTION_NAME = "inspect"
"""The folder within a run's folder that an inspection writes to."""
RECORD_NAME = "inspect.json"
"""The file of findings in that folder."""


@dataclass(frozen=True)
class InspectSettings:
    """What an inspection examines, and where it writes its findings.

    Args:
        source: folder of a run or of saved weights, weights that come with matcaps, or an id on the Hugging Face hub.
        index: the image to look at: its place in the part, from 0.
        image: an image file to look at instead.
        data: name of the data set; None: the one that it was trained on.
        folder: with the data set "folder": the folder of images.
        root: folder that holds the data sets.
        part: "test", "validation", "familiar_test" or "train".
        num_images: images for what holds over a set, evenly over the classes; 0: none.
        cnn: a CNN trained on the same data, to compare viewpoints with; named as ``source`` is.
        train_decoder: train a decoder on the network's poses, and save it.
        decoder_epochs: times through the training images, with ``train_decoder``.
        output: folder to write to; None: ``inspect`` in the run's folder, or ``inspect-NAME`` here.
        batch_size: images at a time.
        checkpoint: "last", or a path: a checkpoint of the run in place of its final weights.
        accelerator: where the network computes: "gpu" (CUDA), "cpu", or "auto" for the first where there is one.

    Raises:
        ValueError: a number is out of range.
    """

    source: str
    index: int = 0
    image: str | None = None
    data: str | None = None
    folder: str | None = None
    root: str | None = None
    part: str = "test"
    num_images: int = 1000
    cnn: str | None = None
    train_decoder: bool = False
    decoder_epochs: int = 10
    output: str | None = None
    batch_size: int = 100
    checkpoint: str | None = None
    accelerator: Accelerator = "auto"

    def __post_init__(self) -> None:
        for name, least in (("num_images", 0), ("batch_size", 1), ("decoder_epochs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")

    @property
    def home(self) -> Path | None:
        """``source`` as a folder; None where it is a name."""
        source = user_path(self.source)
        return source if source.is_dir() else None

    @property
    def target(self) -> Path:
        """The folder to write to."""
        if self.output is not None:
            return user_path(self.output)
        return Path(f"inspect-{self.source.replace('/', '-')}") if self.home is None else self.home / INSPECTION_NAME
