"""Does the pose know the viewpoint? Linear probes to smallNORB's labels, and responses to known distortions."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS
from matcaps.data import ImageDataset, Transform, make_loader, rotate_images, shift_images
from matcaps.data.devices import send
from matcaps.data.splits import limit_images
from matcaps.inspection.door import inspects
from matcaps.inspection.probe import linear_probe, principal_components
from matcaps.inspection.traversal import true_poses
from matcaps.models import BaselineCNN, EMCapsNet
from matcaps.models.modes import device_of

TARGETS = ("elevation", "azimuth, sine", "azimuth, cosine", "lighting")

DISTORTIONS: dict[str, tuple[int, ...]] = {
    "shift right, pixels": (-4, -3, -2, -1, 0, 1, 2, 3, 4),
    "shift down, pixels": (-4, -3, -2, -1, 0, 1, 2, 3, 4),
    "rotation, degrees": (-40, -30, -20, -10, 0, 10, 20, 30, 40),
}
"""What is done to images, and by how much; rotation is counter-clockwise."""


@dataclass(frozen=True, eq=False)
class ViewpointProbe:
    """What linear probes of several kinds of features know of viewpoint and lighting.

    Attributes:
        features: what was probed, by name.
        targets: :data:`TARGETS`.
        r_squared: ``[features, targets]``, on objects that the probe was not fitted on, over all classes.
        r_squared_by_class: ``[features, classes, targets]``.
        lighting_accuracy: ``[features]``, share of test images whose largest predicted lighting is the true one.
        fit_instances: objects that the probes were fitted on.
        test_instances: objects that they were judged on.
        num_fit: images fitted on, all classes together.
        num_test: images judged on.
    """

    features: tuple[str, ...]
    targets: tuple[str, ...]
    r_squared: Tensor
    r_squared_by_class: Tensor
    lighting_accuracy: Tensor
    fit_instances: tuple[int, ...]
    test_instances: tuple[int, ...]
    num_fit: int
    num_test: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "r_squared": {
                name: {
                    **dict(zip(self.targets, row.tolist(), strict=True)),
                    "lighting accuracy": float(accuracy),
                    "by class": by_class.tolist(),
                }
                for name, row, accuracy, by_class in zip(
                    self.features, self.r_squared, self.lighting_accuracy, self.r_squared_by_class, strict=True
                )
            },
            "targets": list(self.targets),
            "fit_instances": list(self.fit_instances),
            "test_instances": list(self.test_instances),
            "num_fit": self.num_fit,
            "num_test": self.num_test,
        }


@dataclass(frozen=True, eq=False)
class PoseResponse:
    """How the true class's pose moves as images are shifted and rotated by known amounts.

    Attributes:
        label: the class whose poses ``change`` follows.
        amounts: by the distortion's name, ``[A]``.
        change: by the distortion's name, ``[A, 16]``: mean over that class's images of the component's change from the
            undistorted image, in standard deviations of the component over undistorted images of the class.
        r_squared: by the distortion's name: of the amount, from a linear probe of the pose, one for each class, on
            images that the probe was not fitted on, over all classes.
        num_images: undistorted images, all classes together.
    """

    label: int
    amounts: "OrderedDict[str, Tensor]"
    change: "OrderedDict[str, Tensor]"
    r_squared: "OrderedDict[str, float]"
    num_images: int


@inspects
def penultimate_features(network: BaselineCNN, batches: Any) -> Tensor:
    """What the CNN's last layer reads, ``[N, hidden_units]``, of batches of images."""
    device = device_of(network)
    found = [network.classifier[:-1](network.features(send(batch.images, device))) for batch in batches]
    return torch.cat(found)


def has_viewpoints(dataset: ImageDataset) -> bool:
    """Whether images have the labels that :func:`viewpoint_probe` needs, all known."""
    names = ("instance", "elevation", "azimuth", "lighting")
    return all(name in dataset.attributes and bool((dataset.attributes[name] >= 0).all()) for name in names)


