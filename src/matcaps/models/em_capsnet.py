"""The matrix capsule network of Hinton, Sabour and Frosst (2018)."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matcaps.capsules import Capsules, as_capsules
from matcaps.layers import ClassCapsules, ConvCapsules, PrimaryCapsules
from matcaps.layers.normalisation import convolution
from matcaps.models.config import ROUTED_LAYERS, EMCapsNetConfig
from matcaps.models.geometry import Axis, receptive_field_coordinates, same_padding
from matcaps.routing import RoutingIteration

if TYPE_CHECKING:
    from matcaps.models.export.writing import Exported

_KERNEL_SIZE = 3
_CONV_LAYERS = ROUTED_LAYERS[:-1]


class EMCapsNet(nn.Module):
    """ReLU convolution, primary capsules, two convolutional capsule layers, class capsules.

    Args:
        config: the layers' sizes and the routing's options; :func:`matcaps.create_model` makes one from a preset.

    Example:
        >>> from matcaps import create_model
        >>> network = create_model("paper-small")
        >>> classes = network(torch.randn(1, 2, 32, 32))
        >>> classes.poses.shape, classes.activations.shape
        (torch.Size([1, 5, 4, 4]), torch.Size([1, 5]))
    """

    def __init__(self, config: EMCapsNetConfig):
        super().__init__()
        self.config = config
        routing = {
            "pose": config.pose,
            "routing": config.routing,
            "routing_rank": config.routing_rank,
            "activation_rule": config.activation_rule,
            "variance_floor": config.variance_floor,
            "annealing": config.annealing,
            "normalise": config.normalisation == "batch",
            "implementation": config.implementation,
        }
        conv = {
            "kernel_size": _KERNEL_SIZE,
            "inverse_temperature": config.inverse_temperature,
            "competition": config.competition,
            "weight_deviation": config.conv_weight_deviation,
            **routing,
        }
        normalise = config.normalisation == "batch"
        sizes = config.in_channels, config.stem_channels, config.stem_kernel_size, config.stem_stride
        self.stem = convolution(normalise, *sizes)
        self.primary_capsules = PrimaryCapsules(config.stem_channels, config.primary_capsules, normalise=normalise)
        self.conv_capsules1 = ConvCapsules(config.primary_capsules, config.conv_capsules1, stride=2, **conv)
        self.conv_capsules2 = ConvCapsules(config.conv_capsules1, config.conv_capsules2, stride=1, **conv)
        self.class_capsules = ClassCapsules(
            config.conv_capsules2,
            config.num_classes,
            inverse_temperature=config.class_inverse_temperature,
            coordinate_components=None if config.coordinates == "none" else config.coordinate_components,
            coordinate_scale=config.coordinate_scale,
            weight_deviation=config.class_weight_deviation,
            shared_beta_activation=config.class_beta_activation == "shared",
            **routing,
        )

    def forward(self, images: Tensor) -> Capsules:
        """Map images ``[B, C, H, W]`` to class capsules, poses ``[B, classes, 4, 4]``, activations ``[B, classes]``.

        Raises:
            ValueError: the number of channels differs from the network's, or the images are too small.
        """
        return self._walk(images, _call_layer)

    @staticmethod
    def class_scores(output: Capsules) -> Tensor:
        """The class scores of an output of :meth:`forward`: the class capsules' activations, ``[B, classes]``."""
        return output.activations

    def layer_outputs(self, images: Tensor) -> "OrderedDict[str, Capsules]":
        """Return the capsules that leave each capsule layer, by the layer's name, in order."""
        outputs: OrderedDict[str, Capsules] = OrderedDict()

        def note(name: str, layer: Any, *inputs: Any) -> Capsules:
            outputs.setdefault("primary_capsules", inputs[0])
            outputs[name] = as_capsules(layer(*inputs))
            return outputs[name]

        self._walk(images, note)
        return outputs

    def trace(self, images: Tensor) -> "OrderedDict[str, list[RoutingIteration]]":
        """Return every iteration's state of each routed layer, by the layer's name, in order."""
        inputs = self._layer_inputs(images)
        return OrderedDict((name, getattr(self, name).trace(*inputs[name])) for name in inputs)

    def votes(self, images: Tensor, layer: str) -> Tensor:
        """Compute one layer's votes, with children ordered as in :meth:`trace`; for a few images at a time.

        Args:
            images: ``[B, C, H, W]``.
            layer: a routed layer, one of the names in :meth:`trace`.

        Returns:
            ``[B, H', W', K·K·I, J, 16]``, or ``[B, H·W·I, J, 16]`` of the class capsules.

        Raises:
            ValueError: there is no such layer, or the images do not fit.
        """
        if layer not in ROUTED_LAYERS:
            raise ValueError(f"layer must be conv_capsules1, conv_capsules2 or class_capsules; got {layer!r}")
        return getattr(self, layer).votes(*self._layer_inputs(images)[layer])

    def receptive_fields(self, height: int, width: int) -> "OrderedDict[str, tuple[Axis, Axis]]":
        """The receptive fields of each map's positions: rows and columns of each layer except the class capsules."""
        config = self.config
        axes = [
            Axis(size).convolve(config.stem_kernel_size, config.stem_stride, config.stem_padding)
            for size in (height, width)
        ]
        fields = OrderedDict(primary_capsules=(axes[0], axes[1]))
        for name in _CONV_LAYERS:
            axes = [axis.convolve(_KERNEL_SIZE, getattr(self, name).stride) for axis in axes]
            fields[name] = axes[0], axes[1]
        return fields

    def class_coordinates(self, images: Tensor) -> Tensor | None:
        """The coordinates that the class capsules get for the last map's positions, ``[H', W', 2]``; None: their own
        grid.

        Raises:
            ValueError: the images do not fit.
        """
        self._check_images(images)
        return self._coordinates(images)

    @torch.no_grad()
    def calibrate(self, images: Tensor, layers: Sequence[str] | None = None) -> tuple[str, ...]:
        """Set new layers' starting values from a first batch, as ``config.calibration`` requires; in place.

        Call it once, before training and before making an optimiser, with the parameters in
        :func:`matcaps.training.parameter_groups`; eight to thirty-two images are enough.

        Layers that were calibrated, trained or loaded before stay as they are, so after
        ``from_pretrained(..., num_classes=7)`` only the class layer is set. To train such a network on other images,
        set "all": the matrices keep their directions; their scale, the inverse temperatures and β are set anew, so that
        gradients do not vanish. With only the class layer set, our digits were not learned (docs/log.md).

        Args:
            images: ``[B, C, H, W]``, prepared as in training.
            layers: names of routed layers to set, whatever their state; "all" for all that are not frozen; None for
                those of these that are unchanged since they were made: β zero and ``data_scale`` 1.

        Returns:
            The names of the layers that were set; with the calibration "none" there are none.

        Raises:
            ValueError: there are no images, or they do not fit; there is no such layer, or it is frozen.
        """
        self._check_images(images)
        calibration = self.config.calibration
        if len(images) == 0:
            raise ValueError(f"images must hold at least one image to calibrate by; got {list(images.shape)}")
        chosen = self.new_layers() if layers is None else self._named_layers(layers)
        if calibration == "none":
            return ()
        if not chosen:
            warnings.warn(
                "calibrate changed no layer, because each is calibrated, trained or frozen: to set some nevertheless, "
                "name them with layers=[...]",
                stacklevel=3,  # no_grad adds a level
            )
            return ()

        def calibrate(name: str, layer: Any, *inputs: Any) -> Capsules:
            return layer.calibrate(*inputs, calibration) if name in chosen else layer(*inputs)

        self._walk(images, calibrate, ROUTED_LAYERS if "class_capsules" in chosen else _CONV_LAYERS)
        return chosen

    def new_layers(self) -> tuple[str, ...]:
        """The routed layers that :meth:`calibrate` would set: unchanged since they were made, and not frozen."""
        routed = {name: getattr(self, name) for name in ROUTED_LAYERS}
        return tuple(
            name for name, layer in routed.items() if layer.weight.requires_grad and layer.routing.is_untouched()
        )

    @property
    def num_classes(self) -> int:
        """Number of classes of the present class layer."""
        return self.class_capsules.weight.shape[1]

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the class layer by a new one, for other classes; call ``calibrate(images)`` before training it.

        Args:
            num_classes: two or more.

        Raises:
            ValueError: there are fewer.
        """
        old, config = self.class_capsules, replace(self.config, num_classes=num_classes)
        sizes = {"conv_capsules2": old.weight.shape[0], "pose": old.pose}  # right even if a user replaced the layer
        new = EMCapsNet(replace(config, **sizes)).class_capsules.to(old.weight).train(old.training)
        new.routing.implementation = old.routing.implementation
        self.class_capsules, self.config = new, config

    def save_pretrained(self, folder: str | PathLike[str], **metadata: object) -> None:
        """Write weights and configuration; see :func:`matcaps.models.pretrained.save_pretrained`."""
        from matcaps.models.pretrained import save_pretrained

        save_pretrained(self, folder, **metadata)

    def export(self, format: str, path: str | PathLike[str], **options: Any) -> "Exported":
        """Write it as ONNX or as a program of ``torch.export``; see :func:`matcaps.models.export_network`."""
        from matcaps.models.export.writing import export_network

        return export_network(self, format, path, **options)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Send to the Hugging Face hub; see :func:`matcaps.models.push_to_hub`."""
        from matcaps.models.hub import push_to_hub

        return push_to_hub(self, repository, **options)

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str], **changes: Any) -> "EMCapsNet":
        """Load from a folder or a hub id, in evaluation mode; see :func:`matcaps.from_pretrained`."""
        from matcaps.models.pretrained import from_pretrained

        return from_pretrained(source, expected=cls, **changes)

    def _named_layers(self, layers: Sequence[str]) -> tuple[str, ...]:
        if layers == "all":
            return tuple(name for name in ROUTED_LAYERS if getattr(self, name).weight.requires_grad)
        wanted = [layers] if isinstance(layers, str) else list(layers)
        for name in wanted:
            if name not in ROUTED_LAYERS or not getattr(self, name).weight.requires_grad:
                raise ValueError(
                    f"layers must be names from {', '.join(ROUTED_LAYERS)} that are not frozen, or 'all'; got {name!r}"
                )
        return tuple(name for name in ROUTED_LAYERS if name in wanted)

    def _walk(self, images: Tensor, step: Callable[..., Capsules], layers: Sequence[str] = ROUTED_LAYERS) -> Capsules:
        """Pass images through the network; only this function knows the order of the layers.

        Args:
            images: ``[B, C, H, W]``.
            step: called with a routed layer's name, the layer and the layer's inputs; returns the next layer's input.
            layers: the first routed layers, or all.

        Returns:
            The result of the last step.
        """
        self._check_images(images)
        coordinates = self._coordinates(images)
        capsules = as_capsules(self.primary_capsules(self._features(images)))
        for name in layers:
            inputs = (capsules, coordinates) if name == "class_capsules" else (capsules,)
            capsules = as_capsules(step(name, getattr(self, name), *inputs))  # a hook may have replaced the output
        return capsules

    def _layer_inputs(self, images: Tensor) -> dict[str, tuple[Any, ...]]:
        """The inputs of each routed layer, by the layer's name, in order."""
        layer_inputs: dict[str, tuple[Any, ...]] = {}

        def note(name: str, layer: Any, *inputs: Any) -> Capsules:
            layer_inputs[name] = inputs
            return layer(*inputs)

        self._walk(images, note)
        return layer_inputs

    def _features(self, images: Tensor) -> Tensor:
        if self.config.stem_padding == "same":
            kernel_size, stride = self.config.stem_kernel_size, self.config.stem_stride
            top, bottom = same_padding(images.shape[-2], kernel_size, stride)
            left, right = same_padding(images.shape[-1], kernel_size, stride)
            images = F.pad(images, (left, right, top, bottom))
        return self.stem(images).relu()

    def _check_images(self, images: Tensor) -> None:
        config = self.config
        if images.ndim != 4 or images.shape[1] != config.in_channels:
            advice = f"give a batch with {config.in_channels} channels"
            if images.ndim in (3, 4):
                advice += f", or create the model with in_channels={images.shape[-3]}"
            raise ValueError(
                f"images must have shape [B, {config.in_channels}, H, W]; got {list(images.shape)}: {advice}"
            )
        height, width = images.shape[-2:]
        if min(height, width) < self._smallest_size():
            raise ValueError(
                f"images must have at least {self._smallest_size()} rows and columns, so that the last capsule layer "
                f"has a position left; got {height}×{width}: enlarge them"
            )

    def _coordinates(self, images: Tensor) -> Tensor | None:
        """Coordinates of the last map's positions for the class capsules; None where these use their own grid."""
        if self.config.coordinates != "receptive-field":
            return None
        height, width = images.shape[-2:]
        rows, columns = self.receptive_fields(height, width)[_CONV_LAYERS[-1]]
        return receptive_field_coordinates(rows, columns, height, width, images.device)

    def _smallest_size(self) -> int:
        """The smallest side, in pixels, that leaves one position after the last convolutional capsules (7 primary
        ones).
        """
        config = self.config
        if config.stem_padding == "same":
            return 6 * config.stem_stride + 1
        return 6 * config.stem_stride + config.stem_kernel_size


def _call_layer(_name: str, layer: Any, *inputs: Any) -> Capsules:
    return layer(*inputs)
