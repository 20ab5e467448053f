"""Save and load a model: ``model.safetensors`` and ``config.json``, nothing that could execute code."""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from matcaps._paths import named_errors, user_path
from matcaps.models.config import CONFIGS, EARLIER_IMPLEMENTATIONS, IMPLEMENTATIONS, ModelConfig
from matcaps.models.files import file_digest, put_back, whole_file
from matcaps.models.modules import build_model, describe, named_tensors, unwrap
from matcaps.models.sources import CONFIG_NAME, DECODER_NAME, WEIGHTS_NAME, read_config, resolve_folder
from matcaps.models.transfer import Tuned, transfer

_OWN_KEYS = {"architecture", "model", "layers"}

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""The dtypes that from_pretrained converts to float32 without loss."""
_COUNTER = ".num_batches_tracked"
"""A counter of torch's batch normalisation; nothing here uses it, and loading sets it to 0."""

_Model = TypeVar("_Model", bound=nn.Module)


def save_pretrained(model: nn.Module, folder: str | PathLike[str], **metadata: object) -> None:
    """Write a model's weights and configuration into a folder, both files or neither.

    The configuration is derived from the present modules, so that a new class layer is saved with its own number of
    classes. A model that :func:`from_pretrained` could not load is refused before anything is written. Hooks and frozen
    parameters are not saved.

    Args:
        model: an :class:`EMCapsNet` or :class:`BaselineCNN`, also wrapped by ``torch.compile``, data parallelism or
            ``AveragedModel``. Its numbers must be finite, float32 or of half precision; they are loaded as
            float32.
        folder: created if it does not exist; an earlier model in it is replaced, and its decoder removed.
        **metadata: JSON-able facts to keep beside the configuration, such as ``classes`` (their names) and
            ``preprocessing``.

    Raises:
        TypeError: the model is not one of ours, or ``metadata`` cannot be written as JSON.
        ValueError: no configuration describes the model; its numbers are not finite, have no values (the meta device),
            or are shared by two layers; or the number of ``classes`` is not the model's.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from matcaps import create_model
        >>> folder = tempfile.mkdtemp()
        >>> save_pretrained(create_model("quickstart"), folder, classes=list("0123456789"))
        >>> from_pretrained(folder).num_classes
        10
    """
    description = describe_model(model)
    for name in _OWN_KEYS & metadata.keys():
        raise TypeError(f"metadata must not be called {name!r}: config.json uses this name itself")
    classes, num_classes = metadata.get("classes"), description["model"]["num_classes"]
    if isinstance(classes, list | tuple) and len(classes) != num_classes:
        raise ValueError(f"classes must be {num_classes} names, as many as the model has classes; got {len(classes)}")
    config = json.dumps({**description, **metadata}, indent=2)
    weights = _storable(model)
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        put_back(folder / CONFIG_NAME),
        whole_file(folder / WEIGHTS_NAME) as weights_path,
        whole_file(folder / CONFIG_NAME) as config_path,
    ):
        with named_errors(folder / WEIGHTS_NAME):
            weights_path.write_bytes(save(weights, metadata={"format": "pt"}))  # save_file does not report a full disk
        config_path.write_text(config + "\n", encoding="utf-8")
    (folder / DECODER_NAME).unlink(missing_ok=True)  # it was trained on the earlier model's poses


def describe_model(model: nn.Module) -> dict[str, Any]:
    """The part of ``config.json`` that describes the network; raises as :func:`save_pretrained` does."""
    description = describe(model)
    values = {"architecture": type(unwrap(model)).__name__, "model": asdict(description.config)}
    if description.departures:
        values["layers"] = description.departures
    return values


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's parameters and buffers as safetensors; at any time the old file or the new one exists.

    Raises:
        ValueError: they are not finite, have another dtype, have no values, or are shared.
    """
    content = save(_storable(module), metadata={"format": "pt"})
    with whole_file(path) as partial:
        partial.write_bytes(content)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read what :func:`save_weights` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a complete safetensors file, or a number in it is not finite.
    """
    try:
        with named_errors(path):
            weights = load(path.read_bytes())  # load_file says of any error that there is no such file
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is incomplete: {error}") from error
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ValueError(f"the weights in {path} must be finite; {name} is not: use an earlier state")
    return weights


def load_into(make: Callable[[], _Model], weights: dict[str, Tensor]) -> _Model:
    """Make a module and load weights into it.

    It is made without memory first, since a few bytes can describe a module of any size: memory is for what fits.

    Raises:
        RuntimeError: the weights do not fit.
    """
    with torch.device("meta"):
        make().load_state_dict(weights, assign=True)
    module = make()
    module.load_state_dict(weights)
    return module


