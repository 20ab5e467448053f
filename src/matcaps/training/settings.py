"""All settings of a training run, as frozen dataclasses of plain values; imports no torch.

The Python API, the YAML files and ``--help`` use the same objects.
"""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from matcaps._numbers import is_finite
from matcaps.data.settings import DataSettings
from matcaps.models.config import EARLIER_IMPLEMENTATIONS
from matcaps.training.network_fields import network_fields

Accelerator = Literal["auto", "cpu", "gpu"]
"""Where to compute: "gpu" (CUDA), "cpu", or "auto" for the GPU if there is one."""

WATCHABLE_PARTS = ("test", "familiar_test")
"""The parts that :attr:`TrainSettings.watched_parts` may name; validation images are always evaluated each epoch."""

INCIDENTAL = (
    "accelerator",
    "cuda_graph",
    "checkpoint_minutes",
    "log_every_steps",
    "watched_parts",
    "watch_every",
    "views_every",
    "agreement_every",
    "test",
)
"""Settings that do not change a run's weights; a run may be resumed with other values."""

INCIDENTAL_DATA = ("root", "folder", "num_workers")
"""The same for :attr:`TrainSettings.data`: data may have moved, and a run notices if they have changed."""

INCIDENTAL_MODEL = ("implementation",)
"""The same for :attr:`TrainSettings.model`: implementations differ in rounding, as accelerators do."""

OF_PRETRAINED = ("pretrained", "pretrained_sha256", "freeze", "recalibrate")
"""The fields of :class:`ModelSettings` besides the preset and the network's configuration."""


def _positive(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (isinstance(value, int | float) and is_finite(value) and value > 0):
            raise ValueError(f"{name} must be positive; got {value!r}")


def _one_of(settings: object, name: str, choices: tuple[str, ...]) -> None:
    if getattr(settings, name) not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(settings, name)!r}")


