"""What is looked at: a network and one image."""

from dataclasses import dataclass, replace

from torch import Tensor

from matcaps.data import Transform
from matcaps.data.names import short_name
from matcaps.models import EMCapsNet


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and the image that it is looked at with.

    Attributes:
        network: itself.
        image: ``[1, C, H, W]``, prepared as the network takes it, on the host.
        classes: the classes' names.
        truth: the image's label, where that is known.
        name: what to call the image.
        scores: the class activations on it.
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
        """The true class, where that is known, or else the most active one."""
        return self.predicted if self.truth is None else self.truth

    @property
    def title(self) -> str:
        """What the image is, and what the network takes it for."""
        truth = "" if self.truth is None else f"{short_name(self.classes[self.truth])}, "
        taken = short_name(self.classes[self.predicted])
        return f"{short_name(self.name, 80)}: {truth}taken for {taken} ({max(self.scores):.2f})"


def centre_crop(transform: Transform) -> Transform:
    """The transform with one crop an image, where its network is tested on several."""
    return type(transform)(replace(transform.settings, num_test_crops=1), transform.image_size)