def viewpoint_probe(
    features: Mapping[str, Tensor],
    dataset: ImageDataset,
    *,
    fit_instances: Sequence[int] = (0, 1, 2),
    test_instances: Sequence[int] = (3, 5),
    widths: Mapping[str, int] | None = None,
) -> ViewpointProbe:
    """Probe features for elevation, azimuth and lighting, on objects held out.

    One linear probe a class, for every class capsule has its own frame of reference. Elevation is in degrees, azimuth
    by its sine and cosine, which says next to nothing of any features: toys are not counted from the same side, and a
    linear function hardly tells front from back. Lighting has no order, so it is six targets of 0 or 1, whose R² is
    given together. Features wider than a pose are brought to its 16 numbers by the principal components of the
    class's fit part.

    Args:
        features: by name, ``[N, F]``, a row an image of the data set.
        dataset: smallNORB, with the attributes ``instance``, ``elevation``, ``azimuth`` and ``lighting``.
        fit_instances: objects to fit on; the default is of the published test part, unseen by a network that was
            trained on the training part.
        test_instances: objects to judge on.
        widths: by name, another width to bring features to.

    Raises:
        ValueError: the labels are missing, the rows do not fit, or a class has too few images.
    """
    if not has_viewpoints(dataset):
        raise ValueError(
            f"dataset must have known instance, elevation, azimuth and lighting; {dataset.name}'s {dataset.split} "
            "part has not: use smallNORB's test part"
        )
    for name, values in features.items():
        if values.ndim != 2 or len(values) != len(dataset):
            raise ValueError(f"features {name!r} must have shape [{len(dataset)}, F]; got {list(values.shape)}")
    targets = _viewpoint_targets(dataset)
    instance = dataset.attributes["instance"]
    fit, test = (torch.isin(instance, torch.tensor(which)) for which in (fit_instances, test_instances))
    errors = torch.zeros(len(features), dataset.num_classes, len(TARGETS), dtype=torch.float64)
    deviations, right = torch.zeros_like(errors), torch.zeros(len(features), dtype=torch.float64)
    for row, (name, values) in enumerate(features.items()):
        width = (widths or {}).get(name, POSE_COMPONENTS)
        for label in range(dataset.num_classes):
            own_fit, own_test = fit & (dataset.labels == label), test & (dataset.labels == label)
            if min(int(own_fit.sum()), int(own_test.sum())) < 2:
                raise ValueError(
                    f"class {dataset.classes[label]!r} must have images of instances {list(fit_instances)} and "
                    f"{list(test_instances)}; got {int(own_fit.sum())} and {int(own_test.sum())}: take more images, or "
                    f"others of the instances that are there, {instance.unique().tolist()}"
                )
            fit_values, test_values = principal_components(values[own_fit], values[own_test], width)
            probe = linear_probe(fit_values, targets[own_fit], test_values, targets[own_test], groups=instance[own_fit])
            errors[row, label] = _join_lightings(probe.squared_error)
            deviations[row, label] = _join_lightings(probe.squared_deviation)
            right[row] += (probe.predictions[:, 3:].argmax(1) == dataset.attributes["lighting"][own_test]).sum()
    return ViewpointProbe(
        features=tuple(features),
        targets=TARGETS,
        r_squared=1 - errors.sum(1) / deviations.sum(1),
        r_squared_by_class=1 - errors / deviations,
        lighting_accuracy=right / int(test.sum()),
        fit_instances=tuple(fit_instances),
        test_instances=tuple(test_instances),
        num_fit=int(fit.sum()),
        num_test=int(test.sum()),
    )


def _join_lightings(values: Tensor) -> Tensor:
    """One number for the six lightings: ``[9]`` to ``[4]``."""
    return torch.cat([values[:3], values[3:].sum(0, keepdim=True)])


def _viewpoint_targets(dataset: ImageDataset) -> Tensor:
    """Elevation in degrees, sine and cosine of the azimuth, six lightings: ``[N, 9]``."""
    elevation = 30.0 + 5.0 * dataset.attributes["elevation"]
    azimuth = torch.deg2rad(10.0 * dataset.attributes["azimuth"])
    lighting = torch.nn.functional.one_hot(dataset.attributes["lighting"], 6)
    return torch.cat([torch.stack([elevation, azimuth.sin(), azimuth.cos()], 1), lighting], 1).double()


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
    """Shift and rotate images by known amounts, and see what the true class's pose makes of it.

    Args:
        network: on any device; what is found comes to the host.
        dataset: images and labels, such as MNIST's; black comes in from outside.
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
    """R² of the amount from a class's poses: fitted on every other image with all its amounts, judged on the rest."""
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
