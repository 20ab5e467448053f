"""Configurations of models: frozen, convertible to JSON, and without torch, so that ``--help`` is quick."""

from dataclasses import dataclass
from typing import Literal

from matcaps._numbers import check_count, is_number, plain, whole

IMPLEMENTATIONS = ("auto", "reference", "native", "cuda", "compiled")
"""The implementations of routing; :func:`matcaps.routing.available_implementations` lists those of EM here."""

ROUTING_NAMES = ("em", "average", "random", "dynamic", "vb", "self", "heinsen", "attention")
"""The routings that a network may have; :data:`matcaps.layers.routings.ROUTINGS` has those other than EM."""

TABLE_ROUTINGS = ("self", "heinsen", "attention")
"""The routings that learn something for each kind of child and parent, of which there are many."""

EARLIER_IMPLEMENTATIONS = {"triton": "cuda"}
"""Names in files of earlier versions, and their present names: the GPU implementation was once written in Triton."""


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
            does not support these, so training is slower and needs memory for all votes.
        routing: "em"; or another routing to compare with, of which the compiled implementations know nothing: "average"
            and "random" for no routing at all, "dynamic" (Sabour 2017), "vb" (De Sousa Ribeiro 2020), "self" (Hahn
            2019), "heinsen" (Heinsen 2019), "attention" (Mazzia 2021). Temperatures, activation rule, annealing and β
            are EM's.
        routing_rank: of what "self", "heinsen" and "attention" learn for each kind of child and parent: so many tables
            that all kinds share and mix, so that a network has hardly more parameters than with EM; None (the papers):
            a value for each.
        iterations: of EM, in every routed layer.
        class_iterations: of EM, in the class capsules alone; None for as many as ``iterations``.
        temperature_schedule: "authors" for 0.01·(1 − 0.95^t), t = 1, 2, ...; "tutorial" for 1, 2, 3.
        class_temperature_ratio: the class layer's inverse temperature over the others'; a quarter in the authors'
            code, because class capsules get some ten times as much data.
        class_beta_activation: "each" (the paper): a β_a for every class; "shared": one for all classes, so that no
            class has its own reward.
        competition: "child" (the paper) or "window" (the tutorial and most public code).
        activation_rule: "paper"; "standardised" (the tutorial): costs standardised over a window's parents;
            "relative": the cost of a unit of data counts relative to the average cost in its window.
        variance_floor: added to every variance.
        annealing: factor on the log-densities in the E-step; 1 in the paper; with full calibration
            0.0625 learns far faster.
        coordinates: "receptive-field" for the centre of each capsule's receptive field over the image size,
            "grid" for (index + 1/2) / size, "none" for no coordinate addition.
        coordinate_components: the components of the flattened votes that take the row's and column's coordinate.
        coordinate_scale: multiplies the coordinates.
        calibration: what the first batch sets: "none"; "beta", the rewards, so that about half of each layer's
            capsules are active; "full", also the scale of poses and the inverse temperatures.
        normalisation: "none" (the paper); "batch", under the relative rule: batch normalisation of the stem and the
            primary capsules, matrices rescaled to a fixed size, and λ in units of the costs' deviation, so that
            agreement stays rewarded in training (:class:`matcaps.layers.NormalisedRoutingParameters`).
        conv_weight_deviation: standard deviation of the convolutional capsules' initial matrices; half of it with
            vector poses, whose votes sum four times as many products.
        class_weight_deviation: standard deviation of the class capsules' initial matrices; with vector poses half.
        implementation: what computes the routing; all agree up to rounding: "auto" takes the fastest that supports the
            tensors (:func:`matcaps.routing.resolve_implementation`); "reference" can do everything that PyTorch can,
            but is slower and holds all votes in memory; "native" (CPU) and "cuda" (GPU) are compiled; "compiled", of
            the other routings alone: their plain code by torch.compile, which needs a C++ compiler on a CPU.
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
    routing: Literal["em", "average", "random", "dynamic", "vb", "self", "heinsen", "attention"] = "em"
    routing_rank: int | None = None
    iterations: int = 3
    class_iterations: int | None = None
    temperature_schedule: Literal["authors", "tutorial"] = "authors"
    class_temperature_ratio: float = 0.25
    class_beta_activation: Literal["each", "shared"] = "each"
    competition: Literal["child", "window"] = "child"
    activation_rule: Literal["paper", "standardised", "relative"] = "paper"
    variance_floor: float = 5e-4
    annealing: float = 1.0
    coordinates: Literal["receptive-field", "grid", "none"] = "receptive-field"
    coordinate_components: tuple[int, int] = (3, 7)
    coordinate_scale: float = 1.0
    calibration: Literal["none", "beta", "full"] = "beta"
    normalisation: Literal["none", "batch"] = "none"
    conv_weight_deviation: float = 0.3
    class_weight_deviation: float = 0.01
    implementation: Literal["auto", "reference", "native", "cuda", "compiled"] = "auto"

    def __post_init__(self) -> None:
        _check_counts(
            self,
            "in_channels num_classes stem_channels primary_capsules conv_capsules1 conv_capsules2 "
            "stem_kernel_size stem_stride iterations"
            + (" class_iterations" if self.class_iterations is not None else "")
            + (" routing_rank" if self.routing_rank is not None else ""),
        )
        _check_positive(
            self, "class_temperature_ratio variance_floor annealing conv_weight_deviation class_weight_deviation"
        )
        for name, choices in (
            ("stem_padding", ("valid", "same")),
            ("pose", ("matrix", "vector")),
            ("routing", ROUTING_NAMES),
            ("temperature_schedule", ("authors", "tutorial")),
            ("class_beta_activation", ("each", "shared")),
            ("competition", ("child", "window")),
            ("activation_rule", ("paper", "standardised", "relative")),
            ("coordinates", ("receptive-field", "grid", "none")),
            ("calibration", ("none", "beta", "full")),
            ("normalisation", ("none", "batch")),
            ("implementation", IMPLEMENTATIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {getattr(self, name)!r}")
        if self.normalisation == "batch" and self.activation_rule != "relative":
            raise ValueError(
                f"activation_rule must be 'relative' with normalisation 'batch'; got {self.activation_rule!r}: preset "
                "agreement-small has both"
            )
        if self.routing_rank is not None and self.routing not in TABLE_ROUTINGS:
            raise ValueError(
                f"routing_rank must be left out with routing {self.routing!r}; got {self.routing_rank}: only "
                f"{', '.join(TABLE_ROUTINGS)} learn something for each kind of child and parent"
            )
        if self.routing != "em" and self.normalisation == "batch":
            raise ValueError(
                f"normalisation 'batch' is of EM; got routing {self.routing!r}: set normalisation to 'none'"
            )
        if self.routing != "em" and self.implementation in ("native", "cuda"):
            raise ValueError(
                f"implementation {self.implementation!r} computes EM alone; got routing {self.routing!r}: leave it "
                "'auto'"
            )
        if self.routing == "em" and self.implementation == "compiled":
            raise ValueError(
                "implementation 'compiled' is of routings other than EM; got routing 'em': leave it 'auto'"
            )
        components = self.coordinate_components
        indices = [whole(component) for component in components] if isinstance(components, tuple | list) else [None]
        if None in indices:  # the layer checks their range
            raise ValueError(
                f"coordinate_components must be whole numbers; got {components!r}: give two, such as (3, 7)"
            )
        object.__setattr__(self, "coordinate_components", tuple(indices))
        scale = self.coordinate_scale
        if not is_number(scale):
            raise ValueError(f"coordinate_scale must be a finite number; got {scale!r}")
        object.__setattr__(self, "coordinate_scale", plain(scale))

    @property
    def inverse_temperature(self) -> tuple[float, ...]:
        """The schedule of the convolutional capsules, one value an iteration."""
        return self._temperatures(self.iterations)

    @property
    def class_inverse_temperature(self) -> tuple[float, ...]:
        """The schedule of the class capsules."""
        iterations = self.iterations if self.class_iterations is None else self.class_iterations
        return tuple(self.class_temperature_ratio * value for value in self._temperatures(iterations))

    def _temperatures(self, iterations: int) -> tuple[float, ...]:
        steps = range(1, iterations + 1)
        if self.temperature_schedule == "authors":
            return tuple(0.01 * (1 - 0.95**step) for step in steps)
        # from 1 to min(iterations, 3) in equal steps
        last = min(iterations, 3)
        return tuple(1 + (last - 1) * (step - 1) / max(1, iterations - 1) for step in steps)


@dataclass(frozen=True)
class BaselineCNNConfig:
    """The convolutional network that the paper compares with (Hinton et al. 2018, section 5).

    Attributes:
        in_channels: image channels.
        num_classes: classes.
        image_size: rows and columns of the images, which determine the fully connected layer's size.
        channels1: feature maps of the CNN's first 5×5 convolution.
        channels2: feature maps of the CNN's second convolution.
        hidden_units: units of the CNN's fully connected layer.
        dropout: share of the CNN's hidden units dropped in training.
        convolutions: of the CNN: "two" (the paper), each with padding and pooling; "stem", the capsule networks' 5×5
            convolution with stride 2 alone, with pooling: a control; channels2 does nothing then.
    """

    in_channels: int = 2
    num_classes: int = 5
    image_size: tuple[int, int] = (32, 32)
    channels1: int = 32
    channels2: int = 64
    hidden_units: int = 1024
    dropout: float = 0.5
    convolutions: Literal["two", "stem"] = "two"

    def __post_init__(self) -> None:
        _check_counts(self, "in_channels num_classes channels1 channels2 hidden_units")
        size = (self.image_size,) * 2 if whole(self.image_size) is not None else self.image_size
        sides = [whole(side) for side in size] if isinstance(size, tuple | list) else []
        if self.convolutions not in ("two", "stem"):
            raise ValueError(f"convolutions must be one of ('two', 'stem'); got {self.convolutions!r}")
        smallest, why = _SMALLEST_CNN_SIZE[self.convolutions]
        if len(sides) != 2 or not all(side is not None and side >= smallest for side in sides):
            raise ValueError(
                f"image_size must be rows and columns, at least {smallest} each; got {self.image_size!r}: {why}"
            )
        object.__setattr__(self, "image_size", tuple(sides))
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1); got {self.dropout!r}: give the share of units to drop")
        object.__setattr__(self, "dropout", plain(self.dropout))


ModelConfig = EMCapsNetConfig | BaselineCNNConfig

_SMALLEST_CNN_SIZE = {
    "two": (4, "two poolings halve them"),
    "stem": (7, "a 5×5 convolution with stride 2 and a pooling leave one place"),
}

_LEAST = {"num_classes": 2}
"""A network needs at least two classes to distinguish; all other counts must be at least one."""

_ADVICE = {
    "num_classes": ": a network distinguishes at least two classes",
    "in_channels": ": give the images' channels, such as 1 for grey and 3 for colour",
}


def _check_counts(config: object, names: str) -> None:
    for name in names.split():
        count = check_count(name, getattr(config, name), _LEAST.get(name, 1), _ADVICE.get(name, ""))
        object.__setattr__(config, name, count)


def _check_positive(config: object, names: str) -> None:
    for name in names.split():
        value = getattr(config, name)
        if not is_number(value) or not value > 0:
            raise ValueError(f"{name} must be positive; got {value!r}: give a finite number above 0")
        object.__setattr__(config, name, plain(value))


CONFIGS: dict[str, type[ModelConfig]] = {"EMCapsNet": EMCapsNetConfig, "BaselineCNN": BaselineCNNConfig}
"""The architectures that can be saved and loaded, by the class's name."""

ROUTED_LAYERS = ("conv_capsules1", "conv_capsules2", "class_capsules")
"""The routed layers of a capsule network, in order."""

FROM_DATA = ("num_classes", "in_channels", "image_size")
"""The fields that depend on the data, and that fine-tuning changes."""
