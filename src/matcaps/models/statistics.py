"""Running statistics of a network: computed for other weights, such as averaged ones, or folded into the weights."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from matcaps.layers import ClassCapsules, ConvCapsules, NormalisedRoutingParameters, RoutingParameters
from matcaps.layers.normalisation import NormalisedConv2d
from matcaps.layers.routings import VoteRouting
from matcaps.models.config import ROUTED_LAYERS
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.modes import evaluation_mode

_SETTLING = 12
"""Batches after which the routing's statistics have settled: a layer's costs change while the layers before it settle,
so the first batches are forgotten, and the later ones are averaged."""
_SETTLING_SHARE = 0.2


def has_statistics(network: nn.Module) -> bool:
    """Whether a network has running statistics that :func:`update_statistics` would compute."""
    return any(isinstance(module, _BatchNorm | NormalisedRoutingParameters) for module in network.modules())


def statistics_of(network: nn.Module) -> list[Tensor]:
    """The running statistics of a network, including those of frozen layers."""
    kinds = _BatchNorm, NormalisedRoutingParameters
    buffers = [buffer for module in network.modules() if isinstance(module, kinds) for buffer in module.buffers()]
    return [buffer for buffer in buffers if buffer.is_floating_point()]


@torch.no_grad()
def update_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Compute the running statistics of batch normalisation and of normalised routing anew, in place.

    Like ``torch.optim.swa_utils.update_bn``, which knows only batch normalisation. Averaged weights have other
    statistics than the weights that they are the average of. Frozen layers keep theirs.

    Args:
        network: any network with such layers; one without stays unchanged. The modules' modes are restored.
        batches: images as in training, ``[B, C, H, W]``; about thirty batches, more where small differences matter.

    Example:
        >>> import matcaps
        >>> network = matcaps.create_model("agreement-small")
        >>> update_statistics(network, [torch.rand(8, 2, 32, 32) for _ in range(3)])
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    routings = [module for module in network.modules() if isinstance(module, NormalisedRoutingParameters)]
    if not norms and not routings:
        return
    of_norms = [module.momentum for module in norms]
    of_routings = [module.momentum for module in routings]
    with evaluation_mode(network):  # which puts every module back into its mode afterwards
        for module in (*norms, *routings):
            module.train()
        try:
            for count, images in enumerate(batches, start=1):
                for norm in norms:
                    norm.momentum = 1 / count
                for routing in routings:
                    routing.momentum = _share(count)
                network(images)
        finally:
            for norm, momentum in zip(norms, of_norms, strict=True):
                norm.momentum = momentum
            for routing, momentum in zip(routings, of_routings, strict=True):
                routing.momentum = momentum


def _share(count: int) -> float:
    """The share of batch number ``count`` in the routing's statistics."""
    if count <= _SETTLING:
        return max(1 / count, _SETTLING_SHARE)
    return 1 / (count - _SETTLING + 1 / _SETTLING_SHARE)


@torch.no_grad()
def folded(network: EMCapsNet) -> EMCapsNet:
    """Return the same network with plain β and λ, computed from its statistics, and without batch normalisation.

    It computes what ``network`` computes in evaluation, up to rounding. It is the paper's network, with the
    configuration's ``normalisation`` "none", for export, to read β from, or for use elsewhere.

    Args:
        network: for one without normalisation, the result is a copy.

    Example:
        >>> import matcaps
        >>> network = matcaps.create_model("agreement-small").eval()
        >>> plain, images = folded(network), torch.rand(2, 2, 32, 32)
        >>> bool((plain(images).activations - network(images).activations).abs().max() < 1e-3)
        True
    """
    shared = "shared" if network.class_capsules.routing.shared_beta_activation else "each"
    config = replace(network.config, normalisation="none", class_beta_activation=shared)
    plain = EMCapsNet(config).to(network.class_capsules.weight)
    for name in ("stem", "primary_capsules.pose", "primary_capsules.activation"):
        _fold_convolution(network.get_submodule(name), plain.get_submodule(name))
    for name in ROUTED_LAYERS:
        old, new = _routed(network, name), _routed(plain, name)
        if isinstance(old.routing, VoteRouting):
            new.load_state_dict(old.state_dict())
            new.routing.spec = old.routing.spec
            continue
        assert isinstance(new.routing, RoutingParameters)
        new.weight.copy_(old.routing.matrices(old.weight))
        new.routing.spec = old.routing.spec
        new.routing.inverse_temperature = old.routing.paper_inverse_temperature().clone()
        new.routing.set_beta(old.routing.paper_beta_use(), old.routing.paper_beta_activation(), data=1.0)
    return plain.train(network.training)


def _routed(network: EMCapsNet, name: str) -> ConvCapsules | ClassCapsules:
    layer = network.get_submodule(name)
    assert isinstance(layer, ConvCapsules | ClassCapsules)
    return layer


def _fold_convolution(old: nn.Module, new: nn.Module) -> None:
    assert isinstance(new, nn.Conv2d)
    assert new.bias is not None
    if not isinstance(old, NormalisedConv2d):
        new.load_state_dict(old.state_dict())
        return
    norm = old.normalisation
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = (variance + norm.eps).rsqrt()
    shift = -mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    new.weight.copy_(old.weight * scale[:, None, None, None])
    new.bias.copy_(shift)
