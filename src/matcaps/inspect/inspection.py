"""What is inspected: a network and one image."""

from dataclasses import dataclass, replace

from torch import Tensor

from matcaps.data import Transform
from matcaps.data.names import short_name
from matcaps.models import EMCapsNet


@dataclass(frozen=True, eq=False)
class Inspection:
    """A network and the image on which it is inspected.

    Attributes:
        network: the network.
        image: ``[1, C, H, W]``, prepared as the network takes it, on the CPU.
        classes: the classes' names.
        truth: the image's label; None where it is not known.
        name: the image's name in titles.
        scores: the class activations on the image.
    """

    network: EMCapsNet
    image: Tensor
    classes: tuple[str, ...]
    truth: int | None
    name: str
    scores: tuple[float, ...]

    @property
    def predicted(self) -> int:
        """The most active class."""
        return self.scores.index(max(self.scores))

    @property
    def label(self) -> int:
        """The true class where it is known, else the most active one."""
        return self.predicted if self.truth is None else self.truth

    @property
    def title(self) -> str:
        """The image's name, its true class where known, and the predicted class."""
        truth = "" if self.truth is None else f"{short_name(self.classes[self.truth])}, "
        predicted = short_name(self.classes[self.predicted])
        return f"{short_name(self.name, 80)}: {truth}predicted as {predicted} ({max(self.scores):.2f})"


def centre_crop(transform: Transform) -> Transform:
    """The transform with one crop per image, even where its network is tested on several."""
    return type(transform)(replace(transform.settings, num_test_crops=1), transform.image_size)
