"""A run that has not come to its end: what it has instead of final weights."""

import json
import warnings
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file
from torch import nn

from matcaps._paths import user_path
from matcaps.models.pretrained import from_pretrained
from matcaps.models.sources import CONFIG_NAME, WEIGHTS_NAME
from matcaps.training.checkpoint_files import CHECKPOINTS_NAME, newest_checkpoint, read_checkpoint
from matcaps.training.record import RESULTS_NAME, SETTINGS_NAME, read_json, read_run_settings

LAST = "last"
"""The name of a run's newest checkpoint, wherever one can be chosen."""

_NETWORK = "network."


def check_finished(source: str | PathLike[str]) -> None:
    """Refuse the folder of a run that has not come to its weights; warn where it goes on to more epochs.

    Raises:
        FileNotFoundError: it has settings, but no weights or no description of them.
    """
    folder = user_path(source)
    if not (folder / SETTINGS_NAME).is_file():
        return
    if not all((folder / name).is_file() for name in (WEIGHTS_NAME, CONFIG_NAME)):
        raise FileNotFoundError(
            f"the run in {folder} has no final weights yet: finish it with matcaps train --resume {folder}, or look at "
            f"its last checkpoint with --checkpoint {LAST}"
        )
    if (folder / RESULTS_NAME).is_file():
        done, epochs = read_json(folder / RESULTS_NAME).get("epochs"), read_run_settings(folder).epochs
        if done is not None and done != epochs:
            warnings.warn(
                f"the run in {folder} goes on and has not ended yet: the weights are those after {done} of {epochs} "
                f"epochs; --checkpoint {LAST} takes its last checkpoint",
                stacklevel=3,
            )


def open_checkpoint(source: str, checkpoint: str) -> tuple[nn.Module, dict[str, Any], Path]:
    """The network of a run's checkpoint, with averaged weights where the run averages them, as its end would have it.

    Args:
        source: the run's folder.
        checkpoint: "last" for the newest one, or a checkpoint's path.

    Returns:
        The network in evaluation mode, its description as ``config.json`` would have it, and the run's folder.

    Raises:
        FileNotFoundError: there is no such run or checkpoint.
        ValueError: the checkpoint is damaged, or of a version that did not describe its network.
    """
    folder = user_path(source)
    settings = read_run_settings(folder)
    path = newest_checkpoint(folder / CHECKPOINTS_NAME) if checkpoint == LAST else user_path(checkpoint)
    if path is None or not path.is_file():
        where = f"the run in {folder} has no checkpoint yet" if path is None else f"no checkpoint {path}"
        raise FileNotFoundError(f"{where}: let it train on, matcaps train --resume {folder}")
    content = read_checkpoint(path)
    own, weights = content.get("matcaps"), content.get("state_dict")
    description: Any = own.get("config") if isinstance(own, dict) else None
    if not isinstance(description, dict) or not isinstance(weights, dict):
        raise ValueError(
            f"{path} does not say which network it is of, as checkpoints of this version do: let the run go on to its "
            f"next checkpoint, matcaps train --resume {folder}"
        )
    with TemporaryDirectory() as place:
        (Path(place) / CONFIG_NAME).write_text(json.dumps(description), encoding="utf-8")
        own_weights = {
            name.removeprefix(_NETWORK): value.contiguous()
            for name, value in weights.items()
            if name.startswith(_NETWORK)
        }
        save_file(own_weights, Path(place) / WEIGHTS_NAME)
        try:
            network = from_pretrained(place)
        except ValueError as error:
            raise ValueError(f"{path}: {error}".replace(place, str(path))) from error
    warnings.warn(
        f"not the end of the run in {folder}, but {path.name}: {content['global_step']:,} steps, in epoch "
        f"{content.get('epoch', 0) + 1} of {settings.epochs}",
        stacklevel=3,
    )
    return network, description, folder
