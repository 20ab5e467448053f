"""What ``matcaps inspect`` looks at: from the numbers to figures, files and sentences."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcaps.cli.parsing import PLAIN, out

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from matcaps.data import DataBundle, ImageDataset, Transform
    from matcaps.models import BaselineCNN, EMCapsNet, PoseDecoder
    from matcaps.training.inference import SavedNetwork


@dataclass(eq=False)
class Subject:
    """What is looked at, and where the findings go."""

    options: Any
    saved: "SavedNetwork"
    network: "EMCapsNet"
    cnn: "SavedNetwork | None"
    bundle: "DataBundle | None"
    measured: "ImageDataset | None"
    image: "Tensor"
    truth: int | None
    name: str
    output: Path
    decoder_path: Path
    decoder: "PoseDecoder | None"
    record: dict[str, Any]
    written: list[str]

    @property
    def title(self) -> str:
        """What the image is, and what the network takes it for."""
        scores = self.record["activations"]
        taken = max(scores, key=scores.get)
        truth = "" if self.truth is None else f"{self.saved.classes[self.truth]}, "
        return f"{self.name}: {truth}taken for {taken} ({scores[taken]:.2f})"

    @property
    def predicted(self) -> int:
        scores = list(self.record["activations"].values())
        return scores.index(max(scores))

    def loader(self, dataset: "ImageDataset", saved: "SavedNetwork | None" = None) -> Any:
        """Batches of a data set, as this network, or another that was saved, takes them: the centre crop alone."""
        from matcaps.data import make_loader

        transform = centre_crop((saved or self.saved).transform)
        return make_loader(dataset, transform, train=False, batch_size=self.options.batch_size)

    def write(self, name: str, figure: "Figure", numbers: Any, *, as_json: bool = False) -> None:
        """Write a figure and what is behind it: few plain values as JSON, else, tensors in any nesting, as NPZ."""
        from matcaps.inspection import save_arrays
        from matcaps.training.record import write_json
        from matcaps.viz.style import save_figure

        save_figure(figure, self.output / name)
        if as_json:
            write_json(self.output / f"{name}.json", _finite(numbers))
            self.written.append(f"{name}.png, .svg, .json")
        else:
            save_arrays(self.output / f"{name}.npz", numbers)
            self.written.append(f"{name}.png, .svg, .npz")

    def say(self, name: str, sentence: str) -> None:
        """Print a finding, and keep it for the record."""
        self.record.setdefault("findings", {})[name] = sentence
        out.print(f"{name}: {sentence}", **PLAIN)

    def finish(self, source: str) -> None:
        from matcaps.training.record import command_line, source_commit, write_json

        self.record |= {
            "network": source,
            "command": command_line(),
            "commit": source_commit(),
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        write_json(self.output / "inspect.json", self.record)
        out.print(f"written to {self.output}: {'; '.join([*self.written, 'inspect.json'])}", **PLAIN)


def centre_crop(transform: "Transform") -> "Transform":
    """The transform with one crop an image, where its network is tested on several."""
    return type(transform)(replace(transform.settings, num_test_crops=1), transform.image_size)


def look_at_image(subject: Subject) -> None:
    """Vote distances, assignments, activations and EM steps of the one image."""
    from matcaps import inspection
    from matcaps.viz import inspection as viz

    network, image, classes, title = subject.network, subject.image, subject.saved.classes, subject.title
    chosen = subject.predicted if subject.truth is None else subject.truth
    votes = inspection.vote_distances(network, image)
    histogram = inspection.vote_histogram(votes)
    subject.write("votes", viz.draw_votes(histogram, classes, chosen, title), {"histogram": histogram, **vars(votes)})
    shares = inspection.contributions(network, image)
    heading = (
        f"{title}\nwhat the class capsule {classes[int(shares.classes[0])]} was made from "
        "(orange frame: all that the position with the largest share sees)"
    )
    subject.write("assignments", viz.draw_assignments(shares, image[0], heading), shares)
    maps = inspection.activation_maps(network, image)
    subject.write("activations", viz.draw_activations(maps, classes, title), maps)
    scores = sorted(range(len(classes)), key=lambda label: -subject.record["activations"][classes[label]])[:2]
    steps = [inspection.em_steps(network, image, label) for label in scores]
    names = [classes[label] for label in scores]
    subject.write(
        "em_steps",
        viz.draw_em_steps(steps, names, title),
        dict(zip(names, steps, strict=True)),
    )


def look_at_set(subject: Subject) -> None:
    """Agreement and health over the set."""
    from matcaps import inspection
    from matcaps.viz import inspection_sets as viz

    assert subject.measured is not None
    title = f"{subject.measured.name}, {subject.options.part} part"
    agreement = inspection.measure_agreement(subject.network, subject.loader(subject.measured))
    numbers = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in vars(agreement).items()}
    subject.write("agreement", viz.draw_agreement(agreement, title), numbers, as_json=True)
    subject.say(
        "vote distance",
        f"by iteration {_arrows(agreement.true)} for the true class, {_arrows(agreement.others)} for the others, "
        f"in pose units, mean of {agreement.num_images} images; smaller at the end than at first for "
        f"{100 * agreement.fell_true:.1f} % and {100 * agreement.fell_others:.1f} %; the true class's is the smallest "
        f"of all on {_arrows(100 * agreement.nearest_is_true)} %",
    )
    subject.say(
        "share of the data",
        f"by iteration {_arrows(100 * agreement.share_true)} % for the true class, "
        f"{_arrows(100 * agreement.share_others)} % for one of the others",
    )
    health = inspection.capsule_health(subject.network, (batch.images for batch in subject.loader(subject.measured)))
    subject.write(
        "health",
        viz.draw_health(health, title),
        {name: layer.to_dict() for name, layer in health.items()},
        as_json=True,
    )
    for state in ("dead", "saturated"):
        found = {name: getattr(layer, state) for name, layer in health.items() if getattr(layer, state)}
        said = "; ".join(f"{name} {', '.join(map(str, types))}" for name, types in found.items())
        subject.say(f"{state} types", said or "none")
    ends = ", ".join(
        f"{name} {100 * layer.layer_low:.0f} % below 0.01 and {100 * layer.layer_high:.0f} % above 0.99"
        for name, layer in health.items()
    )
    subject.say("activations", ends)


def look_at_poses(subject: Subject) -> None:
    """The traversal of the pose, with a decoder that is there or is trained first."""
    import torch

    from matcaps.inspection import pose_traversal
    from matcaps.training.decoding import class_poses, explained_variance
    from matcaps.viz.inspection import draw_poses

    if subject.options.train_decoder:
        subject.decoder = _train_decoder(subject)
    if subject.decoder is None:
        subject.say("poses", f"left out, for want of a decoder ({subject.decoder_path}): add --train_decoder")
        return
    if subject.measured is None:
        subject.say("poses", "left out, for want of images that show the range of the pose: set --num_images")
        return
    labels, transform = subject.measured.labels, subject.saved.transform
    every_class = class_poses(subject.network, subject.measured, transform, subject.options.batch_size)
    share = explained_variance(subject.decoder, every_class, subject.measured, transform)
    subject.say("decoder", f"explains {100 * share:.0f} % of the variance of {len(labels)} images about their mean")
    poses = every_class.flatten(2)[torch.arange(len(labels)), labels]
    label = subject.predicted
    if not bool((labels == label).any()):
        subject.say("poses", f"left out: none of the images shows {subject.saved.classes[label]}; raise --num_images")
        return
    found = pose_traversal(subject.network, subject.decoder, subject.image, label, poses[labels == label])
    name = subject.saved.classes[label]
    title = (
        f"{subject.title}\nreconstruction as each component of {name}'s pose goes through its range on images of "
        f"{name} (▾: its value here; Δ: root mean square change of a pixel)"
    )
    subject.write("poses", draw_poses(found, title), found)


def _train_decoder(subject: Subject) -> "PoseDecoder":
    from matcaps.data.splits import limit_images
    from matcaps.models.pretrained import save_weights
    from matcaps.training.decoding import train_decoder

    assert subject.bundle is not None
    trained = train_decoder(
        subject.network,
        replace(subject.bundle, test=limit_images(subject.bundle.test, 1000, 0)),
        epochs=subject.options.decoder_epochs,
        report=lambda line: out.print(line, **PLAIN),
    )
    save_weights(trained.decoder, subject.decoder_path)
    subject.say("decoder trained", f"in {trained.seconds:.0f} s, saved as {subject.decoder_path}")
    return trained.decoder


def look_at_viewpoint(subject: Subject) -> None:
    """Probes to known viewpoints, or responses to known distortions."""
    from matcaps.inspection import has_viewpoints, pose_response
    from matcaps.viz.inspection_sets import draw_pose_response

    dataset = subject.measured
    if dataset is None:
        return
    if has_viewpoints(dataset):
        _probe_viewpoint(subject, dataset)
        return
    if "elevation" in dataset.attributes:
        subject.say(
            "viewpoint", f"left out: labels of the {subject.options.part} part are not all known; use the test part"
        )
        return
    label = subject.predicted if subject.truth is None else subject.truth
    count = min(len(dataset), 20 * len(subject.saved.classes))
    found = pose_response(subject.network, dataset, centre_crop(subject.saved.transform), label, num_images=count)
    name = subject.saved.classes[label]
    title = f"{dataset.name}: how the pose of {name} answers known shifts and rotations"
    subject.write("viewpoint", draw_pose_response(found, title), found)
    said = ", ".join(f"{what} R² {value:.2f}" for what, value in found.r_squared.items())
    subject.say("viewpoint", f"from the true class's pose, on {found.num_images} images: {said}")


def _probe_viewpoint(subject: Subject, dataset: "ImageDataset") -> None:
    import torch

    from matcaps.inspection import penultimate_features, true_poses, viewpoint_probe
    from matcaps.viz.inspection_sets import draw_viewpoint_probe

    features: dict[str, Tensor] = {"pose": true_poses(subject.network, subject.loader(dataset))[0]}
    # before the CNN, which may be missing: so a kind of features keeps its colour
    features["pixels, 16 components"] = torch.cat([batch.images.flatten(1) for batch in subject.loader(dataset)])
    widths: dict[str, int] = {}
    if subject.cnn is not None:
        cnn: BaselineCNN = subject.cnn.network  # type: ignore[assignment]
        found = penultimate_features(cnn, subject.loader(dataset, subject.cnn))
        whole = f"CNN, all {found.shape[1]}"
        features |= {"CNN, 16 components": found, whole: found}
        widths[whole] = found.shape[1]
    result = viewpoint_probe(features, dataset, widths=widths)
    title = "What a linear probe reads off"
    subject.write("viewpoint", draw_viewpoint_probe(result, title), result.to_dict(), as_json=True)
    for row, name in enumerate(result.features):
        said = ", ".join(
            f"{target} {value:.2f}"
            for target, value in zip(result.targets, result.r_squared[row].tolist(), strict=True)
        )
        subject.say(
            f"R² of {name}",
            f"{said}; lighting right in {100 * float(result.lighting_accuracy[row]):.0f} % (chance 17 %)",
        )
    if subject.cnn is None:
        subject.say("CNN", "left out: name a CNN's run with --cnn to compare")


def _arrows(values: "Tensor") -> str:
    return " → ".join(f"{value:.3g}" for value in values.tolist())


def _finite(values: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and values != values else values
