"""What is active where, iteration by iteration, and which capsule types never or always are."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matcaps.data.devices import send
from matcaps.inspection.door import inspects
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of

DEAD_BELOW = 0.01
"""A capsule type is dead where none of its capsules is active beyond this on any of the images looked at."""

SATURATED_ABOVE = 1 - DEAD_BELOW
"""A capsule type is saturated where every one of its capsules is active beyond this on every image."""


@dataclass(frozen=True, eq=False)
class LayerHealth:
    """The activations of each capsule type of a layer, over all positions and images.

    Attributes:
        minimum: ``[I]``, the smallest activation of each type.
        mean: ``[I]``.
        maximum: ``[I]``.
        deviation: ``[I]``, standard deviation; a type whose activation never changes tells nothing by it.
        share_low: ``[I]``, share of capsules below :data:`DEAD_BELOW`.
        share_high: ``[I]``, share of capsules above :data:`SATURATED_ABOVE`.
        num_images: images looked at.
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
        """Types of which no capsule was active beyond :data:`DEAD_BELOW` on any image."""
        return (self.maximum < DEAD_BELOW).nonzero().flatten().tolist()

    @property
    def saturated(self) -> list[int]:
        """Types of which every capsule was active beyond :data:`SATURATED_ABOVE` on every image."""
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
        """All of it as JSON can hold it."""
        values = {name: value.tolist() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return {"dead": self.dead, "saturated": self.saturated, "num_images": self.num_images, **values}


@inspects
def activation_maps(network: EMCapsNet, images: Tensor) -> "OrderedDict[str, Tensor]":
    """Return the activations of every layer after every iteration, by the layer's name.

    Args:
        network: on any device; what is found comes to the host.
        images: ``[B, C, H, W]``, prepared as the network takes them.

    Returns:
        ``[B, T, H, W, I]``: T is 1 for the primary capsules, which are not routed; H and W are 1 for the classes.
    """
    primary = network.layer_outputs(images)["primary_capsules"].activations
    maps = OrderedDict(primary_capsules=primary.unsqueeze(1))
    for name, states in network.trace(images).items():
        values = torch.stack([state.activation for state in states], 1)
        maps[name] = values if values.ndim == 5 else values[:, :, None, None]
    return maps


@inspects
def capsule_health(network: EMCapsNet, batches: Iterable[Tensor]) -> "OrderedDict[str, LayerHealth]":
    """Look for capsule types that are dead or saturated.

    Args:
        network: on any device; what is found comes to the host.
        batches: images ``[B, C, H, W]`` at a time, prepared as the network takes them.

    Returns:
        By the layer's name, class capsules too.

    Raises:
        ValueError: there are no images.
    """
    tallies: OrderedDict[str, Tally] = OrderedDict()
    num_images = 0
    for images in batches:
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
    """Sums over batches, so that a whole test set need not be held."""

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
