"""What the components of a class capsule's pose stand for: the reconstruction as each is moved."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS
from matcaps.data import ImageDataset, Transform
from matcaps.data.devices import send
from matcaps.data.loader import Batch
from matcaps.inspect.display import Display, NothingToShowError
from matcaps.inspect.door import inspects
from matcaps.inspect.style import COLOURS, GREY, new_figure, show_picture, to_picture
from matcaps.inspect.subject import Subject
from matcaps.models import EMCapsNet, PoseDecoder
from matcaps.models.modes import device_of

if TYPE_CHECKING:
    from matcaps.inspect.opening import SavedSubject


RANGE = (0.02, 0.98)
"""A component's range: from this quantile to that of what it is on images of the class."""


@dataclass(frozen=True, eq=False)
class PoseTraversal:
    """Reconstructions of one image as each component of its class's pose is moved, the others kept.

    Attributes:
        label: the class whose pose is moved.
        image: ``[C, H, W]``, what the network saw.
        reconstruction: ``[C, H, W]``, from the pose as it is.
        pose: ``[16]``, the pose as it is.
        values: ``[16, S]``, what each component is set to: evenly over its range.
        reconstructions: ``[16, S, C, H, W]``.
        effect: ``[16]``, root mean square change of a pixel between the two ends of the component's range, in units
            of the network's input.
    """

    label: int
    image: Tensor
    reconstruction: Tensor
    pose: Tensor
    values: Tensor
    reconstructions: Tensor
    effect: Tensor


@inspects
def true_poses(network: EMCapsNet, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return the true classes' poses, ``[N, 16]``, and the labels, ``[N]``.

    Args:
        network: on any device; what is found comes to the host.
        batches: labelled images; see :func:`matcaps.data.make_loader`.

    Raises:
        ValueError: there are no images.
    """
    poses, labels = [], []
    for batch in batches:
        every_class = network(send(batch.images, device_of(network))).poses.flatten(2).cpu()
        of_batch = batch.labels.cpu()
        poses.append(every_class[torch.arange(len(of_batch)), of_batch])
        labels.append(of_batch)
    if not poses:
        raise ValueError("batches must hold at least one image; got none")
    return torch.cat(poses), torch.cat(labels)


@torch.no_grad()
def class_poses(network: EMCapsNet, dataset: ImageDataset, transform: Transform, batch_size: int = 200) -> Tensor:
    """All class capsules' poses of a data set's images, as in evaluation: ``[N, classes, 4, 4]``, on the host."""
    device = device_of(network)
    batches = (send(images, device) for images in dataset.images.split(batch_size))
    return torch.cat([network(transform.evaluate(images)).poses for images in batches]).cpu()


@torch.no_grad()
def explained_variance(decoder: PoseDecoder, poses: Tensor, dataset: ImageDataset, transform: Transform) -> float:
    """Share of the images' variance about their mean image that the reconstructions explain."""
    parts = list(torch.arange(len(dataset)).split(500))
    shape = decoder.image_shape
    total, error, squares = torch.zeros(shape, dtype=torch.float64), 0.0, 0.0
    for part in parts:
        images = transform.evaluate(dataset.images[part]).double()
        total += images.sum(0)
        squares += float((images**2).sum())
        error += float(((decoder(poses[part], dataset.labels[part]).double() - images) ** 2).sum())
    deviation = squares - float((total**2).sum()) / len(dataset)
    return 1 - error / deviation if deviation > 0 else float("nan")


@inspects
def pose_traversal(
    network: EMCapsNet,
    decoder: PoseDecoder,
    image: Tensor,
    label: int,
    seen: Tensor,
    *,
    num_steps: int = 7,
) -> PoseTraversal:
    """Move each of the 16 components of a class's pose through the range that it has in data, and decode.

    Args:
        network: on any device; what is found comes to the host.
        decoder: trained on the network's poses; on the same device.
        image: ``[1, C, H, W]``, prepared as the network takes it.
        label: the class whose pose is moved, the predicted one for an image without a label.
        seen: ``[N, 16]``, poses of that class on images that show it: their 2nd and 98th percentile are the range.
        num_steps: values of each component, S.

    Raises:
        ValueError: no poses were seen, or the decoder does not fit.
    """
    if seen.ndim != 2 or seen.shape[1] != POSE_COMPONENTS or not len(seen):
        raise ValueError(f"seen must have shape [N, {POSE_COMPONENTS}] with N at least 1; got {list(seen.shape)}")
    poses, device = network(image).poses, device_of(network)
    own = poses[0, label].flatten()
    low, high = seen.quantile(seen.new_tensor(RANGE), dim=0)
    values = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, num_steps, device=device)
    moved = own.repeat(POSE_COMPONENTS, num_steps, 1)
    components = torch.arange(POSE_COMPONENTS, device=device)
    moved[components, :, components] = values
    every_class = poses.flatten(2).repeat(POSE_COMPONENTS * num_steps, 1, 1)
    every_class[:, label] = moved.flatten(0, 1)
    classes = torch.full((len(every_class),), label, device=device)
    decoded = decoder(every_class.view(-1, *poses.shape[1:]), classes).unflatten(0, (POSE_COMPONENTS, num_steps))
    return PoseTraversal(
        label=label,
        image=image[0],
        reconstruction=decoder(poses, classes[:1])[0],
        pose=own,
        values=values,
        reconstructions=decoded,
        effect=((decoded[:, -1] - decoded[:, 0]) ** 2).flatten(1).mean(1).sqrt(),
    )


