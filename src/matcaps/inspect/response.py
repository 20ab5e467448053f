"""How the pose changes with known shifts and rotations of the image."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from matcaps.data import ImageDataset, Transform, make_loader, rotate_images, shift_images
from matcaps.data.splits import limit_images
from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display
from matcaps.inspect.inspection import centre_crop
from matcaps.inspect.probe import linear_probe
from matcaps.inspect.style import new_figure
from matcaps.inspect.traversal import true_poses
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of

if TYPE_CHECKING:
    from matcaps.inspect.opening import SavedInspection


DISTORTIONS: dict[str, tuple[int, ...]] = {
    "shift right, pixels": (-4, -3, -2, -1, 0, 1, 2, 3, 4),
    "shift down, pixels": (-4, -3, -2, -1, 0, 1, 2, 3, 4),
    "rotation, degrees": (-40, -30, -20, -10, 0, 10, 20, 30, 40),
}
"""The distortions of images, and their amounts; rotation is counter-clockwise."""


@dataclass(frozen=True, eq=False)
class PoseResponse:
    """How the true class's pose moves as images are shifted and rotated by known amounts.

    Attributes:
        label: the class whose poses ``change`` follows.
        amounts: by the distortion's name, ``[A]``.
        change: by the distortion's name, ``[A, 16]``: mean over that class's images of the component's change from the
            undistorted image, in standard deviations of the component over undistorted images of the class.
        r_squared: by the distortion's name: R² of the amount, from a linear probe of the pose, one for each class, on
            images that the probe was not fitted on, over all classes.
        num_images: undistorted images, all classes together.
    """

    label: int
    amounts: "OrderedDict[str, Tensor]"
    change: "OrderedDict[str, Tensor]"
    r_squared: "OrderedDict[str, float]"
    num_images: int


@inspects
def pose_response(
    network: EMCapsNet,
    dataset: ImageDataset,
    transform: Transform,
    label: int,
    *,
    num_images: int = 200,
    batch_size: int = 100,
) -> PoseResponse:
    """Shift and rotate images by known amounts, and measure how the true class's pose changes.

    Args:
        network: on any device; the results are on the CPU.
        dataset: images and labels, such as MNIST's; shifted images are filled with black.
        transform: how they become the network's input.
        label: the class to follow component by component.
        num_images: how many to take, evenly over the classes.
        batch_size: images at a time.

    Raises:
        ValueError: a class has fewer than four images among them.
    """
    dataset = limit_images(dataset, num_images, 0)
    counts = torch.bincount(dataset.labels, minlength=dataset.num_classes)
    if int(counts.min()) < 4:
        raise ValueError(
            f"num_images must leave each class at least 4; class {dataset.classes[int(counts.argmin())]!r} "
            f"has {int(counts.min())} of {len(dataset)}: take more images"
        )

    def poses_of(images: Tensor) -> Tensor:
        moved = replace(dataset, images=images)
        device = device_of(network)
        loader = make_loader(moved, transform, train=False, batch_size=batch_size, device=device)
        return true_poses(network, loader)[0]

    amounts, change, r_squared = OrderedDict(), OrderedDict(), OrderedDict()
    plain = poses_of(dataset.images)
    own = dataset.labels == label
    deviation = plain[own].std(0).clamp_min(1e-12)
    for name, steps in DISTORTIONS.items():
        poses_ANP = torch.stack([plain if step == 0 else poses_of(_distort(dataset, name, step)) for step in steps])
        amounts[name] = torch.tensor(steps, dtype=torch.float64)
        change[name] = ((poses_ANP[:, own] - plain[own]) / deviation).mean(1)
        r_squared[name] = _known_amount(poses_ANP, amounts[name], dataset.labels, dataset.num_classes)
    return PoseResponse(label, amounts, change, r_squared, len(dataset))


def _distort(dataset: ImageDataset, name: str, amount: int) -> Tensor:
    if name.startswith("rotation"):
        return rotate_images(dataset.images, amount)
    return shift_images(dataset.images, *((amount, 0) if "down" in name else (0, amount)))


def _known_amount(poses_ANP: Tensor, amounts: Tensor, labels: Tensor, num_classes: int) -> float:
    """R² of the amount from a class's poses: fitted on every second image with all its amounts, tested on the rest."""
    error = deviation = 0.0
    for label in range(num_classes):
        own = poses_ANP[:, labels == label]
        targets = amounts[:, None].expand(own.shape[:2])
        groups = torch.arange(own.shape[1]).expand(own.shape[:2])
        parts = [(own[:, start::2].flatten(0, 1), targets[:, start::2].reshape(-1, 1)) for start in (0, 1)]
        probe = linear_probe(*parts[0], *parts[1], groups=groups[:, 0::2].flatten() % 10)
        error += float(probe.squared_error)
        deviation += float(probe.squared_deviation)
    return 1 - error / deviation


@dataclass(frozen=True, eq=False)
class ResponseDisplay(Display):
    """How the pose's components change with known shifts and rotations."""

    numbers: PoseResponse
    title: str
    caption: ClassVar[str] = (
        "What the pose encodes of the viewpoint: how well a linear probe reads the viewpoint, or known shifts and "
        "rotations, from it. For azimuths the probe means little."
    )

    @classmethod
    def from_inspection(cls, inspection: "SavedInspection", dataset: ImageDataset) -> "ResponseDisplay":
        """Distort images of the set, at most 20 per class, and follow the class of the inspected image."""
        count = min(len(dataset), 20 * len(inspection.classes))
        transform = centre_crop(inspection.saved.transform)
        response = pose_response(inspection.network, dataset, transform, inspection.label, num_images=count)
        name = inspection.classes[inspection.label]
        return cls(response, f"{dataset.name}: how the pose of {name} changes with known shifts and rotations")

    @property
    def sentences(self) -> dict[str, str]:
        response = self.numbers
        listed = ", ".join(f"{what} R² {value:.2f}" for what, value in response.r_squared.items())
        return {"viewpoint": f"from the true class's pose, on {response.num_images} images: {listed}"}

    def plot(self) -> Figure:
        """Draw how the pose's components change with each distortion, one panel each."""
        response, title = self.numbers, self.title
        figure = new_figure(len(response.amounts), width=3.6, height=4.2)
        panels = figure.subplots(1, len(response.amounts), sharey=True)
        largest = max(float(change.abs().max()) for change in response.change.values())
        heat = None
        for axes, (name, amounts) in zip(panels, response.amounts.items(), strict=True):
            heat = axes.imshow(
                response.change[name].T.numpy(),
                cmap="PuOr",
                vmin=-largest,
                vmax=largest,
                aspect="auto",
                interpolation="nearest",
            )
            axes.set_xticks(range(len(amounts)), [f"{amount:g}" for amount in amounts], fontsize=7)
            axes.set_xlabel(name, fontsize=8)
            axes.set_title(f"R² of the amount from the pose: {response.r_squared[name]:.2f}", fontsize=8)
        _component_ticks(panels[0])
        bar = figure.colorbar(heat, ax=panels, shrink=0.8)  # type: ignore[arg-type]
        bar.set_label("mean change, standard deviations of the component", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        figure.suptitle(title, fontsize=9)
        return figure


def _component_ticks(axes: Axes) -> None:
    axes.set_yticks(range(16), [f"{place // 4 + 1}, {place % 4 + 1}" for place in range(16)], fontsize=7)
    axes.set_ylabel("component of the pose: row, column", fontsize=8)
