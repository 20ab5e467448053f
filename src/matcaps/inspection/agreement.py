"""Whether routing does what it is for: the true class gathers data, its votes come together, no layer is saturated.

What is read here is what the routing itself computes of every iteration; the votes need not be written out.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from matcaps.data.loader import Batch
from matcaps.inspection.activations import LayerHealth, Tally
from matcaps.inspection.door import inspects
from matcaps.models import EMCapsNet
from matcaps.routing import RoutingIteration


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

    Tuples have one number an iteration.

    Attributes:
        share_true: the true class's share of the classes' data (assignment times activation), mean over images.
        chance: what share each class would have if all had the same.
        log_deviation_true: mean of ln σ over the 16 components and the images, of the true class.
        log_deviation_others: the same of the other classes.
        nearest_is_true: share of images on which the true class's votes lie nearest to their mean: its Σ σ² is the
            smallest. A class without data has no votes, and is not the nearest.
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
        """All of it as JSON can hold it."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**values, "log_deviation_gap": list(self.log_deviation_gap)}


@inspects
def routing_agreement(network: EMCapsNet, batches: Iterable[Batch]) -> RoutingAgreement:
    """Measure over a labelled set what routing does for the true class, and how active each layer is.

    Args:
        network: on the CPU.
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
    tallies: OrderedDict[str, Tally] = OrderedDict()
    parts: list[tuple[Tensor, ...]] = []
    for batch in batches:
        images = batch.images[:, 0] if batch.images.ndim == 5 else batch.images
        if len(images) == 0:
            continue
        outputs = network.layer_outputs(images)
        for name, capsules in outputs.items():
            by_type = capsules.activations.flatten(0, -2).double()
            tallies.setdefault(name, Tally(by_type.shape[1])).add(by_type)
        states = network.class_capsules.trace(outputs["conv_capsules2"], network.class_coordinates(images))
        parts.append((*_of_classes(states), batch.labels))
    if not parts:
        raise ValueError("batches must hold at least one image; got none")
    shares, log_deviations, spreads, activations, labels = (torch.cat(values) for values in zip(*parts, strict=True))
    is_true = torch.nn.functional.one_hot(labels, shares.shape[2]).bool()
    share_true, _ = _divide(shares, is_true)
    deviation_true, deviation_others = _divide(log_deviations, is_true)
    activation_true, activation_others = _divide(activations, is_true)
    answers_NT = activations.argmax(dim=2)
    changed = (answers_NT[:, 1:] != answers_NT[:, :-1]).double().mean(dim=0)
    return RoutingAgreement(
        share_true=share_true,
        chance=1 / shares.shape[2],
        log_deviation_true=deviation_true,
        log_deviation_others=deviation_others,
        nearest_is_true=_tuple((spreads.argmin(dim=2) == labels[:, None]).double().mean(dim=0)),
        activation_true=activation_true,
        activation_others=activation_others,
        accuracy=_tuple((answers_NT == labels[:, None]).double().mean(dim=0)),
        changed=(0.0, *_tuple(changed)),
        layers={name: _of_layer(tally.health(len(labels))) for name, tally in tallies.items()},
        num_images=len(labels),
    )


def _of_layer(health: LayerHealth) -> LayerActivity:
    return LayerActivity(float(health.mean.mean()), health.layer_low, health.layer_high, len(health.dead))


def _of_classes(states: list[RoutingIteration]) -> tuple[Tensor, ...]:
    """Shares of the data, mean ln σ, Σ σ² and activations, each ``[B, T, J]`` in float64."""
    mass = torch.stack([state.mass for state in states], dim=1).double()
    variance = torch.stack([state.variance for state in states], dim=1).double()
    activation = torch.stack([state.activation for state in states], dim=1).double()
    share = mass / mass.sum(dim=2, keepdim=True).clamp_min(1e-20)
    spread = variance.sum(dim=3).masked_fill(mass <= 0, torch.inf)
    return share, variance.log().mean(dim=3) / 2, spread, activation


def _divide(values_NTJ: Tensor, is_true_NJ: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means over the images of the true class and of the others, an iteration each."""
    values_NJT = values_NTJ.transpose(1, 2)
    return _tuple(values_NJT[is_true_NJ].mean(dim=0)), _tuple(values_NJT[~is_true_NJ].mean(dim=0))


def _tuple(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())
