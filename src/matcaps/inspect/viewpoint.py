"""Does the pose encode the viewpoint? Linear probes for smallNORB's labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS
from matcaps.data import ImageDataset
from matcaps.data.devices import send
from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display, NothingToShowError
from matcaps.inspect.probe import linear_probe, principal_components
from matcaps.inspect.response import ResponseDisplay
from matcaps.inspect.style import COLOURS, new_figure
from matcaps.inspect.traversal import true_poses
from matcaps.inspect.turn import TurnProbe, turn_probe
from matcaps.models import BaselineCNN
from matcaps.models.modes import device_of

if TYPE_CHECKING:
    from matcaps.inspect.opening import SavedInspection


TARGETS = ("elevation", "azimuth, sine", "azimuth, cosine", "lighting")


@dataclass(frozen=True, eq=False)
class ViewpointProbe:
    """How well linear probes predict viewpoint and lighting from several kinds of features.

    Attributes:
        features: the names of the features.
        targets: :data:`TARGETS`.
        r_squared: ``[features, targets]``, R² on objects that the probe was not fitted on, over all classes.
        r_squared_by_class: ``[features, classes, targets]``.
        lighting_accuracy: ``[features]``, share of test images whose largest predicted lighting is the true one.
        fit_instances: the objects that the probes were fitted on.
        test_instances: the objects that they were tested on.
        num_fit: number of images fitted on, all classes together.
        num_test: number of images tested on.
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
        """All values in a form that JSON can hold."""
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


