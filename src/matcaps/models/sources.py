"""Where saved models are: folders, what comes with matcaps, the Hugging Face hub; and what their config.json says."""

from os import PathLike
from pathlib import Path
from typing import Any

from matcaps._paths import user_path
from matcaps.models.config import CONFIGS
from matcaps.models.files import read_json

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
DECODER_NAME = "decoder.safetensors"
"""Beside a model, if it has a decoder from poses to images."""

_SHIPPED = Path(__file__).with_name("weights")


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
    folder = user_path(source)
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


def read_config(source: str | PathLike[str]) -> dict[str, Any]:
    """Read the whole ``config.json`` of a saved model.

    Raises:
        FileNotFoundError: see :func:`from_pretrained`.
        ValueError: it is not JSON, or not a model's description.
    """
    path = resolve_folder(source) / CONFIG_NAME
    description = read_json(path)
    if description.get("architecture") not in list(CONFIGS):
        raise ValueError(f'{path} must be an object whose "architecture" is one of {list(CONFIGS)}')
    return description


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
