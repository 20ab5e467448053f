"""Running statistics of a network for weights that it was not trained with, averaged ones above all."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from matcaps.layers import NormalisedRoutingParameters
from matcaps.models.modes import evaluation_mode

_LEAST_SHARE = 0.1
"""Of a batch in the routing's statistics: a layer's costs change as those before it find theirs, so the first batches
must be forgotten."""


def has_statistics(network: nn.Module) -> bool:
    """Whether a network has running statistics that :func:`update_statistics` would find anew."""
    return any(isinstance(module, _BatchNorm | NormalisedRoutingParameters) for module in network.modules())


@torch.no_grad()
def update_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Find the running statistics of batch normalisation and of normalised routing anew, in place.

    As ``torch.optim.swa_utils.update_bn``, which knows batch normalisation alone. Averaged weights have other
    statistics than the weights that they are the average of. Frozen layers keep theirs.

    Args:
        network: any network with such layers; one without is left as it is. Its modes are as before afterwards.
        batches: images as in training, ``[B, C, H, W]``; some twenty batches are enough.

    Example:
        >>> import matcaps
        >>> network = matcaps.create_model("annealed-small", normalisation="batch")
        >>> update_statistics(network, [torch.rand(8, 2, 32, 32) for _ in range(3)])
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    routings = [module for module in network.modules() if isinstance(module, NormalisedRoutingParameters)]
    if not norms and not routings:
        return
    momenta = [(module, module.momentum) for module in (*norms, *routings)]
    with evaluation_mode(network):  # which puts every module back into its mode afterwards
        for module in (*norms, *routings):
            module.train()
        try:
            for count, images in enumerate(batches, start=1):
                for module in norms:
                    module.momentum = 1 / count
                for module in routings:
                    module.momentum = max(1 / count, _LEAST_SHARE)
                network(images)
        finally:
            for module, momentum in momenta:
                module.momentum = momentum
