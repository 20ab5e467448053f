"""A short description of a run's data, so that a later change of the data is noticed."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from matcaps.data.dataset import ImageDataset

VERSION = 1


@dataclass(frozen=True)
class ClassPrint:
    """The images of one class in one part.

    Attributes:
        images: how many.
        digest: 16 hexadecimal digits that follow from their contents, in whatever order.
    """

    images: int
    digest: str


@dataclass(frozen=True)
class Fingerprint:
    """A data set and its division, before limits on the number of images.

    Attributes:
        name: the data set's name.
        classes: the classes' names, by label.
        parts: of each part that there is, and each class, its images.
    """

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Mapping[str, ClassPrint]]

    def to_dict(self) -> dict[str, Any]:
        """The fingerprint as values that JSON can hold."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fingerprint":
        """What :meth:`to_dict` wrote.

        Raises:
            ValueError: it is something else, or of a later version.
        """
        try:
            if values["version"] != VERSION:
                raise ValueError(f"a fingerprint of version {VERSION} is needed; got {values['version']!r}")
            parts = {
                str(part): {str(name): ClassPrint(int(one["images"]), str(one["digest"])) for name, one in own.items()}
                for part, own in values["parts"].items()
            }
            return cls(str(values["name"]), tuple(map(str, values["classes"])), parts)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a fingerprint of data: {error!r}") from error


def fingerprint(parts: Mapping[str, ImageDataset | None]) -> Fingerprint:
    """Take the fingerprint of a divided data set; a thousand images take some milliseconds.

    Args:
        parts: by their names; None where there is no such part.
    """
    present = {name: part for name, part in parts.items() if part is not None}
    first = next(iter(present.values()))
    return Fingerprint(first.name, first.classes, {name: _class_prints(part) for name, part in present.items()})


def _class_prints(part: ImageDataset) -> dict[str, ClassPrint]:
    keys = _content_keys(part) if part.keys is None else part.keys.numpy()
    labels = part.labels.numpy()
    prints = {}
    for label, name in enumerate(part.classes):
        own = np.sort(keys[labels == label]).astype("<i8")
        prints[name] = ClassPrint(len(own), hashlib.blake2b(own.tobytes(), digest_size=8).hexdigest())
    return prints


def _content_keys(part: ImageDataset) -> np.ndarray:
    """Hashes of the stored pixels, for images without keys."""
    images = part.images.contiguous().numpy()
    digests = b"".join(hashlib.blake2b(image, digest_size=8).digest() for image in images)
    return np.frombuffer(digests, dtype="<i8")


def changes(before: Fingerprint, now: Fingerprint) -> str:
    """Describe what has changed, with counts; empty if nothing has."""
    if before.name != now.name:
        return f"the data set was {before.name} and is {now.name}"
    if before.classes != now.classes:
        return f"the classes were {_listed(before.classes)} and are {_listed(now.classes)}"
    lines = []
    for part in dict.fromkeys([*before.parts, *now.parts]):
        was, is_now = before.parts.get(part, {}), now.parts.get(part, {})
        if was == is_now:
            continue
        counts = [sum(one.images for one in side.values()) for side in (was, is_now)]
        different = [name for name in now.classes if was.get(name) != is_now.get(name)]
        numbers = f"{counts[0]:,} images then, {counts[1]:,} now"
        lines.append(f"{part}: {numbers}, other ones in {_listed(different)}")
    return "; ".join(lines)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
