"""What the capsules do, in TensorBoard: figures, histograms and poses to walk among."""

from collections.abc import Callable
from pathlib import Path

import torch
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig  # type: ignore[attr-defined]
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from matcaps.data import ImageDataset, Transform
from matcaps.inspect.access import evaluation_copy_on_cpu
from matcaps.inspect.activations import ActivationsDisplay
from matcaps.inspect.assignments import AssignmentsDisplay
from matcaps.inspect.contrast import ImageContrastDisplay, SetContrastDisplay, vote_contrast
from matcaps.inspect.display import Display
from matcaps.inspect.inspection import Inspection
from matcaps.inspect.steps import StepsDisplay
from matcaps.inspect.style import to_pixels
from matcaps.inspect.traversal import PosesDisplay
from matcaps.inspect.votes import VotesDisplay, vote_distances
from matcaps.models import EMCapsNet, PoseDecoder

_NUM_BINS = 30


class Look:
    """A copy of the present network on the CPU, and its results for the images."""

    def __init__(self, network: EMCapsNet, decoder: PoseDecoder | None, dataset: ImageDataset, transform: Transform):
        self.network = evaluation_copy_on_cpu(network)
        self.decoder = None if decoder is None else evaluation_copy_on_cpu(decoder)
        self.classes = dataset.classes
        self.labels = dataset.labels
        self.images = transform.evaluate(dataset.images)
        with torch.no_grad():
            output = self.network(self.images)
        self.poses = output.poses.flatten(2)[torch.arange(len(self.labels)), self.labels]
        self.inspection = Inspection(
            network=self.network,
            image=self.images[:1],
            classes=self.classes,
            truth=int(self.labels[0]),
            name=f"{dataset.name}, {dataset.split} image {int(dataset.indices[0])}",
            scores=tuple(output.activations[0].tolist()),
        )


def _distances(snapshot: Look, writer: SummaryWriter, epoch: int) -> None:
    """Histograms and means of the vote distances, of the true class and of the others, by iteration."""
    distances = vote_distances(snapshot.network, snapshot.images)
    true = torch.nn.functional.one_hot(snapshot.labels, len(snapshot.classes)).bool()
    means = distances.mean()
    for iteration in range(distances.distances.shape[1]):
        for name, chosen in (("the true class", true), ("other classes", ~true)):
            tag = f"vote distance to {name}/iteration {iteration + 1}"
            pick = chosen[:, None, :].expand_as(distances.distances[:, iteration])
            _add_histogram(
                writer, tag, distances.distances[:, iteration][pick], distances.assignment[:, iteration][pick], epoch
            )
            writer.add_scalar(f"mean {tag}", float(means[:, iteration][chosen].mean()), epoch)


def _add_histogram(writer: SummaryWriter, tag: str, values: Tensor, weights: Tensor, epoch: int) -> None:
    """A histogram in which each value counts by its weight."""
    values, weights = values.double(), weights.double()
    edges = torch.linspace(0, max(float(values.max()), 1e-6), _NUM_BINS + 1, dtype=torch.float64)[1:]
    bins = torch.bucketize(values, edges).clamp_max(_NUM_BINS - 1)
    counts = torch.zeros(_NUM_BINS, dtype=torch.float64).scatter_add_(0, bins, weights)
    writer.add_histogram_raw(
        tag,
        min=float(values.min()),
        max=float(values.max()),
        num=float(weights.sum()),  # type: ignore[arg-type]  # the format has a float
        sum=float((weights * values).sum()),
        sum_squares=float((weights * values**2).sum()),
        bucket_limits=edges.tolist(),  # type: ignore[arg-type]
        bucket_counts=counts.tolist(),  # type: ignore[arg-type]
        global_step=epoch,
    )


def _embedding(snapshot: Look, writer: SummaryWriter, epoch: int) -> None:
    """The true classes' poses, each with its image and its class's name, for TensorBoard's projector."""
    _keep_listed(writer)
    shown = snapshot.images if snapshot.images.shape[1] == 3 else snapshot.images[:, :1]
    low, high = shown.amin((1, 2, 3), keepdim=True), shown.amax((1, 2, 3), keepdim=True)
    writer.add_embedding(
        snapshot.poses,
        metadata=[snapshot.classes[label] for label in snapshot.labels.tolist()],
        label_img=((shown - low) / (high - low).clamp_min(1e-12)).expand(-1, 3, -1, -1),
        global_step=epoch,
        tag="class poses",
    )


def _keep_listed(writer: SummaryWriter) -> None:
    """Make the writer of a resumed run also list earlier embeddings; it writes the whole list each time."""
    path = Path(writer.get_logdir()) / "projector_config.pbtxt"
    if not hasattr(writer, "_projector_config") and path.is_file():
        config = ProjectorConfig()
        text_format.Parse(path.read_text(encoding="utf-8"), config)
        writer._projector_config = config  # type: ignore[attr-defined]


def _figure(tag: str, measure: Callable[[Look], Display]) -> Callable[[Look, SummaryWriter, int], None]:
    """A view of one image, drawn as for ``matcaps inspect``."""

    def add(snapshot: Look, writer: SummaryWriter, epoch: int) -> None:
        _add_figure(writer, tag, measure(snapshot), epoch)

    return add


def _true_and_wrong(snapshot: Look, writer: SummaryWriter, epoch: int) -> None:
    """Vote distances of the true class beside those of the strongest wrong one: of the image, and of all images."""
    _add_figure(writer, "true and wrong", ImageContrastDisplay.from_inspection(snapshot.inspection), epoch)
    contrast = vote_contrast(vote_distances(snapshot.network, snapshot.images), snapshot.labels)
    display = SetContrastDisplay.of_images(contrast, f"{contrast.num_images} images")
    _add_figure(writer, "true and wrong, all images", display, epoch)


def _traversal(snapshot: Look) -> Display:
    assert snapshot.decoder is not None
    label = snapshot.inspection.label
    return PosesDisplay.from_poses(
        snapshot.inspection, snapshot.decoder, label, snapshot.poses[snapshot.labels == label]
    )


def _add_figure(writer: SummaryWriter, tag: str, display: Display, epoch: int) -> None:
    writer.add_image(f"inside/{tag}", to_pixels(display.plot()), epoch, dataformats="HWC")


# The cheap ones first, so that a short run has at least these.
TENSORBOARD_VIEWS: dict[str, Callable[[Look, SummaryWriter, int], None]] = {
    "distances": _distances,
    "embedding": _embedding,
    "votes": _figure("vote distances", lambda snapshot: VotesDisplay.from_inspection(snapshot.inspection)),
    "true_and_wrong": _true_and_wrong,
    "activations": _figure("activations", lambda snapshot: ActivationsDisplay.from_inspection(snapshot.inspection)),
    "assignments": _figure("assignments", lambda snapshot: AssignmentsDisplay.from_inspection(snapshot.inspection)),
    "em_steps": _figure(
        "EM steps", lambda snapshot: StepsDisplay.from_inspection(snapshot.inspection, [snapshot.inspection.label])
    ),
    "poses": _figure("poses", _traversal),
}
OF_NUMBERS = ("distances", "embedding")