@dataclass(frozen=True, eq=False)
class PosesDisplay(Display):
    """Reconstructions as the pose's components are moved."""

    numbers: PoseTraversal
    title: str
    caption: ClassVar[str] = (
        "What the decoder draws as each of the 16 numbers of the class's pose goes through the range that it has "
        "on real images, the others kept."
    )

    @classmethod
    def from_poses(cls, subject: Subject, decoder: PoseDecoder, label: int, seen: Tensor) -> "PosesDisplay":
        """Move the pose of a class through the range of ``seen``, ``[N, 16]``; see :func:`pose_traversal`."""
        found = pose_traversal(subject.network, decoder, subject.image, label, seen)
        name = subject.classes[label]
        return cls(
            found,
            f"{subject.title}\nreconstruction as each component of {name}'s pose goes through its range on images of "
            f"{name} (▾: its value here; Δ: root mean square change of a pixel)",
        )

    @classmethod
    def from_subject(cls, subject: "SavedSubject") -> "PosesDisplay":
        """Of the class that the subject's image is taken for.

        Raises:
            NothingToShowError: there is no decoder, or no image of the class.
        """
        if subject.decoder is None:
            raise NothingToShowError(f"left out, for want of a decoder ({subject.decoder_path}): add --train_decoder")
        if subject.measured is None:
            raise NothingToShowError("left out, for want of images that show the range of the pose: set --num_images")
        label, labels = subject.predicted, subject.measured.labels
        if not bool((labels == label).any()):
            raise NothingToShowError(f"left out: none of the images shows {subject.classes[label]}; raise --num_images")
        assert subject.poses is not None
        decoder = subject.decoder.to(device_of(subject.network))
        return cls.from_poses(subject, decoder, label, subject.poses[labels == label, label].flatten(1))

    def plot(self) -> Figure:
        """The reconstruction as each component of the pose goes through its range: eight components in each half."""
        found, title = self.numbers, self.title
        components, steps = found.values.shape
        side = found.image.shape[-1]
        figure = new_figure(width=11.5, height=9.6)
        # a row for the image and its reconstruction above eight rows of two components each
        grid = figure.add_gridspec(9, 12, height_ratios=[1.35] + [1] * 8)
        for column, (picture, name) in enumerate(((found.image, "input"), (found.reconstruction, "reconstruction"))):
            axes = figure.add_subplot(grid[0, 4 + 2 * column : 6 + 2 * column])
            show_picture(axes, to_picture(picture, reference=found.image))
            axes.set_title(name, fontsize=8)
        for component in range(components):
            row, half = component % 8 + 1, component // 8
            axes = figure.add_subplot(grid[row, 6 * half : 6 * half + 6])
            frames = [to_picture(frame, reference=found.image) for frame in found.reconstructions[component]]
            axes.imshow(np.concatenate(frames, axis=1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            low, high = float(found.values[component, 0]), float(found.values[component, -1])
            centre = (side - 1) / 2
            axes.set_xticks([centre, (steps - 1) * side + centre], [f"{low:.2f}", f"{high:.2f}"], fontsize=7)
            axes.set_yticks([])
            axes.tick_params(length=2, pad=1)
            axes.set_ylabel(
                f"row {component // 4 + 1}, col {component % 4 + 1}\nΔ {float(found.effect[component]):.2f}",
                fontsize=7, rotation=0, ha="right", va="center",
            )  # fmt: skip
            for step in range(1, steps):
                axes.axvline(step * side - 0.5, color=GREY, linewidth=0.8)
            place = (float(found.pose[component]) - low) / max(high - low, 1e-12)
            if -0.02 <= place <= 1.02:  # where the image's own value lies
                axes.plot(centre + place * (steps - 1) * side, -0.5, "v", color=COLOURS[1], markersize=5, clip_on=False)
        figure.suptitle(title, fontsize=10)
        return figure
