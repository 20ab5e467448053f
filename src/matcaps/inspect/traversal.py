"""What the components of a class capsule's pose mean: the reconstruction as each is changed."""

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
from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display, NothingToShowError
from matcaps.inspect.inspection import Inspection
from matcaps.inspect.style import COLOURS, GREY, new_figure, show_picture, to_picture
from matcaps.models import EMCapsNet, PoseDecoder
from matcaps.models.modes import device_of

if TYPE_CHECKING:
    from matcaps.inspect.opening import SavedInspection


RANGE = (0.02, 0.98)
"""A component's range: between these two quantiles of its values on images of the class."""


@dataclass(frozen=True, eq=False)
class PoseTraversal:
    """Reconstructions of one image as each component of its class's pose is changed while the others stay.

    Attributes:
        label: the class whose pose is changed.
        image: ``[C, H, W]``, the network's input.
        reconstruction: ``[C, H, W]``, from the pose as it is.
        pose: ``[16]``, the pose as it is.
        values: ``[16, S]``, the values of each component, evenly over its range.
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
        network: on any device; the results are on the CPU.
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
    """Change each of the 16 components of a class's pose through its range in data, and decode.

    Args:
        network: on any device; the results are on the CPU.
        decoder: trained on the network's poses; on the same device.
        image: ``[1, C, H, W]``, prepared as the network takes it.
        label: the class whose pose is changed; for an image without a label, the predicted one.
        seen: ``[N, 16]``, poses of that class on images of it; their 2nd and 98th percentiles are the range.
        num_steps: values of each component, S.

    Raises:
        ValueError: ``seen`` is empty or misshapen, or the decoder does not fit.
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
    """Reconstructions as the pose's components are changed."""

    numbers: PoseTraversal
    title: str
    caption: ClassVar[str] = (
        "What the decoder draws as each of the 16 numbers of the class's pose goes through its range "
        "on real images, while the others stay."
    )

    @classmethod
    def from_poses(cls, inspection: Inspection, decoder: PoseDecoder, label: int, seen: Tensor) -> "PosesDisplay":
        """Change the pose of a class through the range of ``seen``, ``[N, 16]``; see :func:`pose_traversal`."""
        traversal = pose_traversal(inspection.network, decoder, inspection.image, label, seen)
        name = inspection.classes[label]
        return cls(
            traversal,
            f"{inspection.title}\nreconstruction as each component of {name}'s pose goes through its range on images "
            f"of {name} (▾: its value here; Δ: root mean square change of a pixel)",
        )

    @classmethod
    def from_inspection(cls, inspection: "SavedInspection") -> "PosesDisplay":
        """Change the pose of the class that is predicted for the inspected image.

        Raises:
            NothingToShowError: there is no decoder, or no image of the class.
        """
        if inspection.decoder is None:
            raise NothingToShowError(
                f"left out, because there is no decoder ({inspection.decoder_path}): add --train_decoder"
            )
        if inspection.measured is None:
            raise NothingToShowError("left out, because the pose's range must be measured on images: set --num_images")
        label, labels = inspection.predicted, inspection.measured.labels
        if not bool((labels == label).any()):
            raise NothingToShowError(
                f"left out: none of the images shows {inspection.classes[label]}; raise --num_images"
            )
        assert inspection.poses is not None
        decoder = inspection.decoder.to(device_of(inspection.network))
        return cls.from_poses(inspection, decoder, label, inspection.poses[labels == label, label].flatten(1))

    def plot(self) -> Figure:
        """Draw the reconstruction as each component of the pose goes through its range, eight in each half."""
        traversal, title = self.numbers, self.title
        components, steps = traversal.values.shape
        side = traversal.image.shape[-1]
        figure = new_figure(width=11.5, height=9.6)
        # a row for the image and its reconstruction above eight rows of two components each
        grid = figure.add_gridspec(9, 12, height_ratios=[1.35] + [1] * 8)
        for column, (picture, name) in enumerate(
            ((traversal.image, "input"), (traversal.reconstruction, "reconstruction"))
        ):
            axes = figure.add_subplot(grid[0, 4 + 2 * column : 6 + 2 * column])
            show_picture(axes, to_picture(picture, reference=traversal.image))
            axes.set_title(name, fontsize=8)
        for component in range(components):
            row, half = component % 8 + 1, component // 8
            axes = figure.add_subplot(grid[row, 6 * half : 6 * half + 6])
            frames = [to_picture(frame, reference=traversal.image) for frame in traversal.reconstructions[component]]
            axes.imshow(np.concatenate(frames, axis=1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            low, high = float(traversal.values[component, 0]), float(traversal.values[component, -1])
            centre = (side - 1) / 2
            axes.set_xticks([centre, (steps - 1) * side + centre], [f"{low:.2f}", f"{high:.2f}"], fontsize=7)
            axes.set_yticks([])
            axes.tick_params(length=2, pad=1)
            axes.set_ylabel(
                f"row {component // 4 + 1}, col {component % 4 + 1}\nΔ {float(traversal.effect[component]):.2f}",
                fontsize=7, rotation=0, ha="right", va="center",
            )  # fmt: skip
            for step in range(1, steps):
                axes.axvline(step * side - 0.5, color=GREY, linewidth=0.8)
            place = (float(traversal.pose[component]) - low) / max(high - low, 1e-12)
            if -0.02 <= place <= 1.02:  # the image's own value is within the range
                axes.plot(centre + place * (steps - 1) * side, -0.5, "v", color=COLOURS[1], markersize=5, clip_on=False)
        figure.suptitle(title, fontsize=10)
        return figure
