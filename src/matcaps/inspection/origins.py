"""Which capsules a class capsule was made from, layer by layer back to the primary ones."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from matcaps.inspection.door import inspects
from matcaps.layers import ConvCapsules
from matcaps.models import EMCapsNet
from matcaps.models.geometry import Axis
from matcaps.routing import RoutingIteration


@dataclass(frozen=True, eq=False)
class Contributions:
    """The shares that the capsules of each layer have in one class capsule of each image.

    Attributes:
        classes: ``[B]``, int64, the class that is explained.
        shares: by the layer's name, from the last map back to the primary capsules: ``[B, H, W, I]``, which sum to 1
            over an image's capsules in every layer.
        fields: by the layer's name, rows and columns of its map: where the positions look.
    """

    classes: Tensor
    shares: "OrderedDict[str, Tensor]"
    fields: "OrderedDict[str, tuple[Axis, Axis]]"


@inspects
def contributions(network: EMCapsNet, images: Tensor, classes: Tensor | None = None) -> Contributions:
    """Divide a class capsule over the capsules below it, and each of these over those below.

    A parent's mean is the weighted mean of its children's votes, and a child's weight in it, assignment times
    activation over the parent's mass (last iteration), is its share in the parent. A class has 1 to divide; what a
    capsule has got from all its parents it divides in the same way. This says where the pose came from, not what
    would happen to the activation if a capsule were taken away.

    Args:
        network: on any device; what is found comes to the host.
        images: ``[B, C, H, W]``, prepared as the network takes them.
        classes: ``[B]``, int64; None for the most active class of each image.

    Returns:
        The shares. A parent with no data at all, mass 0, passes nothing on; only then does a layer's sum fall below 1.
    """
    outputs, states = network.layer_outputs(images), network.trace(images)
    if classes is None:
        classes = outputs["class_capsules"].activations.argmax(dim=1)
    last = states["class_capsules"][-1]
    below = outputs["conv_capsules2"].activations
    chosen = child_shares(last, below.flatten(1))[torch.arange(len(images), device=classes.device), :, classes]
    shares = OrderedDict(conv_capsules2=chosen.unflatten(1, below.shape[1:]))
    for name, child in (("conv_capsules2", "conv_capsules1"), ("conv_capsules1", "primary_capsules")):
        layer = network.get_submodule(name)
        assert isinstance(layer, ConvCapsules)
        shares[child] = _pass_down(layer, states[name][-1], outputs[child].activations, shares[name])
    height, width = images.shape[-2:]
    return Contributions(classes, shares, network.receptive_fields(height, width))


def child_shares(state: RoutingIteration, activations: Tensor) -> Tensor:
    """Each child's share in each parent's mean, ``[..., I, J]``: sums to 1 over children, or to 0 without data.

    Args:
        state: after an M-step.
        activations: ``[..., I]``, the children's.
    """
    data = state.assignment * activations.unsqueeze(-1)
    mass = data.sum(dim=-2, keepdim=True)
    return torch.where(mass > 0, data / torch.where(mass > 0, mass, 1), 0)


def _pass_down(layer: ConvCapsules, state: RoutingIteration, activations: Tensor, parents: Tensor) -> Tensor:
    """Divide the shares of parents ``[B, H', W', J]`` over the children ``[B, H, W, I]`` of all their windows."""
    kernel_size, stride = layer.weight.shape[0], layer.stride
    windows_BHWIKK = activations.unfold(1, kernel_size, stride).unfold(2, kernel_size, stride)
    windows_BHWKKI = windows_BHWIKK.movedim((-2, -1), (3, 4))
    shares = child_shares(state, windows_BHWKKI.flatten(3)) @ parents.unsqueeze(-1)
    shares_BHWKKI = shares.squeeze(-1).unflatten(3, windows_BHWKKI.shape[3:])
    children = torch.zeros_like(activations)
    rows, columns = stride * (parents.shape[1] - 1) + 1, stride * (parents.shape[2] - 1) + 1
    for row in range(kernel_size):
        for column in range(kernel_size):
            place = children[:, row : row + rows : stride, column : column + columns : stride]
            place += shares_BHWKKI[:, :, :, row, column]
    return children