def from_pretrained(
    source: str | PathLike[str],
    expected: type[_Model] = nn.Module,
    *,
    implementation: str | None = None,
    **changes: Any,
) -> _Model:
    """Load a model that :func:`save_pretrained` wrote, in evaluation mode, on the CPU, in float32.

    ``changes`` adapt the model to other data, as in timm:

    - ``num_classes``: the class layer is new; before training call ``network.calibrate(images, "all")``, which
      sets the scales and β of every routed layer that is not frozen, or ``network.calibrate(images)`` for the new layer
      only. If the number is the saved one, the layer is kept; ``network.reset_classifier(n)`` replaces it in any
      case.
    - ``in_channels``: the first convolution's weights are summed over the channels for one, and repeated and scaled
      by old over new channels for more, as timm's ``adapt_input_conv`` does.
    - ``image_size``, only for a :class:`BaselineCNN`, whose fully connected layers depend on it: they are new.
      An :class:`EMCapsNet` takes images of any size.
    - ``iterations``, ``class_iterations``: the schedule of inverse temperatures is the new one, with the scale that
      calibration had found; with normalisation its last value stays, because that one is learned.
    - ``class_beta_activation``: "shared" takes the mean of the classes' β_a, "each" gives every class the shared one.
    - Fields that change no weight's shape, such as ``annealing``, are set, though the weights were trained otherwise.

    One warning names everything that was not kept. Sizes of inner layers cannot change, because the next layers would

    Args:
        source: a folder, the name of weights that come with matcaps (:func:`list_pretrained`), or the id of a
            repository on the Hugging Face hub (``"name/model"``).
        expected: the class that the model must be.
        implementation: what computes the routing of a capsule network, such as ``"reference"`` for second-order
            gradients (:class:`matcaps.models.EMCapsNetConfig` lists all); None for the saved one, mostly
            ``"auto"``.
        **changes: fields of the model's configuration.

    Returns:
        The model; ``read_config(source)`` gives the facts that were saved with it.

    Raises:
        FileNotFoundError: neither a folder with both files, nor a name, nor a repository that can be reached.
        ValueError: the files are malformed, of another class, or do not fit each other; a change cannot be made;
            or ``implementation`` is unknown, or the model has no routing.
        TypeError: the configuration has no such field.

    Example:
        >>> network = from_pretrained("paper-small-smallnorb")
        >>> network.training, network.config.num_classes
        (False, 5)
        >>> import torch
        >>> network = from_pretrained("paper-small-smallnorb", num_classes=7, in_channels=1)
        >>> network.calibrate(torch.rand(32, 1, 32, 32))
        ('class_capsules',)
    """
    tuned = load_tuned(source, {"implementation": implementation, **changes})
    model = tuned.network
    if not isinstance(model, expected):
        raise ValueError(
            f"{source} holds a model of class {type(model).__name__}, not {expected.__name__}: "
            "load it with matcaps.from_pretrained"
        )
    warning = tuned.warning(source)
    if warning:
        warnings.warn(warning, stacklevel=2)
    return model


def load_tuned(source: str | PathLike[str], changes: dict[str, Any]) -> Tuned:
    """Do what :func:`from_pretrained` does, without a warning."""
    folder = resolve_folder(source)
    implementation = changes.get("implementation")
    description = _with_implementation(read_config(folder), implementation)
    path = folder / WEIGHTS_NAME
    weights = read_weights(path)
    try:
        model = load_into(lambda: _parse_model(description, folder), weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the model in {CONFIG_NAME} beside it: {error}") from error
    tuned = transfer(model, {name: value for name, value in changes.items() if name != "implementation"})
    tuned.network.eval()
    return tuned


def weights_digest(source: str | PathLike[str]) -> str:
    """SHA-256 of a saved model's weights, in hexadecimal."""
    return file_digest(resolve_folder(source) / WEIGHTS_NAME)


def _storable(module: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU that safetensors can store and from_pretrained can load; no two share memory."""
    tensors = {name: tensor for name, tensor in named_tensors(module).items() if not name.endswith(_COUNTER)}
    places: dict[int, str] = {}
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise ValueError(f"{name} must have values; it is on the meta device: load weights first")
        if tensor.dtype not in _DTYPES:
            raise ValueError(
                f"{name} must be float32 or of half precision, because from_pretrained loads it as float32; got "
                f"{str(tensor.dtype).removeprefix('torch.')}: call .float() first"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"{name} must be finite; it has {_count_not_finite(tensor)}: save an earlier state")
        other = places.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
        if other != name:
            raise ValueError(
                f"{other} and {name} must be two tensors; they share memory, and would be two tensors once loaded: "
                "give one of them a copy, torch.nn.Parameter(weight.detach().clone())"
            )
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _count_not_finite(tensor: Tensor) -> str:
    return f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers that are not"


def read_model_config(source: str | PathLike[str]) -> ModelConfig:
    """Return the configuration of a saved model; raises as :func:`from_pretrained` does."""
    folder = resolve_folder(source)
    return _parse_config(read_config(folder), folder)


def _with_implementation(description: dict[str, Any], implementation: str | None) -> dict[str, Any]:
    """Change the implementation of routing in a saved model's description."""
    if implementation is None or not isinstance(description.get("model"), dict):
        return description
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}; got {implementation!r}")
    if description["architecture"] != "EMCapsNet":
        raise ValueError(
            f"implementation is for capsule networks; got a model of class {description['architecture']}, which has no "
            "routing: leave it out"
        )
    return {**description, "model": {**description["model"], "implementation": implementation}}


def _parse_config(description: dict[str, Any], folder: Path) -> ModelConfig:
    try:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in description["model"].items()
        }
        named = values.get("implementation")
        if isinstance(named, str) and named in EARLIER_IMPLEMENTATIONS:
            values["implementation"] = EARLIER_IMPLEMENTATIONS[named]
        return CONFIGS[description["architecture"]](**values)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise _unfit(folder, error) from error


def _parse_model(description: dict[str, Any], folder: Path) -> Any:
    config = _parse_config(description, folder)
    try:
        return build_model(config, description.get("layers"))
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise _unfit(folder, error) from error


def _unfit(folder: Path, error: Exception) -> ValueError:
    return ValueError(f"the model described in {folder / CONFIG_NAME} cannot be built: {error}")
