"""Which capsule types are never active, or always active."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from matcaps._progress import watched
from matcaps.data.devices import send
from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display
from matcaps.inspect.style import COLOURS, LAYER_TITLES, new_figure
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of

if TYPE_CHECKING:
    from matcaps.inspect.opening import SavedInspection


DEAD_BELOW = 0.01
"""A capsule type is dead if no activation of its capsules exceeds this on any image."""

SATURATED_ABOVE = 1 - DEAD_BELOW
"""A capsule type is saturated if every activation of its capsules exceeds this on every image."""


@dataclass(frozen=True, eq=False)
class LayerHealth:
    """The activations of each capsule type of a layer, over all positions and images.

    Attributes:
        minimum: ``[I]``, the smallest activation of each type.
        mean: ``[I]``.
        maximum: ``[I]``.
        deviation: ``[I]``, standard deviation; a type whose activation never changes carries no information.
        share_low: ``[I]``, share of capsules below :data:`DEAD_BELOW`.
        share_high: ``[I]``, share of capsules above :data:`SATURATED_ABOVE`.
        num_images: images measured.
    """

    minimum: Tensor
    mean: Tensor
    maximum: Tensor
    deviation: Tensor
    share_low: Tensor
    share_high: Tensor
    num_images: int

    @property
    def dead(self) -> list[int]:
        """Types without an activation of at least :data:`DEAD_BELOW` on any image."""
        return (self.maximum < DEAD_BELOW).nonzero().flatten().tolist()

    @property
    def saturated(self) -> list[int]:
        """Types whose every activation exceeds :data:`SATURATED_ABOVE` on every image."""
        return (self.minimum > SATURATED_ABOVE).nonzero().flatten().tolist()

    @property
    def layer_low(self) -> float:
        """Share of all the layer's capsules below :data:`DEAD_BELOW`."""
        return float(self.share_low.mean())

    @property
    def layer_high(self) -> float:
        """Share of all the layer's capsules above :data:`SATURATED_ABOVE`."""
        return float(self.share_high.mean())

    def to_dict(self) -> dict[str, Any]:
        """All values in a form that JSON can hold."""
        values = {name: value.tolist() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return {"dead": self.dead, "saturated": self.saturated, "num_images": self.num_images, **values}


@inspects
def capsule_health(network: EMCapsNet, batches: Iterable[Tensor]) -> "OrderedDict[str, LayerHealth]":
    """Look for capsule types that are dead or saturated.

    Args:
        network: on any device; the results are on the CPU.
        batches: images ``[B, C, H, W]`` at a time, prepared as the network takes them.

    Returns:
        By the layer's name, class capsules too.

    Raises:
        ValueError: there are no images.
    """
    tallies: OrderedDict[str, Tally] = OrderedDict()
    num_images = 0
    for images in watched(batches, "images"):
        if len(images) == 0:
            continue
        num_images += len(images)
        for name, capsules in network.layer_outputs(send(images, device_of(network))).items():
            activations = capsules.activations.flatten(0, -2).cpu().double()
            tallies.setdefault(name, Tally(activations.shape[1])).add(activations)
    if not num_images:
        raise ValueError("batches must hold at least one image; got none")
    return OrderedDict((name, tally.health(num_images)) for name, tally in tallies.items())


class Tally:
    """Sums over batches, so that the activations of a whole test set need not be in memory."""

    def __init__(self, types: int):
        zeros = torch.zeros(types, dtype=torch.float64)
        self.count = 0
        self.minimum, self.maximum = torch.full_like(zeros, torch.inf), torch.full_like(zeros, -torch.inf)
        self.sum, self.squares, self.low, self.high = (zeros.clone() for _ in range(4))

    def add(self, activations: Tensor) -> None:
        self.count += len(activations)
        self.minimum = torch.minimum(self.minimum, activations.amin(0))
        self.maximum = torch.maximum(self.maximum, activations.amax(0))
        self.sum += activations.sum(0)
        self.squares += (activations**2).sum(0)
        self.low += (activations < DEAD_BELOW).sum(0)
        self.high += (activations > SATURATED_ABOVE).sum(0)

    def health(self, num_images: int) -> LayerHealth:
        mean = self.sum / self.count
        return LayerHealth(
            minimum=self.minimum,
            mean=mean,
            maximum=self.maximum,
            deviation=(self.squares / self.count - mean**2).clamp_min(0).sqrt(),
            share_low=self.low / self.count,
            share_high=self.high / self.count,
            num_images=num_images,
        )


@dataclass(frozen=True, eq=False)
class HealthDisplay(Display):
    """Health of each capsule type, by the layer's name."""

    layers: Mapping[str, LayerHealth]
    title: str
    caption: ClassVar[str] = (
        "The least, mean and largest activation of each capsule type over many images. A type that is never active, or"
        " always active, carries no information."
    )
    as_json: ClassVar[bool] = True

    @classmethod
    def from_inspection(cls, inspection: "SavedInspection") -> "HealthDisplay | None":
        """Measure over the labelled set; None without one."""
        return None if inspection.survey is None else cls(inspection.survey.health, inspection.set_title)

    @property
    def numbers(self) -> dict[str, Any]:
        return {name: layer.to_dict() for name, layer in self.layers.items()}

    @property
    def sentences(self) -> dict[str, str]:
        sentences = {}
        for state in ("dead", "saturated"):
            types = {name: getattr(layer, state) for name, layer in self.layers.items() if getattr(layer, state)}
            listed = "; ".join(f"{name} {', '.join(map(str, which))}" for name, which in types.items())
            sentences[f"{state} types"] = listed or "none"
        sentences["activations"] = ", ".join(
            f"{name} {100 * layer.layer_low:.0f} % below 0.01 and {100 * layer.layer_high:.0f} % above 0.99"
            for name, layer in self.layers.items()
        )
        return sentences

    def plot(self) -> Figure:
        """Draw range and mean of each capsule type's activation, with dead and saturated types marked."""
        layers, title = self.layers, self.title
        names = list(layers)
        widths = [max(9, len(layers[name].mean)) for name in names]
        figure = new_figure(width=3.2 + 0.14 * sum(widths), height=3.4)
        panels = figure.subplots(1, len(names), sharey=True, width_ratios=widths, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            health = layers[name]
            types = np.arange(len(health.mean))
            colours = np.array([COLOURS[0]] * len(types), dtype=object)
            colours[health.dead] = COLOURS[1]
            colours[health.saturated] = COLOURS[4]
            axes.axhspan(0, DEAD_BELOW, color=COLOURS[1], alpha=0.25, linewidth=0)
            axes.axhspan(SATURATED_ABOVE, 1, color=COLOURS[4], alpha=0.35, linewidth=0)
            axes.vlines(types, health.minimum.numpy(), health.maximum.numpy(), colors=list(colours), linewidth=2)
            axes.scatter(types, health.mean.numpy(), c=list(colours), s=16, zorder=3)
            axes.set_xticks(types[:: max(1, len(types) // 8)])
            axes.set_xlim(-0.8, len(types) - 0.2)
            axes.set_xlabel("class" if name == "class_capsules" else "type", fontsize=8)
            axes.set_title(
                f"{LAYER_TITLES[name]}\n{len(health.dead)} dead, {len(health.saturated)} saturated types\n"
                f"{100 * health.layer_low:.0f} % below {DEAD_BELOW:g}, "
                f"{100 * health.layer_high:.0f} % above {SATURATED_ABOVE:g}",
                fontsize=7,
            )
            axes.tick_params(labelsize=7)
            axes.grid(axis="y", alpha=0.3)
        panels[0].set_ylim(-0.02, 1.02)
        panels[0].set_ylabel("activation: least, mean, most")
        figure.suptitle(f"{title}, {next(iter(layers.values())).num_images} images", fontsize=9)
        return figure
