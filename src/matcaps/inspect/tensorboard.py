"""What the capsules do, in TensorBoard: figures, histograms and poses to walk among."""

from collections.abc import Callable
from pathlib import Path

import torch
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig  # type: ignore[attr-defined]
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from matcaps.data import ImageDataset, Transform
from matcaps.inspect.activations import ActivationsDisplay
from matcaps.inspect.assignments import AssignmentsDisplay
from matcaps.inspect.contrast import ImageContrastDisplay, SetContrastDisplay, vote_contrast
from matcaps.inspect.display import Display
from matcaps.inspect.door import copy_on_cpu
from matcaps.inspect.steps import StepsDisplay
from matcaps.inspect.style import to_pixels
from matcaps.inspect.subject import Subject
from matcaps.inspect.traversal import PosesDisplay
from matcaps.inspect.votes import VotesDisplay, vote_distances
from matcaps.models import EMCapsNet, PoseDecoder

_NUM_BINS = 30


class Look:
    """The network as it is, on the CPU, and what it makes of the images."""

    def __init__(self, network: EMCapsNet, decoder: PoseDecoder | None, dataset: ImageDataset, transform: Transform):
        self.network = copy_on_cpu(network)
        self.decoder = None if decoder is None else copy_on_cpu(decoder)
        self.classes = dataset.classes
        self.labels = dataset.labels
        self.images = transform.evaluate(dataset.images)
        with torch.no_grad():
            output = self.network(self.images)
        self.poses = output.poses.flatten(2)[torch.arange(len(self.labels)), self.labels]
        self.subject = Subject(
            network=self.network,
            image=self.images[:1],
            classes=self.classes,
            truth=int(self.labels[0]),
            name=f"{dataset.name}, {dataset.split} image {int(dataset.indices[0])}",
            scores=tuple(output.activations[0].tolist()),
        )


def _distances(look: Look, writer: SummaryWriter, epoch: int) -> None:
    """Histograms and means of the vote distances, of the true class and of the others, by iteration."""
    found = vote_distances(look.network, look.images)
    true = torch.nn.functional.one_hot(look.labels, len(look.classes)).bool()
    means = found.mean()
    for iteration in range(found.distances.shape[1]):
        for name, chosen in (("the true class", true), ("other classes", ~true)):
            tag = f"vote distance to {name}/iteration {iteration + 1}"
            pick = chosen[:, None, :].expand_as(found.distances[:, iteration])
            _add_histogram(
                writer, tag, found.distances[:, iteration][pick], found.assignment[:, iteration][pick], epoch
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


def _embedding(look: Look, writer: SummaryWriter, epoch: int) -> None:
    """The true classes' poses, each with its image and its class's name, for TensorBoard's projector."""
    _keep_listed(writer)
    shown = look.images if look.images.shape[1] == 3 else look.images[:, :1]
    low, high = shown.amin((1, 2, 3), keepdim=True), shown.amax((1, 2, 3), keepdim=True)
    writer.add_embedding(
        look.poses,
        metadata=[look.classes[label] for label in look.labels.tolist()],
        label_img=((shown - low) / (high - low).clamp_min(1e-12)).expand(-1, 3, -1, -1),
        global_step=epoch,
        tag="class poses",
    )


def _keep_listed(writer: SummaryWriter) -> None:
    """Have the writer of a resumed run list the embeddings from before, too; it writes the whole list each time."""
    path = Path(writer.get_logdir()) / "projector_config.pbtxt"
    if not hasattr(writer, "_projector_config") and path.is_file():
        config = ProjectorConfig()
        text_format.Parse(path.read_text(encoding="utf-8"), config)
        writer._projector_config = config  # type: ignore[attr-defined]


def _figure(tag: str, measure: Callable[[Look], Display]) -> Callable[[Look, SummaryWriter, int], None]:
    """A view of the one image, as it is drawn for ``matcaps inspect``."""

    def add(look: Look, writer: SummaryWriter, epoch: int) -> None:
        _add_figure(writer, tag, measure(look), epoch)

    return add


def _true_and_wrong(look: Look, writer: SummaryWriter, epoch: int) -> None:
    """Vote distances of the true class beside those of the strongest wrong one: of the image, and of all images."""
    _add_figure(writer, "true and wrong", ImageContrastDisplay.from_subject(look.subject), epoch)
    found = vote_contrast(vote_distances(look.network, look.images), look.labels)
    display = SetContrastDisplay.of_images(found, f"{found.num_images} images")
    _add_figure(writer, "true and wrong, all images", display, epoch)


def _traversal(look: Look) -> Display:
    assert look.decoder is not None
    label = look.subject.label
    return PosesDisplay.from_poses(look.subject, look.decoder, label, look.poses[look.labels == label])


def _add_figure(writer: SummaryWriter, tag: str, display: Display, epoch: int) -> None:
    writer.add_image(f"inside/{tag}", to_pixels(display.plot()), epoch, dataformats="HWC")


# The cheap ones first, so that a short run has at least these.
TENSORBOARD_VIEWS: dict[str, Callable[[Look, SummaryWriter, int], None]] = {
    "distances": _distances,
    "embedding": _embedding,
    "votes": _figure("vote distances", lambda look: VotesDisplay.from_subject(look.subject)),
    "true_and_wrong": _true_and_wrong,
    "activations": _figure("activations", lambda look: ActivationsDisplay.from_subject(look.subject)),
    "assignments": _figure("assignments", lambda look: AssignmentsDisplay.from_subject(look.subject)),
    "em_steps": _figure("EM steps", lambda look: StepsDisplay.from_subject(look.subject, [look.subject.label])),
    "poses": _figure("poses", _traversal),
}
OF_NUMBERS = ("distances", "embedding")
