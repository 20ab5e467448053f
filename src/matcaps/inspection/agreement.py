"""Whether routing does what it is for: the true class gathers data, its votes come together, no layer is saturated.

What is read here is what the routing itself computes of every iteration; the votes need not be written out.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from matcaps.capsules import Capsules
from matcaps.data.devices import send
from matcaps.data.loader import Batch
from matcaps.inspection.activations import LayerHealth, Tally
from matcaps.inspection.door import inspects
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of
from matcaps.routing import RoutingIteration
from matcaps.routing.reference import EMPTY_MASS


@dataclass(frozen=True)
class LayerActivity:
    """How active a layer's capsules are, over images, positions and types.

    Attributes:
        mean: mean activation.
        share_low: share of capsules below 0.01.
        share_high: share of capsules above 0.99.
        dead_types: types of which no capsule was above 0.01 on any image.
    """

    mean: float
    share_low: float
    share_high: float
    dead_types: int


@dataclass(frozen=True)
class RoutingAgreement:
    """How the votes for the class capsules agree over a labelled set, after each iteration.

    Tuples have one number an iteration. A class without data has no votes, and is left out of what is said of votes;
    NaN where every class is.

    Attributes:
        share_true: the true class's share of the classes' data (assignment times activation), mean over images.
        chance: what share each class would have if all had the same.
        log_deviation_true: mean of ln σ over the 16 components and the images, of the true class.
        log_deviation_others: the same of the other classes.
        nearest_is_true: share of images on which the true class's votes lie nearest to their mean: its Σ σ² is the
            smallest.
        activation_true: mean activation of the true class.
        activation_others: of the other classes.
        accuracy: share of images that would be right if the routing ended here.
        changed: share of images whose most active class is another than an iteration before; 0 for the first.
        layers: by the layer's name, after the last iteration.
        num_images: images measured.
    """

    share_true: tuple[float, ...]
    chance: float
    log_deviation_true: tuple[float, ...]
    log_deviation_others: tuple[float, ...]
    nearest_is_true: tuple[float, ...]
    activation_true: tuple[float, ...]
    activation_others: tuple[float, ...]
    accuracy: tuple[float, ...]
    changed: tuple[float, ...]
    layers: dict[str, LayerActivity]
    num_images: int

    @property
    def log_deviation_gap(self) -> tuple[float, ...]:
        """By how much ln σ of the true class lies below that of the others; below 0: its votes are closer together."""
        pairs = zip(self.log_deviation_true, self.log_deviation_others, strict=True)
        return tuple(true - others for true, others in pairs)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it: None for NaN."""
        values = {**asdict(self), "log_deviation_gap": self.log_deviation_gap}
        return {
            name: [None if one != one else one for one in value] if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RoutingAgreement":
        """What :meth:`to_dict` wrote; more than that is passed over.

        Raises:
            ValueError: something is missing, or is of another kind.
        """
        try:
            found = {entry.name: values[entry.name] for entry in fields(cls)}
            for name, value in found.items():
                if isinstance(value, list):
                    found[name] = tuple(torch.nan if one is None else float(one) for one in value)
            found["layers"] = {name: LayerActivity(**layer) for name, layer in found["layers"].items()}
            lengths = {len(found[name]) for name in ("share_true", *_BY_ITERATION)}
            if lengths == {0} or len(lengths) > 1:
                raise ValueError(f"must have one number an iteration; got {sorted(lengths)} numbers")
            return cls(**found)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not what RoutingAgreement.to_dict gave: {error!r}") from None


_BY_ITERATION = (
    "log_deviation_true",
    "log_deviation_others",
    "nearest_is_true",
    "activation_true",
    "activation_others",
    "accuracy",
    "changed",
)


class AgreementTally:
    """Measures :class:`RoutingAgreement` batch by batch, from what the layers gave: no further pass is needed.

    Args:
        network: whose routing is measured.
    """

    def __init__(self, network: EMCapsNet):
        self.network = network
        self._layers: OrderedDict[str, Tally] = OrderedDict()
        self._parts: list[tuple[Tensor, ...]] = []
        self._num_images = 0

    def add(
        self, outputs: Mapping[str, Capsules], coordinates: Tensor | None, labels: Tensor
    ) -> list[RoutingIteration]:
        """Count a batch in.

        Args:
            outputs: from :meth:`matcaps.models.EMCapsNet.layer_outputs`.
            coordinates: from :meth:`matcaps.models.EMCapsNet.class_coordinates`.
            labels: ``[B]``, int64.

        Returns:
            The states of the class capsules.
        """
        states = self.network.class_capsules.trace(outputs["conv_capsules2"], coordinates)
        if len(labels) == 0:
            return states
        for name, capsules in outputs.items():
            by_type = capsules.activations.flatten(0, -2).cpu().double()
            self._layers.setdefault(name, Tally(by_type.shape[1])).add(by_type)
        self._parts.append((*_of_classes(states), labels.cpu()))
        self._num_images += len(labels)
        return states

    def health(self) -> "OrderedDict[str, LayerHealth]":
        """What :func:`matcaps.inspection.capsule_health` finds, by the layer's name."""
        return OrderedDict((name, tally.health(self._num_images)) for name, tally in self._layers.items())

    def result(self) -> RoutingAgreement:
        """Of all that was counted.

        Raises:
            ValueError: there were no images.
        """
        if not self._parts:
            raise ValueError("batches must hold at least one image; got none")
        parts = (torch.cat(values) for values in zip(*self._parts, strict=True))
        shares, log_deviations, spreads, activations, labels = parts
        is_true = torch.nn.functional.one_hot(labels, shares.shape[2]).bool()
        share_true, _ = _divide(shares, is_true)
        deviation_true, deviation_others = _divide(log_deviations, is_true)
        activation_true, activation_others = _divide(activations, is_true)
        is_nearest = (spreads.argmin(dim=2) == labels[:, None]) & spreads.amin(dim=2).isfinite()
        answers_NT = activations.argmax(dim=2)
        changed = (answers_NT[:, 1:] != answers_NT[:, :-1]).double().mean(dim=0)
        return RoutingAgreement(
            share_true=share_true,
            chance=1 / shares.shape[2],
            log_deviation_true=deviation_true,
            log_deviation_others=deviation_others,
            nearest_is_true=_tuple(is_nearest.double().mean(dim=0)),
            activation_true=activation_true,
            activation_others=activation_others,
            accuracy=_tuple((answers_NT == labels[:, None]).double().mean(dim=0)),
            changed=(0.0, *_tuple(changed)),
            layers={name: _of_layer(health) for name, health in self.health().items()},
            num_images=self._num_images,
        )


@inspects
def routing_agreement(network: EMCapsNet, batches: Iterable[Batch]) -> RoutingAgreement:
    """Measure over a labelled set what routing does for the true class, and how active each layer is.

    Args:
        network: on any device; what is found comes to the host.
        batches: see :func:`matcaps.data.make_loader`; of several crops of an image the first, the centre, is taken.

    Raises:
        ValueError: there are no images.

    Example:
        >>> from matcaps import create_model
        >>> network = create_model("quickstart", in_channels=1, num_classes=3)
        >>> batch = Batch(torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 0]), torch.arange(4))
        >>> len(routing_agreement(network, [batch]).share_true)  # one number an iteration
        3
    """
    tally = AgreementTally(network)
    for batch in batches:
        images = batch.images[:, 0] if batch.images.ndim == 5 else batch.images
        images = send(images, device_of(network))
        if len(images):
            tally.add(network.layer_outputs(images), network.class_coordinates(images), batch.labels)
    return tally.result()


def _of_layer(health: LayerHealth) -> LayerActivity:
    return LayerActivity(float(health.mean.mean()), health.layer_low, health.layer_high, len(health.dead))


def _of_classes(states: list[RoutingIteration]) -> tuple[Tensor, ...]:
    """Shares of the data, mean ln σ, Σ σ² and activations, each ``[B, T, J]`` in float64; without data NaN and ∞."""
    mass, variance, activation = (
        torch.stack([getattr(state, name) for state in states], dim=1).cpu().double()
        for name in ("mass", "variance", "activation")
    )
    share = mass / mass.sum(dim=2, keepdim=True).clamp_min(1e-20)
    is_empty = mass <= EMPTY_MASS
    log_deviation = (variance.log().mean(dim=3) / 2).masked_fill(is_empty, torch.nan)
    return share, log_deviation, variance.sum(dim=3).masked_fill(is_empty, torch.inf), activation


def _divide(values_NTJ: Tensor, is_true_NJ: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means over the images of the true class and of the others, an iteration each; NaN is left out."""
    values_NJT = values_NTJ.transpose(1, 2)
    return _tuple(values_NJT[is_true_NJ].nanmean(dim=0)), _tuple(values_NJT[~is_true_NJ].nanmean(dim=0))


def _tuple(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())
