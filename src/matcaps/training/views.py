"""What the capsules do, in TensorBoard, every few epochs: figures, histograms and poses to walk among."""

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
from matcaps.inspect.activations import ActivationsDisplay
from matcaps.inspect.assignments import AssignmentsDisplay
from matcaps.inspect.contrast import ImageContrastDisplay, SetContrastDisplay
from matcaps.inspect.display import Display
from matcaps.inspect.door import copy_on_cpu
from matcaps.inspect.steps import StepsDisplay
from matcaps.inspect.style import to_pixels
from matcaps.inspect.subject import Subject
from matcaps.inspect.traversal import PosesDisplay
from matcaps.inspect.votes import VotesDisplay
from matcaps.models import EMCapsNet, PoseDecoder
from matcaps.training.averaging import AveragedWeights
from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training

SHARE = 0.02
"""Largest share of the training's time that the views take; one that would exceed it waits for the next look."""

_FIRST_FIGURE = 3.0
_FIRST_NUMBERS = 0.5
"""Seconds that a figure, and a view of numbers, are taken to cost before one was made."""
_NUM_BINS = 30


class CapsuleViews(Callback):
    """Every few epochs, write into TensorBoard what ``matcaps inspect`` would show of the network as it is.

    Of one image, the figures of vote distances, activations, assignments and EM steps, and, where a decoder is trained
    with the network, of the pose moved component by component. Of it and of all images, how far votes for the true
    class and for a wrong one lie from their mean. Of all images, the vote distances of the true and the
    other classes as histograms and means, and the true classes' poses as an embedding. They never take more than
    :data:`SHARE` of the training's time: they take turns, and where the next one would exceed it, that one waits for
    the next look. The training itself is the same with them and without.

    Args:
        images: labelled images to look at, the same each time; the figures show the first.
        transform: how the network takes them.
        every: epochs from one look to the next.
        averaging: the run's averaged weights, which are looked at where there are any.
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
        look = None
        for name in [*names[start:], *names[:start]]:  # in turn, from where the last look ended
            cost = self._costs.get(name, _FIRST_NUMBERS if name in _OF_NUMBERS else _FIRST_FIGURE)
            began = time.perf_counter()
            if look is None:
                cost += self._costs.get("look", _FIRST_NUMBERS)
            if self._spent + cost > self._share * (began - self._started):
                break  # and no cheaper one in its place, which would keep it out for good
            if look is None:
                with nullcontext() if self._averaging is None else self._averaging.applied():
                    look = _Look(training, self._images, self._transform)
                self._costs["look"] = time.perf_counter() - began
            drawn = time.perf_counter()
            _VIEWS[name](look, writer, epoch)
            self._costs[name] = time.perf_counter() - drawn
            self._spent += time.perf_counter() - began
            self._last = name


class _Look:
    """The network as it is, on the CPU, and what it makes of the images."""

    def __init__(self, training: Training, dataset: ImageDataset, transform: Transform):
        assert isinstance(training.network, EMCapsNet)
        self.network: EMCapsNet = copy_on_cpu(training.network)
        self.decoder: PoseDecoder | None = None if training.decoder is None else copy_on_cpu(training.decoder)
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


def _distances(look: _Look, writer: SummaryWriter, epoch: int) -> None:
    """Histograms and means of the vote distances, of the true class and of the others, by iteration."""
    found = inspect.vote_distances(look.network, look.images)
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


def _embedding(look: _Look, writer: SummaryWriter, epoch: int) -> None:
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


def _figure(tag: str, measure: Callable[[_Look], Display]) -> Callable[[_Look, SummaryWriter, int], None]:
    """A view of the one image, as it is drawn for ``matcaps inspect``."""

    def add(look: _Look, writer: SummaryWriter, epoch: int) -> None:
        _add_figure(writer, tag, measure(look), epoch)

    return add


def _true_and_wrong(look: _Look, writer: SummaryWriter, epoch: int) -> None:
    """Vote distances of the true class beside those of the strongest wrong one: of the image, and of all images."""
    _add_figure(writer, "true and wrong", ImageContrastDisplay.from_subject(look.subject), epoch)
    found = inspect.vote_contrast(inspect.vote_distances(look.network, look.images), look.labels)
    display = SetContrastDisplay.of_images(found, f"{found.num_images} images")
    _add_figure(writer, "true and wrong, all images", display, epoch)


def _traversal(look: _Look) -> Display:
    assert look.decoder is not None
    label = look.subject.label
    return PosesDisplay.from_poses(look.subject, look.decoder, label, look.poses[look.labels == label])


def _add_figure(writer: SummaryWriter, tag: str, display: Display, epoch: int) -> None:
    writer.add_image(f"inside/{tag}", to_pixels(display.plot()), epoch, dataformats="HWC")


# The cheap ones first, so that a short run has at least these.
_VIEWS: dict[str, Callable[[_Look, SummaryWriter, int], None]] = {
    "distances": _distances,
    "embedding": _embedding,
    "votes": _figure("vote distances", lambda look: VotesDisplay.from_subject(look.subject)),
    "true_and_wrong": _true_and_wrong,
    "activations": _figure("activations", lambda look: ActivationsDisplay.from_subject(look.subject)),
    "assignments": _figure("assignments", lambda look: AssignmentsDisplay.from_subject(look.subject)),
    "em_steps": _figure("EM steps", lambda look: StepsDisplay.from_subject(look.subject, [look.subject.label])),
    "poses": _figure("poses", _traversal),
}
_OF_NUMBERS = ("distances", "embedding")
