"""Whether the pose knows how the object was seen."""

import torch
from torch import Tensor

from matcaps.data import ImageDataset
from matcaps.findings.journal import Journal
from matcaps.findings.subject import Subject, centre_crop
from matcaps.inspection import has_viewpoints, penultimate_features, pose_response, true_poses, viewpoint_probe
from matcaps.models import BaselineCNN
from matcaps.viz.inspection_sets import draw_pose_response, draw_viewpoint_probe


def look_at_viewpoint(subject: Subject, journal: Journal) -> None:
    """Probes to known viewpoints, or responses to known distortions."""
    dataset = subject.measured
    if dataset is None:
        return
    try:
        _look_at_viewpoint(subject, journal, dataset)
    except ValueError as error:  # too few images of a class, or other objects than the probe is fitted on
        journal.say("viewpoint", f"left out: {error}")


def _look_at_viewpoint(subject: Subject, journal: Journal, dataset: ImageDataset) -> None:
    if has_viewpoints(dataset):
        _probe_viewpoint(subject, journal, dataset)
        return
    if "elevation" in dataset.attributes:
        journal.say(
            "viewpoint", f"left out: labels of the {subject.settings.part} part are not all known; use the test part"
        )
        return
    label = subject.predicted if subject.truth is None else subject.truth
    count = min(len(dataset), 20 * len(subject.classes))
    found = pose_response(subject.network, dataset, centre_crop(subject.saved.transform), label, num_images=count)
    name = subject.classes[label]
    title = f"{dataset.name}: how the pose of {name} answers known shifts and rotations"
    journal.write("viewpoint", draw_pose_response(found, title), found)
    said = ", ".join(f"{what} R² {value:.2f}" for what, value in found.r_squared.items())
    journal.say("viewpoint", f"from the true class's pose, on {found.num_images} images: {said}")


def _probe_viewpoint(subject: Subject, journal: Journal, dataset: ImageDataset) -> None:
    features: dict[str, Tensor] = {"pose": true_poses(subject.network, subject.loader(dataset))[0]}
    # before the CNN, which may be missing: so a kind of features keeps its colour
    features["pixels, 16 components"] = torch.cat([batch.images.flatten(1).cpu() for batch in subject.loader(dataset)])
    widths: dict[str, int] = {}
    if subject.cnn is not None:
        cnn: BaselineCNN = subject.cnn.network  # type: ignore[assignment]
        found = penultimate_features(cnn, subject.loader(dataset, subject.cnn))
        whole = f"CNN, all {found.shape[1]}"
        features |= {"CNN, 16 components": found, whole: found}
        widths[whole] = found.shape[1]
    result = viewpoint_probe(features, dataset, widths=widths)
    title = "What a linear probe reads off"
    journal.write("viewpoint", draw_viewpoint_probe(result, title), result.to_dict(), as_json=True)
    for row, name in enumerate(result.features):
        said = ", ".join(
            f"{target} {value:.2f}"
            for target, value in zip(result.targets, result.r_squared[row].tolist(), strict=True)
        )
        journal.say(
            f"R² of {name}",
            f"{said}; lighting right in {100 * float(result.lighting_accuracy[row]):.0f} % (chance 17 %)",
        )
    journal.say(
        "azimuth",
        "near 0 for any features: the toys are not counted from the same side, and front and back look alike to a "
        "linear probe; take nothing from it",
    )
    if subject.cnn is None:
        journal.say("CNN", "left out: name a CNN's run with --cnn to compare")
