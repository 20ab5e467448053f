"""The objectives of attacks: the loss that a network was trained with, or the margin between its class logits."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matcaps.capsules import Capsules, as_capsules
from matcaps.losses import LARGEST_MARGIN, spread_loss
from matcaps.models.modes import evaluation_mode
from matcaps.models.scores import class_logits


def attack_margins(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """The progress of an attack, ``[B]``: above 0 where it has succeeded (Carlini and Wagner 2017).

    Untargeted: the largest logit of a wrong class minus that of the label. Targeted: the target's minus the largest of
    the others.

    Args:
        logits: ``[B, classes]``.
        labels: ``[B]``, int64.
        targets: ``[B]``, int64, or None for an untargeted attack.
    """
    chosen = (labels if targets is None else targets).unsqueeze(1)
    others = logits.scatter(1, chosen, -torch.inf).amax(dim=1)
    lead = logits.gather(1, chosen).squeeze(1) - others
    return -lead if targets is None else lead


def margins_and_gradients(
    network: nn.Module, images: Tensor, labels: Tensor, targets: Tensor | None, objective: str
) -> tuple[Tensor, Tensor]:
    """The margins ``[B]`` and the direction of ascent ``[B, C, H, W]``, from one forward and one backward pass.

    The gradient is that of the sum over the batch, so an image's gradient does not depend on the others. It is returned
    in the network's precision: take its sign before rounding, which could make it 0.

    Args:
        network: as :func:`prepared` gives it for the same objective.
        images: ``[B, C, H, W]``, floating point.
        labels: ``[B]``, int64.
        targets: ``[B]``, int64, or None.
        objective: ``"loss"`` or ``"logits"``.

    Raises:
        RuntimeError: the gradient is not finite.
    """
    with torch.enable_grad():
        images = images.detach().to(_dtype_of(network, images)).requires_grad_()
        output = network(images)
        margins = attack_margins(class_logits(output), labels, targets)
        if objective == "logits":
            value = margins.sum()
        elif targets is None:
            value = _loss(output, labels)
        else:
            value = -_loss(output, targets)
        (gradient,) = torch.autograd.grad(value, images)
    if not torch.isfinite(gradient).all():
        raise RuntimeError(
            "the gradient of the attack is not finite, so it has no direction: look for the cause in the network, for "
            "instance with torch.autograd.set_detect_anomaly"
        )
    return margins.detach(), gradient


@torch.no_grad()
def margins_of(network: nn.Module, images: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """The margins ``[B]`` only, without any gradient."""
    return attack_margins(class_logits(network(images.to(_dtype_of(network, images)))), labels, targets)


@contextmanager
def prepared(network: nn.Module, images: Tensor, objective: str) -> Iterator[nn.Module]:
    """Give the network in evaluation mode, and restore the mode of every part afterwards.

    For ``"logits"`` and a network that returns capsules, it is a copy in float64: float32 rounds activations to 0 and
    1, where the logit has no gradient. Otherwise it is the network itself.
    """
    with evaluation_mode(network):
        with torch.no_grad():
            gives_capsules = objective == "logits" and not isinstance(
                network(images[:1].to(_dtype_of(network, images))), Tensor
            )
        yield copy.deepcopy(network).double() if gives_capsules else network


def _dtype_of(network: nn.Module, images: Tensor) -> torch.dtype:
    """The precision of the network's parameters; the images' own if it has none."""
    return next((parameter.dtype for parameter in network.parameters()), images.dtype)


def _loss(output: Capsules | Tensor, labels: Tensor) -> Tensor:
    """The loss that such a network is trained with, summed over the batch: spread loss (last margin), or
    cross-entropy.
    """
    if not isinstance(output, Tensor):
        return spread_loss(as_capsules(output).activations, labels, LARGEST_MARGIN, reduction="sum")
    return F.cross_entropy(output, labels, reduction="sum")
