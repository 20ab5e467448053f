"""A set of labelled images in memory: what every reader returns and every split divides."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from matcaps.data.names import as_text


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images, all of one size, in memory.

    Attributes:
        name: the set's name, for example ``"smallnorb"``.
        split: the official part the images come from, ``"train"`` or ``"test"``, or ``"validation"`` of a folder. It
            never changes: an image keeps its identity ``(name, split, index)`` whatever part a rule of
            :mod:`matcaps.data.splits` gives it.
        images: ``[N, C, H, W]``, uint8, grey levels or colours in 0..255; H equals W.
        labels: ``[N]``, int64, in ``0..len(classes) - 1``.
        classes: the classes' names, by label; bytes of a name that are no UTF-8 (a folder from an old archive) are
            escaped, as in ``caf\\xe9``, so that every file and figure can have it.
        indices: ``[N]``, int64; the image's position in the official part, from 0. Keys the augmentation.
        attributes: further labels by name, each ``[N]``, int64. smallNORB has ``category`` 0-4, ``instance`` 0-9,
            ``elevation`` 0-8 (30 to 70 degrees by 5), ``azimuth`` 0, 2, ..., 34 (units of 10 degrees) and
            ``lighting`` 0-5; -1 means unknown.
        origin: where the images came from, and whether the checksums agreed.
        value_names: of attributes whose values are numbers of names, such as ``group``, the names in order.
        keys: ``[N]``, int64, which picture each image is, by its content: equal for copies. Shares and limits are
            drawn by them, so that no image depends on the others. None: by ``indices``, as for published sets.

    Raises:
        ValueError: a shape, dtype or range is not as above.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    indices: Tensor
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    origin: str = ""
    keys: Tensor | None = None
    value_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(map(as_text, self.classes)))
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 of shape [N, C, H, W]; got {self.images.dtype} {list(self.images.shape)}: "
                "convert grey levels to 0..255 and add the channel dimension"
            )
        if self.images.shape[2] != self.images.shape[3]:
            raise ValueError(
                f"images must be square; got {self.images.shape[2]} rows and {self.images.shape[3]} columns: crop them"
            )
        columns = {"labels": self.labels, "indices": self.indices, **self.attributes}
        if self.keys is not None:
            columns["keys"] = self.keys
        for name, values in columns.items():
            if values.shape != (len(self.images),) or values.dtype != torch.int64:
                raise ValueError(
                    f"{name} must be int64 of shape [{len(self.images)}], one for each image; "
                    f"got {values.dtype} {list(values.shape)}"
                )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(
                f"labels must lie in 0..{len(self.classes) - 1}, the positions in classes; "
                f"got {int(self.labels.min())}..{int(self.labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        """Rows, and columns, of an image."""
        return self.images.shape[-1]

    @property
    def num_channels(self) -> int:
        """Channels of an image; 1 for grey, 2 for smallNORB's stereo pair, 3 for colour."""
        return self.images.shape[1]

    @property
    def num_classes(self) -> int:
        """The number of classes, whether or not each has an image here."""
        return len(self.classes)

    def subset(self, positions: Tensor) -> "ImageDataset":
        """The images at some positions, in that order, with their identities.

        Args:
            positions: ``[M]`` int64 positions in this set, or ``[N]`` booleans.

        Returns:
            A set of M images; the pixels are copied, except where the positions are all of them in order.
        """
        if positions.dtype == torch.bool:
            positions = positions.nonzero().flatten()
        if torch.equal(positions, torch.arange(len(self))):
            return self
        return replace(
            self,
            images=self.images[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
            attributes={name: values[positions] for name, values in self.attributes.items()},
            keys=None if self.keys is None else self.keys[positions],
        )
