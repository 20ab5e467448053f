"""Test a network on labelled images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassConfusionMatrix

from matcaps._progress import watched
from matcaps.capsules import Capsules
from matcaps.data.dataset import ImageDataset
from matcaps.data.devices import send
from matcaps.data.loader import Batch
from matcaps.inspect.agreement import AgreementTally, RoutingAgreement
from matcaps.inspect.mistakes import Mistake
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of, evaluation_mode
from matcaps.models.scores import class_scores
from matcaps.training.log_loss import best_exponent, log_losses

_NUM_WORST = 24


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes:
        accuracy: share of images whose most active class is the true one.
        num_images: number of images.
        classes: the classes' names.
        class_accuracy: the same share for each class; None where it has no images.
        confusion: ``confusion[true][predicted]``, counts.
        seconds: time it took, loading included.
        worst: the mistakes with the largest leads, worst first, 24 at most.
        class_accuracy_by: by an attribute's name and value, such as ``["instance"][3]``, the share for each class among
            the images that have the value; None where a class has none. Empty unless asked for.
        num_images_by: the same of the numbers of images.
        value_names: for attributes whose values stand for names, such as ``["group"][3]``, the names.
        log_loss: mean negative logarithm of the true class's probability, in nats, after one exponent for all images
            converts scores to probabilities: comparable between losses; see :mod:`matcaps.training.log_loss`.
        log_loss_of_shares: the same with the exponent 1: for the true class's share of the unchanged scores.
        score_exponent: that exponent; below 1, the scores are too confident.
        log_loss_by: :attr:`log_loss` by an attribute's name and value, for each class.
        agreement: how routing treats the true class, iteration by iteration; None unless asked for.
    """

    accuracy: float
    num_images: int
    classes: tuple[str, ...]
    class_accuracy: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    seconds: float
    worst: tuple[Mistake, ...]
    class_accuracy_by: Mapping[str, Mapping[int, tuple[float | None, ...]]] = field(default_factory=dict)
    num_images_by: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    value_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    log_loss: float | None = None
    log_loss_of_shares: float | None = None
    score_exponent: float | None = None
    log_loss_by: Mapping[str, Mapping[int, tuple[float | None, ...]]] = field(default_factory=dict)
    agreement: RoutingAgreement | None = None

    @property
    def error_percent(self) -> float:
        """Errors in per cent, as the paper gives them."""
        return 100 * (1 - self.accuracy)

    def to_dict(self) -> dict[str, Any]:
        """All values in a form that JSON can hold."""
        values = {**asdict(self), "error_percent": self.error_percent}
        if self.agreement is None:
            del values["agreement"]
        else:
            values["agreement"] = self.agreement.to_dict()
        return values


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    loader: DataLoader[Batch],
    classes: tuple[str, ...],
    by: str | Sequence[str] = (),
    *,
    agreement: bool = False,
) -> Evaluation:
    """Classify every image that a loader gives; several crops of an image are averaged over their class scores.

    Args:
        network: a :class:`matcaps.models.EMCapsNet` or :class:`matcaps.models.BaselineCNN`; its mode does not
            change.
        loader: see :func:`matcaps.data.make_loader`.
        classes: the classes' names, in the order of their labels.
        by: an attribute of the images, or several, by whose values to break the accuracy down; see
            :class:`matcaps.data.ImageDataset`.
        agreement: also measure how routing treats the true class, as :func:`matcaps.inspect.routing_agreement`
            does, in the same pass.

    Raises:
        ValueError: the images have no such attribute, the loader does not give them all in order, or the network has
            no routing to measure.
    """
    tally = _tally(network) if agreement else None
    names = (by,) if isinstance(by, str) else by
    dataset = _images_with(loader, names) if names else None
    confusion = MulticlassConfusionMatrix(len(classes), sync_on_compute=False)  # the first of several processes tests
    device = device_of(network)
    mistakes: list[Mistake] = []
    seen: list[Tensor] = []  # of each image its index and its label
    every_score: list[Tensor] = []
    started = time.perf_counter()
    with evaluation_mode(network):
        for batch in watched(loader, "testing"):
            images = send(batch.images, device)
            scores = class_scores(network, images) if tally is None else _measured_scores(tally, images, batch.labels)
            seen.append(torch.stack([batch.indices, batch.labels]))
            every_score.append(scores)
        # copied to the CPU at the end, so that no batch waits for the GPU
        indices, labels = torch.cat(seen, dim=1).cpu()
        all_scores = torch.cat(every_score).cpu()
    predicted = all_scores.argmax(dim=1)
    hits = predicted == labels
    confusion.update(predicted, labels)
    for place in (~hits).nonzero().flatten().tolist():
        taken, label = int(predicted[place]), int(labels[place])
        lead = float(all_scores[place, taken] - all_scores[place, label])
        mistakes.append(Mistake(int(indices[place]), classes[label], classes[taken], lead))
    mistakes = sorted(mistakes, key=lambda mistake: -mistake.lead)[:_NUM_WORST]
    seconds = time.perf_counter() - started
    matrix = confusion.compute().to(torch.int64)
    exponent = best_exponent(all_scores, labels)
    losses = log_losses(all_scores, labels, exponent)
    groups = {} if dataset is None else _groups(indices, labels, dataset, names)
    totals, right = matrix.sum(dim=1).tolist(), matrix.diagonal().tolist()
    return Evaluation(
        accuracy=sum(right) / sum(totals),
        num_images=sum(totals),
        classes=classes,
        class_accuracy=tuple(hit / total if total else None for hit, total in zip(right, totals, strict=True)),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        seconds=seconds,
        worst=tuple(mistakes),
        class_accuracy_by=_means(groups, hits.double()),
        num_images_by={
            name: {value: tuple(len(one) for one in own) for value, own in by_value.items()}
            for name, by_value in groups.items()
        },
        value_names={
            name: {value: dataset.value_names[name][value] for value in own}
            for name, own in groups.items()
            if dataset is not None and name in dataset.value_names
        },
        log_loss=float(losses.mean()),
        log_loss_of_shares=float(log_losses(all_scores, labels).mean()),
        score_exponent=exponent,
        log_loss_by=_means(groups, losses),
        agreement=None if tally is None else tally.result(),
    )


