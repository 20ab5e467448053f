"""Save and load a model: ``model.safetensors`` and ``config.json``, nothing that could execute code."""

import json
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from matcaps.models.config import BaselineCNNConfig, EMCapsNetConfig
from matcaps.models.files import whole_file

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
DECODER_NAME = "decoder.safetensors"
"""Beside a model, if it has a decoder from poses to images."""

_SHIPPED = Path(__file__).with_name("weights")

_CONFIGS = {"EMCapsNet": EMCapsNetConfig, "BaselineCNN": BaselineCNNConfig}

_Model = TypeVar("_Model", bound=nn.Module)


def save_pretrained(model: nn.Module, folder: str | PathLike[str], **metadata: object) -> None:
    """Write a model's weights and configuration into a folder, each file whole or not at all.

    Args:
        model: an :class:`EMCapsNet` or :class:`BaselineCNN`, or what ``torch.compile`` made of one.
        folder: is made if need be; an earlier model in it is replaced, and its decoder removed.
        **metadata: JSON-able facts to keep beside the configuration, such as ``classes`` (their names) and
            ``preprocessing``.

    Raises:
        TypeError: the model is not one of ours, or ``metadata`` cannot be written as JSON.
        OSError: the folder cannot be written.
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile, whose class takes long to import
    architecture = type(model).__name__
    model_config: Any = getattr(model, "config", None)
    if not isinstance(model_config, _CONFIGS.get(architecture, ())):
        raise TypeError(
            f"model must be one of {list(_CONFIGS)}; got {architecture}: a subclass has its weights saved by "
            "safetensors, for from_pretrained would not know how to make it again"
        )
    for name in {"architecture", "model"} & metadata.keys():
        raise TypeError(f"metadata must not be called {name!r}: config.json has that for itself")
    folder = Path(folder)
    config = json.dumps({"architecture": architecture, "model": asdict(model_config), **metadata}, indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / WEIGHTS_NAME)
    with whole_file(folder / CONFIG_NAME) as path:
        path.write_text(config + "\n", encoding="utf-8")
    (folder / DECODER_NAME).unlink(missing_ok=True)  # it read the earlier model's poses


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's parameters and buffers as safetensors; at every moment the old file or the new one is there."""
    weights = {name: tensor.detach().contiguous().cpu() for name, tensor in module.state_dict().items()}
    content = save(weights, metadata={"format": "pt"})
    with whole_file(path) as partial:
        partial.write_bytes(content)


def from_pretrained(source: str | PathLike[str], expected: type[_Model] = nn.Module) -> _Model:
    """Load a model that :func:`save_pretrained` wrote, in evaluation mode, on the CPU.

    Args:
        source: a folder, or else the name of weights that come with matcaps (:func:`list_pretrained`), or the id of a
            repository on the Hugging Face hub (``"name/model"``).
        expected: the class that the model must be.

    Returns:
        The model; ``read_config(source)`` gives what was stored beside it.

    Raises:
        FileNotFoundError: neither a folder with both files, nor a name, nor a repository that can be reached.
        ValueError: the files are malformed, of another class, or do not fit each other.

    Example:
        >>> network = from_pretrained("paper-small-smallnorb")
        >>> network.training, network.config.num_classes
        (False, 5)
    """
    folder = resolve_folder(source)
    description = read_config(folder)
    model = _parse_model(description, folder)
    if not isinstance(model, expected):
        raise ValueError(
            f"{folder} holds a model of class {type(model).__name__}, not {expected.__name__}: "
            "load it with matcaps.from_pretrained"
        )
    path = folder / WEIGHTS_NAME
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or not whole: {error}") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the model in {CONFIG_NAME} beside it: {error}") from error
    return model.eval()


def build_model(config: EMCapsNetConfig | BaselineCNNConfig) -> Any:
    """Make the network that a configuration describes, with fresh weights."""
    from matcaps.models.baseline_cnn import BaselineCNN
    from matcaps.models.em_capsnet import EMCapsNet

    return EMCapsNet(config) if isinstance(config, EMCapsNetConfig) else BaselineCNN(config)


def read_config(source: str | PathLike[str]) -> dict[str, Any]:
    """Read the whole ``config.json`` of a saved model.

    Raises:
        FileNotFoundError: see :func:`from_pretrained`.
        ValueError: it is not JSON, or not a model's description.
    """
    path = resolve_folder(source) / CONFIG_NAME
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(description, dict) or description.get("architecture") not in list(_CONFIGS):
        raise ValueError(f'{path} must be an object whose "architecture" is one of {list(_CONFIGS)}')
    return description


def list_pretrained() -> list[str]:
    """Return the names of the weights that come with matcaps; a model card lies beside each.

    Example:
        >>> list_pretrained()
        ['paper-small-smallnorb', 'tutorial-mnist']
    """
    return sorted(folder.name for folder in _SHIPPED.iterdir() if (folder / WEIGHTS_NAME).is_file())


def resolve_folder(source: str | PathLike[str]) -> Path:
    """Return the local folder with both files: ``source`` itself, one that comes with matcaps, or one from the hub.

    From the hub a decoder comes along, if there is one.
    """
    folder = Path(source)
    if not folder.is_dir() and source in list_pretrained():
        folder = _SHIPPED / source
    if not folder.is_dir():
        # "runs/typo" is a path that was mistyped, not a repository, where there is a folder "runs"
        if not isinstance(source, str) or source.count("/") != 1 or folder.parent.is_dir() or source[0] in "./~":
            raise FileNotFoundError(
                f"no saved model at {source}: give a folder with {WEIGHTS_NAME} and {CONFIG_NAME}, one of the names "
                f"that come with matcaps ({', '.join(list_pretrained())}), "
                'or the id of a repository on the Hugging Face hub, "name/model"'
            )
        folder = _fetch(source)
    missing = [name for name in (WEIGHTS_NAME, CONFIG_NAME) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} has no {' and no '.join(missing)}: is it a folder of a saved model?")
    return folder


def _fetch(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise FileNotFoundError(
            f'no folder {repository}; to look for it on the Hugging Face hub: pip install "matcaps[hub]"'
        ) from error

    try:
        return Path(snapshot_download(repository, allow_patterns=[WEIGHTS_NAME, CONFIG_NAME, DECODER_NAME]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"no folder {repository}, and the hub's repository of that name could not be fetched: {error}"
        ) from error


def _parse_model(description: dict[str, Any], folder: Path) -> Any:
    try:
        values = {
            name: tuple(value) if isinstance(value, list) else value for name, value in description["model"].items()
        }
        return build_model(_CONFIGS[description["architecture"]](**values))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"the model described in {folder / CONFIG_NAME} cannot be built: {error}") from error