@inspects
def penultimate_features(network: BaselineCNN, batches: Any) -> Tensor:
    """The input of the CNN's last layer, ``[N, hidden_units]``, for batches of images."""
    device = device_of(network)
    features = [network.classifier[:-1](network.features(send(batch.images, device))) for batch in batches]
    return torch.cat(features)


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
    """Probe features for elevation, azimuth and lighting, on held-out objects.

    Each class has its own linear probe, because every class capsule has its own frame of reference. Elevation is in
    degrees. Azimuth is given by its sine and cosine, and its R² means little for any features: the toys' azimuths do
    not start from the same side, and a linear function hardly separates front from back. Lighting has no order, so it
    is six targets of 0 or 1 with one common R². Features wider than a pose are reduced to 16 numbers by the principal
    components of the class's fit part.

    Args:
        features: by name, ``[N, F]``, one row for each image of the data set.
        dataset: smallNORB, with the attributes ``instance``, ``elevation``, ``azimuth`` and ``lighting``.
        fit_instances: objects to fit on; the default is of the published test part, unseen by a network that was
            trained on the training part.
        test_instances: objects to test on.
        widths: by name, another width to reduce features to.

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


@dataclass(frozen=True, eq=False)
class ViewpointDisplay(Display):
    """How well linear probes read the viewpoint from the pose, and from other features."""

    probe: ViewpointProbe
    title: str
    has_cnn: bool
    turn: TurnProbe | None = None
    caption: ClassVar[str] = (
        "What the pose encodes of the viewpoint: how well a linear probe reads the viewpoint, or known shifts and "
        "rotations, from it. For azimuths the probe means little."
    )
    as_json: ClassVar[bool] = True

    @classmethod
    def from_inspection(cls, inspection: "SavedInspection") -> Display | None:
        """Probe where viewpoints are known, else distort the images; None without a set.

        Raises:
            NothingToShowError: a class has too few images, labels are unknown, or the probe's objects are missing.
        """
        dataset = inspection.measured
        if dataset is None:
            return None
        try:
            if has_viewpoints(dataset):
                return cls._probe(inspection, dataset)
            if "elevation" in dataset.attributes:
                raise ValueError(f"labels of the {inspection.settings.part} part are not all known; use the test part")
            return ResponseDisplay.from_inspection(inspection, dataset)
        except ValueError as error:
            raise NothingToShowError(f"left out: {error}") from None

    @classmethod
    def _probe(cls, inspection: "SavedInspection", dataset: ImageDataset) -> "ViewpointDisplay":
        features = {"pose": true_poses(inspection.network, inspection.loader(dataset))[0]}
        # before the CNN, which may be missing, so that each kind of features keeps its colour
        pixels = [batch.images.flatten(1).cpu() for batch in inspection.loader(dataset)]
        features["pixels, 16 components"] = torch.cat(pixels)
        widths: dict[str, int] = {}
        if inspection.cnn is not None:
            cnn: BaselineCNN = inspection.cnn.network  # type: ignore[assignment]
            penultimate = penultimate_features(cnn, inspection.loader(dataset, inspection.cnn))
            whole = f"CNN, all {penultimate.shape[1]}"
            features |= {"CNN, 16 components": penultimate, whole: penultimate}
            widths[whole] = penultimate.shape[1]
        result = viewpoint_probe(features, dataset, widths=widths)
        narrow = {name: values for name, values in features.items() if name not in widths}
        try:
            turn = turn_probe(narrow, dataset)
        except ValueError:  # of some images alone too few are 20° apart
            turn = None
        return cls(result, "What a linear probe reads", inspection.cnn is not None, turn)

    @property
    def numbers(self) -> dict[str, Any]:
        return {**self.probe.to_dict(), **({} if self.turn is None else {"turn": self.turn.to_dict()})}

    @property
    def sentences(self) -> dict[str, str]:
        sentences = {}
        for name, values, lighting in zip(
            self.probe.features, self.probe.r_squared.tolist(), self.probe.lighting_accuracy.tolist(), strict=True
        ):
            pairs = zip(self.probe.targets, values, strict=True)
            listed = ", ".join(f"{target} {value:.2f}" for target, value in pairs)
            sentences[f"R² of {name}"] = f"{listed}; lighting right in {100 * lighting:.0f} % (chance 17 %)"
        sentences["azimuth"] = (
            "near 0 for any features: the toys' azimuths do not start from the same side, and front and back look "
            "alike to a linear probe; conclude nothing from it"
        )
        if self.turn is not None:
            shares = []
            for name, linear, left in zip(
                self.turn.features, self.turn.linear.tolist(), self.turn.left.tolist(), strict=True
            ):
                by_matrix = "" if left != left else f" (one 4×4 matrix from the left: {100 * left:.0f} %)"
                shares.append(f"{name} {100 * linear:.0f} %{by_matrix}")
            sentences["a turn of 20°, share of the change that one linear map a toy foretells"] = ", ".join(shares)
        if not self.has_cnn:
            sentences["CNN"] = "left out: name a CNN's run with --cnn to compare"
        return sentences

    def plot(self) -> Figure:
        """Draw R² of each target for each kind of features, on held-out objects."""
        probe, title = self.probe, self.title
        figure = new_figure(width=7.5, height=3.6)
        axes = figure.subplots()
        places = np.arange(len(probe.targets))
        width = 0.8 / len(probe.features)
        values = probe.r_squared.numpy()
        lowest = -0.25
        for row, name in enumerate(probe.features):
            left = places + (row - (len(probe.features) - 1) / 2) * width
            bars = axes.bar(left, np.maximum(values[row], lowest), 0.92 * width, color=COLOURS[row], label=name)
            for bar, value in zip(bars, values[row], strict=True):
                axes.text(
                    bar.get_x() + bar.get_width() / 2, max(value, 0) + 0.015, f"{value:.2f}",
                    ha="center", va="bottom", fontsize=7,
                )  # fmt: skip
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(places, probe.targets)
        axes.set_ylim(min(0.0, max(lowest, float(values.min()) - 0.05)), 1.05)
        axes.set_ylabel("R² on held-out objects")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize=8, loc="upper right", ncols=2)
        fitted, tested = (", ".join(map(str, which)) for which in (probe.fit_instances, probe.test_instances))
        figure.suptitle(
            f"{title}; fitted on objects {fitted} ({probe.num_fit} images), tested on {tested} ({probe.num_test})",
            fontsize=9,
        )
        return figure