def _tally(network: nn.Module) -> AgreementTally:
    if not isinstance(network, EMCapsNet):
        raise ValueError(f"agreement is measured on capsule networks; got a {type(network).__name__}")
    return AgreementTally(network)


def _measured_scores(tally: AgreementTally, images: Tensor, labels: Tensor) -> Tensor:
    """:func:`class_scores`, which also adds the batch to a tally; of several crops the first, the centre, counts."""
    several = images.ndim == 5
    outputs = tally.network.layer_outputs(images.flatten(0, 1) if several else images)
    scores = tally.network.class_scores(outputs["class_capsules"])
    if several:
        scores = scores.unflatten(0, images.shape[:2]).mean(dim=1)
        crops = images.shape[1]
        outputs = {name: Capsules(*(one[::crops] for one in capsules)) for name, capsules in outputs.items()}
        images = images[:, 0]
    tally.add(outputs, tally.network.class_coordinates(images), labels)
    return scores


def _images_with(loader: DataLoader[Batch], names: Sequence[str]) -> ImageDataset:
    """The images that a loader prepares, which must have some attributes."""
    dataset: ImageDataset = loader.dataset.dataset  # type: ignore[attr-defined]
    for name in names:
        if name not in dataset.attributes:
            known = ", ".join(dataset.attributes) or "none"
            raise ValueError(f"images of {dataset.name} must have the attribute {name!r}; they have {known}")
    return dataset


_Groups = dict[str, dict[int, list[Tensor]]]
"""For each attribute, value and class, the places of its images."""


def _groups(indices: Tensor, labels: Tensor, dataset: ImageDataset, names: Sequence[str]) -> _Groups:
    if not torch.equal(indices, dataset.indices):
        raise ValueError("loader must give every image once and in order: make it with train=False")
    groups: _Groups = {}
    for name in names:
        values = dataset.attributes[name]
        groups[name] = {
            value: [((values == value) & (labels == label)).nonzero().flatten() for label in range(dataset.num_classes)]
            for value in values.unique().tolist()
        }
    return groups


def _means(groups: _Groups, values: Tensor) -> dict[str, dict[int, tuple[float | None, ...]]]:
    """The mean over each group and class; None where a class has none."""
    return {
        name: {
            value: tuple(float(values[places].mean()) if len(places) else None for places in own)
            for value, own in by_value.items()
        }
        for name, by_value in groups.items()
    }