@dataclass(frozen=True)
@network_fields
class ModelSettings:
    """Which network: a preset, and changes to it. None: as in the preset.

    The number of channels and classes, and the image size if the network needs it, come from the data. Every other
    field of :class:`matcaps.models.EMCapsNetConfig` and :class:`matcaps.models.BaselineCNNConfig` is one here, too.

    Args:
        preset: a name that "matcaps models" lists.
        pretrained: start from saved weights: the folder of a run or of save_pretrained, weights that come with matcaps,
            or a name on the Hugging Face hub. The network then has the settings of the weights, unless others are
            given; the preset only tells its kind. If the classes differ, the class layer is new.
        pretrained_sha256: of the weights' file; filled in when the training starts; weights with another hash are
            refused.
        freeze: parts of the pretrained network that do not change, such as stem,primary; of capsules: stem, primary,
            conv1, conv2, class; of a CNN: features, classifier.
        recalibrate: if the class layer is new, calibrate the kept layers, too, unless they are frozen: their
            matrices keep their directions, and scales and β are set for these images. Without it our digits were hardly
            learned from weights of smallNORB.
    """

    preset: str = "quickstart"
    pretrained: str | None = None
    pretrained_sha256: str | None = None
    freeze: tuple[str, ...] | str = ()
    recalibrate: bool = True
    if TYPE_CHECKING:  # what network_fields adds

        def __init__(self, preset: str = "quickstart", **changes: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def __post_init__(self) -> None:
        if self.implementation in EARLIER_IMPLEMENTATIONS:
            object.__setattr__(self, "implementation", EARLIER_IMPLEMENTATIONS[self.implementation])
        if self.pretrained is not None and not (isinstance(self.pretrained, str) and self.pretrained):
            raise ValueError(f"pretrained must be a name or a folder; got {self.pretrained!r}: leave it out for none")
        parts = self.freeze.split(",") if isinstance(self.freeze, str) else self.freeze
        if not isinstance(parts, tuple | list) or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"freeze must be names of parts; got {self.freeze!r}: such as stem,primary")
        object.__setattr__(self, "freeze", tuple(part.strip() for part in parts if part.strip()))
        for name in ("freeze", "pretrained_sha256"):
            if getattr(self, name) and self.pretrained is None:
                raise ValueError(
                    f"{name} must be left out without pretrained weights; got {getattr(self, name)!r}: name the "
                    "weights with pretrained, because frozen parts would stay random"
                )

    def filled(self, values: dict[str, Any]) -> "ModelSettings":
        """These settings with values for those that are None, by name; unknown names are ignored."""
        known = {entry.name for entry in fields(self)}
        missing = {name: value for name, value in values.items() if name in known and getattr(self, name) is None}
        return replace(self, **missing)

    def changes(self) -> dict[str, Any]:
        """The settings that differ from the preset."""
        values = asdict(self)
        for name in ("preset", *OF_PRETRAINED):
            del values[name]
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class LossSettings:
    """The loss.

    Args:
        name: "spread" (the paper), "margin" (Sabour et al. 2017) or "cross-entropy"; for a CNN, of its softmax.
        reduction: over the batch, "mean" (the paper) or "sum" (the tutorial).
        margin_schedule: of the spread loss: "tutorial", from 0.2 to 0.9 in steps of 0.1; "authors", a logistic rise
            from 0.2 to 0.99; "constant".
        margin_epochs: epochs over which the tutorial's margin rises; 7 in the tutorial, one step of 0.1 an epoch.
        margin_scale: optimiser steps in one unit of the authors' logistic; 50,000 in their code; None: a fortieth of
            the run's steps.
        margin: the margin of the schedule "constant".
        reconstruction_weight: weight of the reconstruction loss; above 0 a decoder is trained with the network.
            Sabour et al. (2017) use 0.0005.
    """

    name: Literal["spread", "margin", "cross-entropy"] = "spread"
    reduction: Literal["mean", "sum"] = "mean"
    margin_schedule: Literal["tutorial", "authors", "constant"] = "tutorial"
    margin_epochs: float = 7.0
    margin_scale: float | None = None
    margin: float = 0.9
    reconstruction_weight: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "name", ("spread", "margin", "cross-entropy"))
        _one_of(self, "reduction", ("mean", "sum"))
        _one_of(self, "margin_schedule", ("tutorial", "authors", "constant"))
        _positive(self, "margin_epochs", "margin_scale")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin must lie in [0, 1]; got {self.margin!r}")
        if not self.reconstruction_weight >= 0:
            raise ValueError(f"reconstruction_weight must be 0 or more; got {self.reconstruction_weight!r}")


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimiser.

    Args:
        name: "adam" or "adamw"; they differ only in weight decay, which adam adds to the gradient.
        learning_rate: its peak; 3e-3 in the paper.
        matrix_learning_rate: of the transformation matrices, at its highest, as a share of the root mean square that
            each layer's matrices start with; None: learning_rate, whatever their size. Full calibration makes matrices
            of 3 to 60, which steps of 3e-3 hardly change.
        weight_decay: 2e-7 in the authors' code.
        schedule: after the warm-up: "constant"; "exponential", times decay_rate each decay_steps; "cosine" or
            "linear", down to 0 at the end of the run.
        decay_rate: 0.96 in the authors' code.
        decay_steps: 20,000 in the authors' code.
        warmup_steps: optimiser steps over which the learning rate rises from near 0.
        gradient_clip: largest norm of the gradient of all parameters together; None: not clipped.
        ema_decay: decay of the averaged weights that are evaluated and saved, such as 0.998; None: no averaging.
    """

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 3e-3
    matrix_learning_rate: float | None = None
    weight_decay: float = 0.0
    schedule: Literal["constant", "exponential", "cosine", "linear"] = "constant"
    decay_rate: float = 0.96
    decay_steps: int = 20_000
    warmup_steps: int = 0
    gradient_clip: float | None = None
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        _one_of(self, "name", ("adam", "adamw"))
        _one_of(self, "schedule", ("constant", "exponential", "cosine", "linear"))
        _positive(self, "learning_rate", "matrix_learning_rate", "decay_rate", "decay_steps", "gradient_clip")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be 0 or more; got {self.weight_decay!r}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more; got {self.warmup_steps!r}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie between 0 and 1, or be None; got {self.ema_decay!r}")

    def factor(self, step: int, total_steps: int) -> float:
        """The factor of the learning rate at an optimiser step, counted from 0."""
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        progress = min(1.0, max(0, step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))
        if self.schedule == "exponential":
            return warm * self.decay_rate ** (step / self.decay_steps)
        if self.schedule == "cosine":
            return warm * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "linear":
            return warm * (1 - progress)
        return warm


@dataclass(frozen=True)
class TrainSettings:
    """A whole training run.

    Args:
        recipe: the name of its recipe.
        model: which network.
        data: which images, and how they are prepared.
        loss: the loss.
        optimizer: the optimiser.
        epochs: times through the training images.
        seed: of the initial weights, the order of the images and their augmentation.
        precision: "32-true", or "bf16-mixed": convolutions in bfloat16; the routing stays in float32.
        accelerator: "gpu" for CUDA, "cpu", or "auto" for the first where there is one.
        cuda_graph: record a training step as a CUDA graph and replay it: small networks on one GPU then no longer wait
            for Python. The results are the same.
        devices: processes to train with, one per device; several use DDP.
        num_nodes: machines that train together, with torchrun or a cluster's launcher.
        checkpoint_minutes: time between checkpoints within an epoch; one is always written after every epoch.
        calibration_images: number of images of the first batch used for calibration.
        log_every_steps: optimiser steps between the logged losses.
        watched_parts: parts of the data to classify after some epochs and log the accuracy of, "test" and
            "familiar_test". This gives a learning curve; nothing is chosen by it.
        watch_every: epochs from one evaluation of the watched parts to the next; the last epoch always has one.
        views_every: epochs from one set of views of the capsules in TensorBoard to the next: figures, vote
            distances, poses as an embedding; 0: never. They take at most 2 % of the time; a short run has only the
            cheap ones.
        agreement_every: epochs from one measurement of how routing treats the true class to the next, on 256 images of
            the validation part, or else of the training part: its share of the data, whether its votes come together,
            and how many capsules are off or on, in metrics.csv and TensorBoard; the last epoch always has
            one. 0: never.
        test: "end" classifies the test part once, after the last epoch; "never" does not use it, as required for runs
            by which something is chosen; "matcaps eval" can test such a run later.
    """

    recipe: str = "custom"
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    epochs: int = 10
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: Accelerator = "auto"
    cuda_graph: bool = False
    devices: int = 1
    num_nodes: int = 1
    checkpoint_minutes: float = 10.0
    calibration_images: int = 32
    log_every_steps: int = 10
    watched_parts: tuple[str, ...] = ()
    watch_every: int = 1
    views_every: int = 5
    agreement_every: int = 5
    test: Literal["never", "end"] = "end"

    def __post_init__(self) -> None:
        if not isinstance(self.recipe, str) or not self.recipe or set(self.recipe) & set("/\\\0"):
            raise ValueError(
                f"recipe must be a name without a path, since a run's folder is named by it; got {self.recipe!r}"
            )
        _one_of(self, "precision", ("32-true", "bf16-mixed"))
        _one_of(self, "accelerator", get_args(Accelerator))
        _positive(self, "checkpoint_minutes")
        object.__setattr__(self, "watched_parts", tuple(self.watched_parts))  # YAML files contain lists
        for part in self.watched_parts:
            if part not in WATCHABLE_PARTS:
                raise ValueError(f"watched_parts must be names from {',  '.join(WATCHABLE_PARTS)}; got {part!r}")
        _one_of(self, "test", ("never", "end"))
        if self.test == "never" and self.watched_parts:
            raise ValueError(
                f"watched_parts must be empty where test is never; got {', '.join(self.watched_parts)}: these are test "
                "images: watch none, or test at the end"
            )
        for name in ("epochs", "devices", "num_nodes", "calibration_images", "log_every_steps", "watch_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        for name in ("seed", "views_every", "agreement_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0; got {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as dicts, lists, strings, numbers and None, which YAML and JSON can hold."""
        values = asdict(self)
        values["data"] = self.data.to_dict()
        values["watched_parts"] = list(self.watched_parts)
        values["model"]["freeze"] = list(self.model.freeze)
        if values["model"]["coordinate_components"] is not None:
            values["model"]["coordinate_components"] = list(values["model"]["coordinate_components"])
        return values

    def with_incidentals_of(self, other: "TrainSettings") -> "TrainSettings":
        """These settings with the other's :data:`INCIDENTAL` ones, such as another data folder or device."""
        data = replace(self.data, **{name: getattr(other.data, name) for name in INCIDENTAL_DATA})
        if data.split.groups and other.data.split.groups:  # the table may have moved; a run notices other groups
            data = replace(data, split=replace(data.split, groups=other.data.split.groups))
        model = replace(self.model, **{name: getattr(other.model, name) for name in INCIDENTAL_MODEL})
        return replace(self, data=data, model=model, **{name: getattr(other, name) for name in INCIDENTAL})

    def with_weights_of(self, other: "TrainSettings") -> "TrainSettings":
        """These settings, with None replaced by the other's values if both have the same pretrained weights."""
        if self.model.pretrained is None or self.model.pretrained != other.model.pretrained:
            return self
        return replace(self, model=self.model.filled(asdict(other.model)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainSettings":
        """Make settings from the result of :meth:`to_dict`.

        Raises:
            ValueError: a name is unknown or a value is out of range.
        """
        if not isinstance(values, dict):
            raise ValueError(f"training settings must be a mapping of names to values; got {type(values).__name__}")
        known = {entry.name for entry in fields(cls)}
        parts = {"model": ModelSettings, "loss": LossSettings, "optimizer": OptimizerSettings}
        arguments: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"training has no setting {name!r}; it has {', '.join(sorted(known))}")
            if name in ("data", *parts) and not isinstance(value, dict):
                raise ValueError(f"{name} must be a mapping of names to values; got {type(value).__name__}")
            if name == "data":
                arguments[name] = DataSettings.from_dict(value)
            elif name in parts:
                arguments[name] = _make(parts[name], name, value)
            else:
                arguments[name] = value
        return cls(**arguments)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full names, such as ``"data.batch_size"``; tuples become lists, as in YAML."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def changes_of_a_run(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The settings, as in :meth:`TrainSettings.to_dict`, that would change if a run were resumed.

    Settings that only one of the two has (another version's) are left out, and so are those that change no number.

    Returns:
        Lines such as ``"optimizer.learning_rate: 0.003, now 0.01"``.
    """
    one, two = flatten(before), flatten(after)
    incidental = {"recipe", "data.split.groups", *INCIDENTAL, *(f"data.{name}" for name in INCIDENTAL_DATA)}
    names = [name for name in one if name in two and name not in incidental and one[name] != two[name]]
    return [f"{name}: {one[name]}, now {two[name]}" for name in names]


def _make(cls: type, where: str, values: dict[str, Any]) -> Any:
    known = {entry.name for entry in fields(cls)}
    for name in values:
        if name not in known:
            raise ValueError(f"{where} has no setting {name!r}; it has {', '.join(sorted(known))}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
