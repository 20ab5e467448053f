"""Views of the capsules in TensorBoard, every few epochs: figures, histograms and embedded poses."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig  # type: ignore[attr-defined]
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from matcaps import inspect
from matcaps.data import ImageDataset, Transform
from matcaps.inspect.access import evaluation_copy_on_cpu
from matcaps.inspect.activations import ActivationsDisplay
from matcaps.inspect.assignments import AssignmentsDisplay
from matcaps.inspect.contrast import ImageContrastDisplay, SetContrastDisplay
from matcaps.inspect.display import Display
from matcaps.inspect.inspection import Inspection
from matcaps.inspect.steps import StepsDisplay
from matcaps.inspect.style import to_pixels
from matcaps.inspect.traversal import PosesDisplay
from matcaps.inspect.votes import VotesDisplay
from matcaps.models import EMCapsNet, PoseDecoder
from matcaps.training.averaging import AveragedWeights
from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training

SHARE = 0.02
"""Largest share of the training's time that the views take; a view that would exceed it waits for the next time."""

_FIRST_FIGURE = 3.0
_FIRST_NUMBERS = 0.5
"""Estimated seconds for a figure, and for a view of numbers, before one was made."""
_NUM_BINS = 30


class CapsuleViews(Callback):
    """Every few epochs, write to TensorBoard what ``matcaps inspect`` would show of the present network.

    For one image: the figures of vote distances, activations, assignments and EM steps, and, if a decoder is trained
    with the network, of the pose changed component by component. For it and for all images: how far votes for the true
    class and for a wrong one lie from their mean. For all images: the vote distances of the true and the
    other classes as histograms and means, and the true classes' poses as an embedding. They never take more than
    :data:`SHARE` of the training's time: they take turns, and where the next one would exceed it, that one waits for
    the next time. The training itself is the same with and without them.

    Args:
        images: labelled images to measure on, the same each time; the figures show the first.
        transform: prepares them for the network.
        every: epochs from one time to the next.
        averaging: the run's averaged weights, which are used if there are any.
        share: largest share of the time since the training started, or was resumed.
    """

    def __init__(
        self,
        images: ImageDataset,
        transform: Transform,
        every: int,
        averaging: AveragedWeights | None = None,
        share: float = SHARE,
    ):
        self._images = images
        self._transform = transform
        self._every = every
        self._averaging = averaging
        self._share = share
        self._started = 0.0
        self._spent = 0.0
        self._costs: dict[str, float] = {}
        self._last = ""

    def on_train_start(self, loop: Loop, training: Training) -> None:
        self._started, self._spent = time.perf_counter(), 0.0

    def on_train_epoch_end(self, loop: Loop, training: Training) -> None:
        writer = loop.writer
        epoch = loop.current_epoch + 1
        if writer is None:
            return
        if not isinstance(training.network, EMCapsNet) or epoch % self._every:
            return
        names = [name for name in _VIEWS if name != "poses" or training.decoder is not None]
        last = self._last if self._last in names else names[-1]
        start = names.index(last) + 1
        snapshot = None
        for name in [*names[start:], *names[:start]]:  # in turn, starting after the last view
            cost = self._costs.get(name, _FIRST_NUMBERS if name in _OF_NUMBERS else _FIRST_FIGURE)
            began = time.perf_counter()
            if snapshot is None:
                cost += self._costs.get("look", _FIRST_NUMBERS)
            if self._spent + cost > self._share * (began - self._started):
                break  # a cheaper view in its place could delay it forever
            if snapshot is None:
                with nullcontext() if self._averaging is None else self._averaging.applied():
                    snapshot = _Snapshot(training, self._images, self._transform)
                self._costs["look"] = time.perf_counter() - began
            drawn = time.perf_counter()
            _VIEWS[name](snapshot, writer, epoch)
            self._costs[name] = time.perf_counter() - drawn
            self._spent += time.perf_counter() - began
            self._last = name


class _Snapshot:
    """A copy of the present network on the CPU, and its results for the images."""

    def __init__(self, training: Training, dataset: ImageDataset, transform: Transform):
        assert isinstance(training.network, EMCapsNet)
        self.network: EMCapsNet = evaluation_copy_on_cpu(training.network)
        self.decoder: PoseDecoder | None = (
            None if training.decoder is None else evaluation_copy_on_cpu(training.decoder)
        )
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


def _distances(snapshot: _Snapshot, writer: SummaryWriter, epoch: int) -> None:
    """Histograms and means of the vote distances, of the true class and of the others, by iteration."""
    distances = inspect.vote_distances(snapshot.network, snapshot.images)
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


def _embedding(snapshot: _Snapshot, writer: SummaryWriter, epoch: int) -> None:
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


def _figure(tag: str, measure: Callable[[_Snapshot], Display]) -> Callable[[_Snapshot, SummaryWriter, int], None]:
    """A view of one image, drawn as for ``matcaps inspect``."""

    def add(snapshot: _Snapshot, writer: SummaryWriter, epoch: int) -> None:
        _add_figure(writer, tag, measure(snapshot), epoch)

    return add


def _true_and_wrong(snapshot: _Snapshot, writer: SummaryWriter, epoch: int) -> None:
    """Vote distances of the true class beside those of the strongest wrong one: of the image, and of all images."""
    _add_figure(writer, "true and wrong", ImageContrastDisplay.from_inspection(snapshot.inspection), epoch)
    contrast = inspect.vote_contrast(inspect.vote_distances(snapshot.network, snapshot.images), snapshot.labels)
    display = SetContrastDisplay.of_images(contrast, f"{contrast.num_images} images")
    _add_figure(writer, "true and wrong, all images", display, epoch)


def _traversal(snapshot: _Snapshot) -> Display:
    assert snapshot.decoder is not None
    label = snapshot.inspection.label
    return PosesDisplay.from_poses(
        snapshot.inspection, snapshot.decoder, label, snapshot.poses[snapshot.labels == label]
    )


def _add_figure(writer: SummaryWriter, tag: str, display: Display, epoch: int) -> None:
    writer.add_image(f"inside/{tag}", to_pixels(display.plot()), epoch, dataformats="HWC")


# The cheap ones first, so that a short run has at least these.
_VIEWS: dict[str, Callable[[_Snapshot, SummaryWriter, int], None]] = {
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
_OF_NUMBERS = ("distances", "embedding")
