"""Whether routing works as intended: the true class gains data, its votes come together, no layer is saturated.

These measures use only what the routing itself computes in every iteration; the votes need not be in memory.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from matcaps._progress import watched
from matcaps.capsules import Capsules
from matcaps.data.devices import send
from matcaps.data.loader import Batch
from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display
from matcaps.inspect.health import LayerHealth, Tally
from matcaps.inspect.style import COLOURS, GREY, MARKERS, new_figure
from matcaps.inspect.wording import NOTICEABLE, arrows, rises
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of
from matcaps.routing import RoutingIteration
from matcaps.routing.reference import EMPTY_MASS

if TYPE_CHECKING:
    from matcaps.inspect.opening import SavedInspection


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

    Tuples have one number for each iteration. A class without data has no votes; measures of votes leave it out, and
    are NaN where no class has data.

    Attributes:
        share_true: the true class's share of the classes' data (assignment times activation), mean over images.
        chance: the share of each class if all classes had the same.
        log_deviation_true: mean of ln σ over the 16 components and the images, of the true class.
        log_deviation_others: the same of the other classes.
        nearest_is_true: share of images on which the true class's votes lie nearest to their mean: its Σ σ² is the
            smallest.
        activation_true: mean activation of the true class.
        activation_others: of the other classes.
        accuracy: share of images that would be right if the routing ended here.
        changed: share of images whose most active class differs from the one before; 0 for the first iteration.
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
        """ln σ of the true class minus that of the others; below 0, the true class's votes are closer together."""
        pairs = zip(self.log_deviation_true, self.log_deviation_others, strict=True)
        return tuple(true - others for true, others in pairs)

    def to_dict(self) -> dict[str, Any]:
        """All values in a form that JSON can hold: None for NaN."""
        values = {**asdict(self), "log_deviation_gap": self.log_deviation_gap}
        return {
            name: [None if one != one else one for one in value] if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RoutingAgreement":
        """Read what :meth:`to_dict` wrote; other entries are ignored.

        Raises:
            ValueError: an entry is missing or has the wrong type.
        """
        try:
            entries = {entry.name: values[entry.name] for entry in fields(cls)}
            for name, value in entries.items():
                if isinstance(value, list):
                    entries[name] = tuple(torch.nan if one is None else float(one) for one in value)
            entries["layers"] = {name: LayerActivity(**layer) for name, layer in entries["layers"].items()}
            lengths = {len(entries[name]) for name in ("share_true", *_BY_ITERATION)}
            if lengths == {0} or len(lengths) > 1:
                raise ValueError(f"must have one number an iteration; got {sorted(lengths)} numbers")
            return cls(**entries)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a result of RoutingAgreement.to_dict: {error!r}") from None


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
    """Measures :class:`RoutingAgreement` batch by batch, from the layers' outputs, without another forward pass.

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
        """Add a batch.

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
        """The result of :func:`matcaps.inspect.capsule_health`, by the layer's name."""
        return OrderedDict((name, tally.health(self._num_images)) for name, tally in self._layers.items())

    def result(self) -> RoutingAgreement:
        """The measures over all batches added.

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
    """Measure over a labelled set how routing treats the true class, and how active each layer is.

    Args:
        network: on any device; the results are on the CPU.
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
    for batch in watched(batches, "images"):
        images = batch.images[:, 0] if batch.images.ndim == 5 else batch.images
        images = send(images, device_of(network))
        if len(images):
            tally.add(network.layer_outputs(images), network.class_coordinates(images), batch.labels)
    return tally.result()


def _of_layer(health: LayerHealth) -> LayerActivity:
    return LayerActivity(float(health.mean.mean()), health.layer_low, health.layer_high, len(health.dead))


def _of_classes(states: list[RoutingIteration]) -> tuple[Tensor, ...]:
    """Shares of the data, mean ln σ (NaN without data), Σ σ² (∞ without data), activations: ``[B, T, J]``, float64."""
    mass, variance, activation = (
        torch.stack([getattr(state, name) for state in states], dim=1).cpu().double()
        for name in ("mass", "variance", "activation")
    )
    share = mass / mass.sum(dim=2, keepdim=True).clamp_min(1e-20)
    is_empty = mass <= EMPTY_MASS
    log_deviation = (variance.log().mean(dim=3) / 2).masked_fill(is_empty, torch.nan)
    return share, log_deviation, variance.sum(dim=3).masked_fill(is_empty, torch.inf), activation


def _divide(values_NTJ: Tensor, is_true_NJ: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means over the images, for the true class and for the others, one for each iteration; NaN is left out."""
    values_NJT = values_NTJ.transpose(1, 2)
    return _tuple(values_NJT[is_true_NJ].nanmean(dim=0)), _tuple(values_NJT[~is_true_NJ].nanmean(dim=0))


def _tuple(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())


def agreement_in_words(measured: RoutingAgreement) -> list[str]:
    """Describe whether routing brings the true class's votes together and gives it data: first the judgement, then why.

    Example:
        >>> from matcaps import create_model
        >>> from matcaps.data.loader import Batch
        >>> import torch
        >>> from matcaps.inspect import routing_agreement
        >>> batch = Batch(torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 0]), torch.arange(4))
        >>> network = create_model("quickstart", in_channels=1, num_classes=3, iterations=1)
        >>> agreement_in_words(routing_agreement(network, [batch]))[0]
        'With one iteration nothing is routed: every class has the same data'
    """
    return measures_in_words(
        measured.share_true, measured.log_deviation_gap, measured.nearest_is_true, measured.changed[1:], measured.chance
    )


def measures_in_words(
    share_true: Sequence[float],
    log_deviation_gap: Sequence[float],
    nearest_is_true: Sequence[float],
    changed: Sequence[float],
    chance: float,
) -> list[str]:
    """:func:`agreement_in_words` from the numbers alone; ``changed`` starts with the second iteration."""
    if len(share_true) == 1:
        return ["With one iteration nothing is routed: every class has the same data"]
    end, gap = share_true[-1], log_deviation_gap[-1]
    gains = rises(share_true) and end > chance * (1 + NOTICEABLE)
    tightens = rises([-one for one in log_deviation_gap]) and gap < 0
    if gains and tightens:
        judgement = "Routing gives the true class data and brings its votes together, with every iteration"
    elif gains:
        judgement = "Routing gives the true class data, but does not bring its votes together with every iteration"
    elif tightens:
        judgement = "Routing brings the true class's votes together, but does not give it data with every iteration"
    else:
        judgement = "Routing neither gives the true class data nor brings its votes together with every iteration"
    if gains:
        of_share = "it gains with every iteration"
    elif end > chance * (1 + NOTICEABLE):
        of_share = "it ends with more than chance"
    elif end < chance * (1 - NOTICEABLE):
        of_share = "it ends with less than chance"
    else:
        of_share = "it ends with about what chance gives"
    if tightens:
        of_gap = "they are closer together with every iteration"
    elif gap < 0:
        of_gap = "they end closer together than the others', but not by coming closer with every iteration"
    else:
        of_gap = "they end no closer together than the others'"
    sentences = [
        judgement,
        f"The true class's share of the data by iteration is {arrows(share_true, 100)} % (chance "
        f"{100 * chance:.3g} %): {of_share}",
        f"ln σ of its votes, less that of the others', is {arrows(log_deviation_gap)}: {of_gap}",
        f"Its votes lie nearest to their mean on {arrows(nearest_is_true, 100)} % of the images (chance "
        f"{100 * chance:.3g} %)",
    ]
    if changed:
        sentences.append(f"From one iteration to the next {arrows(changed, 100)} % of the answers change")
    return sentences


@dataclass(frozen=True, eq=False)
class AgreementDisplay(Display):
    """How routing treats the true class over a labelled set."""

    agreement: RoutingAgreement
    title: str
    caption: ClassVar[str] = (
        "How routing treats the true class over many images, by iteration: its share of the data, how widely its "
        "votes spread, and on how many images they are the nearest to their mean. Also, how active each layer is."
    )
    as_json: ClassVar[bool] = True

    @classmethod
    def from_inspection(cls, inspection: "SavedInspection") -> "AgreementDisplay | None":
        """Measure over the labelled set; None without one."""
        return None if inspection.survey is None else cls(inspection.survey.agreement, inspection.set_title)

    @property
    def numbers(self) -> dict[str, Any]:
        return self.agreement.to_dict()

    @property
    def sentences(self) -> dict[str, str]:
        return {"agreement": ". ".join(agreement_in_words(self.agreement))}

    def plot(self) -> Figure:
        """Draw, by iteration, the measures of the true class and of the others; and each layer's activity."""
        agreement, title = self.agreement, self.title
        figure = new_figure(5, width=2.7, height=3.1)
        panels = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1.25])
        steps = np.arange(1, len(agreement.share_true) + 1)
        others = [(1 - share) * agreement.chance / (1 - agreement.chance) for share in agreement.share_true]
        pairs = (
            ("share of the data, %", 100, agreement.share_true, others),
            ("mean ln σ of the votes", 1, agreement.log_deviation_true, agreement.log_deviation_others),
            ("activation", 1, agreement.activation_true, agreement.activation_others),
        )
        for axes, (name, factor, true, other) in zip((panels[0], panels[1], panels[3]), pairs, strict=True):
            for place, (values, label) in enumerate(((true, "true class"), (other, "one other class, mean"))):
                axes.plot(steps, factor * np.array(values), MARKERS[place] + "-", color=COLOURS[place], label=label)
            axes.set_title(name, fontsize=9)
        panels[2].plot(
            steps, 100 * np.array(agreement.nearest_is_true), "o-", color=COLOURS[0], label="true class's votes nearest"
        )
        panels[2].plot(
            steps, 100 * np.array(agreement.accuracy), "^-", color=COLOURS[2], label="right, if this were the last"
        )
        panels[2].plot(steps[1:], 100 * np.array(agreement.changed[1:]), "D-", color=COLOURS[3], label="answer changed")
        panels[2].set_title("share of the images, %", fontsize=9)
        for axes in (panels[0], panels[2]):
            axes.axhline(100 * agreement.chance, color="black", linestyle=":", linewidth=1, label="chance")
            axes.set_ylim(-2, 102)
        panels[3].set_ylim(-0.02, 1.02)
        for axes in panels[:4]:
            axes.set_xticks(steps)
            axes.set_xlabel("iteration", fontsize=9)
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=8)
        for axes in (panels[0], panels[2]):
            axes.legend(fontsize=7)
        _draw_layers(panels[4], agreement)
        figure.suptitle(f"{title}, {agreement.num_images} images", fontsize=9)
        return figure


def _draw_layers(axes: Axes, agreement: RoutingAgreement) -> None:
    """Draw for each layer the share of capsules that are off, in between, and on."""
    names = list(agreement.layers)
    low, high = (
        np.array([100 * getattr(one, name) for one in agreement.layers.values()])
        for name in ("share_low", "share_high")
    )
    places = np.arange(len(names))
    axes.barh(places, low, color=GREY, label="below 0.01")
    axes.barh(places, high, left=100 - high, color=COLOURS[4], label="above 0.99")
    for place, layer in enumerate(agreement.layers.values()):
        axes.plot(100 * layer.mean, place, "D", color="black", markersize=5, label="mean" if place == 0 else None)
    axes.set_yticks(places, [name.replace("_", " ").replace(" capsules", "\ncapsules") for name in names], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("capsules, %; mean activation × 100", fontsize=8)
    axes.set_title("activations of each layer", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)
