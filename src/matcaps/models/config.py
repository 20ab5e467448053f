"""What describes a model: frozen, JSON-able, and free of torch so that ``--help`` is quick."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EMCapsNetConfig:
    """A matrix capsule network: the paper's letters A to E, and how its routing works.

    Attributes:
        in_channels: image channels.
        num_classes: classes, the paper's E.
        stem_channels: feature maps of the ReLU convolution, the paper's A.
        primary_capsules: types of primary capsules, the paper's B.
        conv_capsules1: types of the first convolutional capsules (3×3, stride 2), the paper's C.
        conv_capsules2: types of the second convolutional capsules (3×3, stride 1), the paper's D.
        stem_kernel_size: rows and columns of the ReLU convolution.
        stem_stride: its stride.
        stem_padding: "valid" for none, "same" for TensorFlow's rule, which pads the odd pixel at the far side.
        pose: "matrix" (the paper): 4×4 matrices transform 4×4 poses; "vector" (Hinton et al. 2018, Table 1): 16×16
            matrices transform poses of 16 numbers, 16 times as many parameters in the routed layers; the compiled core
            does not have these, so that training is slower and takes the votes' memory.
        iterations: of EM, in every routed layer.
        temperature_schedule: "authors" for 0.01·(1 − 0.95^t), t = 1, 2, ...; "tutorial" for 1, 2, 3.
        class_temperature_ratio: the class layer's inverse temperature over the others'; a quarter in the authors'
            code, because class capsules get some ten times as much data.
        competition: "child" (the paper) or "window" (the tutorial and most public code).
        activation_rule: "paper" or "standardised" (the tutorial).
        variance_floor: added to every variance.
        annealing: factor on the log-densities in the E-step; 1 in the paper; with full calibration
            1/16 learns far faster.
        coordinates: "receptive-field" for the centre of each capsule's receptive field over the image size,
            "grid" for (index + 1/2) / size, "none" for no coordinate addition.
        coordinate_components: the components of the flattened votes that take the row's and column's coordinate.
        coordinate_scale: multiplies the coordinates.
        calibration: what the first batch sets: "none"; "beta", the rewards, so that about half of each layer's
            capsules are active; "full", also the scale of poses and the inverse temperatures.
        conv_weight_deviation: standard deviation of the convolutional capsules' initial matrices; half of it with
            vector poses, whose votes sum four times as many products.
        class_weight_deviation: standard deviation of the class capsules' initial matrices; with vector poses half.
    """

    in_channels: int = 1
    num_classes: int = 10
    stem_channels: int = 32
    primary_capsules: int = 32
    conv_capsules1: int = 32
    conv_capsules2: int = 32
    stem_kernel_size: int = 5
    stem_stride: int = 2
    stem_padding: Literal["valid", "same"] = "valid"
    pose: Literal["matrix", "vector"] = "matrix"
    iterations: int = 3
    temperature_schedule: Literal["authors", "tutorial"] = "authors"
    class_temperature_ratio: float = 0.25
    competition: Literal["child", "window"] = "child"
    activation_rule: Literal["paper", "standardised"] = "paper"
    variance_floor: float = 5e-4
    annealing: float = 1.0
    coordinates: Literal["receptive-field", "grid", "none"] = "receptive-field"
    coordinate_components: tuple[int, int] = (3, 7)
    coordinate_scale: float = 1.0
    calibration: Literal["none", "beta", "full"] = "beta"
    conv_weight_deviation: float = 0.3
    class_weight_deviation: float = 0.01

    def __post_init__(self) -> None:
        _check_counts(
            self,
            "in_channels num_classes stem_channels primary_capsules conv_capsules1 conv_capsules2 "
            "stem_kernel_size stem_stride iterations",
        )
        for name in ("class_temperature_ratio", "variance_floor", "annealing"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)!r}")
        for name, choices in (
            ("stem_padding", ("valid", "same")),
            ("pose", ("matrix", "vector")),
            ("temperature_schedule", ("authors", "tutorial")),
            ("competition", ("child", "window")),
            ("activation_rule", ("paper", "standardised")),
            ("coordinates", ("receptive-field", "grid", "none")),
            ("calibration", ("none", "beta", "full")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {getattr(self, name)!r}")
        components = tuple(self.coordinate_components)
        if not all(isinstance(component, int) for component in components):  # which, the layer checks
            raise ValueError(f"coordinate_components must be whole numbers; got {self.coordinate_components!r}")
        object.__setattr__(self, "coordinate_components", components)
        scale = self.coordinate_scale
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
            raise ValueError(f"coordinate_scale must be a finite number; got {scale!r}")

    @property
    def inverse_temperature(self) -> tuple[float, ...]:
        """The schedule of the convolutional capsules, one value an iteration."""
        steps = range(1, self.iterations + 1)
        if self.temperature_schedule == "authors":
            return tuple(0.01 * (1 - 0.95**step) for step in steps)
        # from 1 to min(iterations, 3) in equal steps
        last = min(self.iterations, 3)
        return tuple(1 + (last - 1) * (step - 1) / max(1, self.iterations - 1) for step in steps)

    @property
    def class_inverse_temperature(self) -> tuple[float, ...]:
        """The schedule of the class capsules."""
        return tuple(self.class_temperature_ratio * value for value in self.inverse_temperature)


@dataclass(frozen=True)
class BaselineCNNConfig:
    """The convolutional network that the paper compares with (Hinton et al. 2018, section 5).

    Attributes:
        in_channels: image channels.
        num_classes: classes.
        image_size: rows and columns of the images: the fully connected layer needs to know.
        channels1: feature maps of the first 5×5 convolution.
        channels2: feature maps of the second.
        hidden_units: units of the fully connected layer.
        dropout: share of them dropped in training.
    """

    in_channels: int = 2
    num_classes: int = 5
    image_size: tuple[int, int] = (32, 32)
    channels1: int = 32
    channels2: int = 64
    hidden_units: int = 1024
    dropout: float = 0.5

    def __post_init__(self) -> None:
        _check_counts(self, "in_channels num_classes channels1 channels2 hidden_units")
        size = self.image_size
        if isinstance(size, int):
            size = (size, size)
        if len(size) != 2 or min(size) < 4:
            raise ValueError(f"image_size must be rows and columns, at least 4 each; got {self.image_size!r}")
        object.__setattr__(self, "image_size", tuple(size))
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1); got {self.dropout!r}")


ModelConfig = EMCapsNetConfig | BaselineCNNConfig


def _check_counts(config: object, names: str) -> None:
    for name in names.split():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
