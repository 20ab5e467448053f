"""Class scores of images, for any network: its ``class_scores`` applied to the output of its ``forward``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from matcaps.capsules import Capsules, as_capsules
from matcaps.models.baseline_cnn import BaselineCNN
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.modules import unwrap


def class_scores(network: nn.Module, images: Tensor) -> Tensor:
    """Class scores ``[B, classes]`` of images ``[B, C, H, W]``, or of several crops each, ``[B, crops, C, H, W]``.

    Args:
        network: one of ours, also wrapped; or any network that returns capsules or logits, which are scored as ours.
        images: prepared as in training.
    """
    output = network(images if images.ndim == 4 else images.flatten(0, 1))
    own: Any = getattr(unwrap(network), "class_scores", None)
    if own is None:
        own = EMCapsNet.class_scores if isinstance(output, Capsules) else BaselineCNN.class_scores
    scores: Tensor = own(output)
    return scores if images.ndim == 4 else scores.unflatten(0, images.shape[:2]).mean(dim=1)


def class_logits(output: Capsules | Tensor) -> Tensor:
    """The class logits ``[B, classes]``: a CNN's own, or ``ln a − ln(1 − a)`` of the class activations.

    Activations are held off 0 and 1 by the smallest normal number, so the logits and their gradients are finite. In
    float64 that tells activations apart that float32 rounds to 1, up to a logit of 36; the low end reaches −708.
    """
    if isinstance(output, Tensor):
        return output
    activations = as_capsules(output).activations  # of a traced network, for one, they are a plain tuple
    smallest = torch.finfo(activations.dtype).tiny
    return activations.clamp_min(smallest).log() - (1 - activations).clamp_min(smallest).log()


class ClassScores(nn.Module):
    """A network as other libraries expect one: images in, one tensor ``[B, classes]`` out.

    Weights, gradients and the mode, training or evaluation, are the network's own; in ``state_dict`` its names begin
    with ``network.``.

    Args:
        network: one of ours, or any that returns capsules or logits.
        logits: return class logits, ``ln a − ln(1 − a)`` of capsules' activations, in place of class scores in [0, 1]:
            for tools that put a softmax or a cross-entropy behind the network, such as most attacks.

    Attributes:
        network: what was given.
        logits: what was given.

    Example:
        >>> from matcaps import create_model
        >>> scores = ClassScores(create_model("quickstart"))
        >>> scores(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, network: nn.Module, *, logits: bool = False):
        super().__init__()
        self.network = network
        self.logits = logits
        self._maps = nn.ModuleDict()
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]`` to class scores, or logits, ``[B, classes]``.

        Raises:
            TypeError: a layer with an :meth:`activation_map` returns no map of capsules.
            ValueError: the images do not fit the network.
        """
        handles = [self._layer(name).register_forward_hook(_through(maps)) for name, maps in self._maps.items()]
        try:
            return class_logits(self.network(images)) if self.logits else class_scores(self.network, images)
        finally:
            for handle in handles:
                handle.remove()

    def activation_map(self, layer: str) -> nn.Module:
        """A module through which a capsule layer's activations pass as feature maps, ``[B, J, H, W]``.

        Capsules have their types last; Grad-CAM and other tools that hook a layer take its second dimension for the
        channels, and so need them there. Poses do not pass through it.

        Args:
            layer: the name of a layer in the network that returns a map of capsules, such as ``"conv_capsules2"``; the
                names are those of ``network.named_modules()``.

        Raises:
            ValueError: the network has no such layer.
        """
        self._layer(layer)
        key = layer.replace(".", _DOT)
        if key not in self._maps:
            self._maps[key] = nn.Identity()
        return self._maps[key]

    def _layer(self, name: str) -> nn.Module:
        try:
            return unwrap(self.network).get_submodule(name.replace(_DOT, "."))
        except AttributeError as error:
            raise ValueError(
                f"layer must be the name of one in the network, such as conv_capsules2; got {name!r}"
            ) from error


_DOT = "/"
"""Stands for the dot of a layer's name, which a dictionary of modules cannot have."""


def _through(maps: nn.Module) -> Callable[..., Capsules]:
    """A hook that leads a layer's activations through a module, channels first."""

    def lead(layer: nn.Module, _inputs: Any, output: Any) -> Capsules:
        capsules = as_capsules(output)
        if capsules.activations.ndim != 4:
            raise TypeError(
                "an activation map needs a layer that returns activations [B, H, W, J]; "
                f"{type(layer).__name__} returned {list(capsules.activations.shape)}: take a layer below"
            )
        return Capsules(capsules.poses, maps(capsules.activations.movedim(-1, 1)).movedim(1, -1))

    return lead
