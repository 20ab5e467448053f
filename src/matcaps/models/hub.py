"""Send a network to the Hugging Face hub: weights, configuration, decoder and a card that says what it is."""

import json
import shutil
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from matcaps._paths import user_path
from matcaps.models.decoder import PoseDecoder
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.modules import unwrap
from matcaps.models.pretrained import from_pretrained, save_pretrained, save_weights
from matcaps.models.sources import CONFIG_NAME, DECODER_NAME, WEIGHTS_NAME, list_pretrained, read_config, resolve_folder

CARD_NAME = "README.md"
RESULTS_NAME = "results.json"
"""What a run leaves beside its network; its figures go onto the card."""


def push_to_hub(
    source: nn.Module | str | PathLike[str],
    repository: str,
    *,
    decoder: PoseDecoder | None = None,
    licence: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "A network of matcaps",
    **metadata: object,
) -> str:
    """Send a network to a repository on the Hugging Face hub, in one commit; the repository is made if need be.

    A ``README.md`` in the folder is the card. Where there is none, one is made that says what the network takes, what
    its classes are, and how a run tested it; but a card that somebody wrote on the hub stays as it is.

    Args:
        source: a network, as :func:`matcaps.save_pretrained` takes it; or a folder of a saved one or of a run.
        repository: ``"name/model"``.
        decoder: from the network's poses to images, to lie beside a network; a folder has its own. Where there is
            none, one that is on the hub goes, for it read an earlier network's poses.
        licence: of the weights, by the hub's name for it such as ``"apache-2.0"``; for a card that is made here.
        private: whether a new repository is private; None for what its owner has set.
        token: of the hub; None for the one of ``hf auth login``.
        message: of the commit.
        **metadata: for a network, what ``config.json`` is to keep beside the configuration, such as ``classes``.

    Returns:
        The address of the commit.

    Raises:
        ImportError: huggingface_hub is missing.
        FileNotFoundError: there is no such folder.
        ValueError: network and decoder do not fit each other, the repository's name is none, or as
            :func:`matcaps.save_pretrained` does.
        TypeError: ``decoder`` or ``metadata`` are given with a folder, or the network is not one of ours.
        OSError: the hub refuses or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ImportError('to push to the Hugging Face hub: pip install "matcaps[hub]"') from error

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if isinstance(source, nn.Module):
            _save(source, folder, decoder, metadata)
        elif decoder is not None or metadata:
            given = ", ".join([*(["decoder"] if decoder is not None else []), *metadata])
            raise TypeError(
                f"a folder has its own decoder and metadata; got {given} too: load the network and push that"
            )
        else:
            _copy(source, folder)
        api = HfApi(token=token)
        failures: Any = (OSError, *HfHubHTTPError.__bases__)  # of its HTTP library, too, where there is no network
        try:
            name = api.create_repo(repository, private=private, exist_ok=True).repo_id
            if not (folder / CARD_NAME).is_file() and not _is_written_by_hand(api, name):
                (folder / CARD_NAME).write_text(model_card(folder, name, licence), encoding="utf-8")
            commit = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=message,
                allow_patterns=[WEIGHTS_NAME, CONFIG_NAME, DECODER_NAME, CARD_NAME],
                delete_patterns=[DECODER_NAME],  # but for what is sent
            )
        except failures as error:
            lines = str(error).strip().splitlines()
            reason = getattr(error, "server_message", None) or (lines[0] if lines else type(error).__name__)
            raise OSError(
                f"{repository} could not be sent to the hub: {reason.rstrip('.')}. Log in with "
                "hf auth login, and take a repository that you may write to"
            ) from error
    return commit.commit_url


def model_card(folder: Path, repository: str, licence: str | None = None) -> str:
    """The text of a card, Markdown with what the hub reads off at its head, for a folder with a saved network."""
    description = read_config(folder)
    network: Any = from_pretrained(folder)
    classes, channels = network.num_classes, network.config.in_channels
    if isinstance(network, EMCapsNet):
        kind = "A matrix capsule network with EM routing (Hinton, Sabour and Frosst, 2018)"
        returns = f"Capsules(poses [B, {classes}, 4, 4], activations [B, {classes}])"
    else:
        kind = "The convolutional network with which Hinton, Sabour and Frosst (2018) compare their capsules"
        returns = f"logits [B, {classes}]"
    preparation = description.get("preprocessing")
    prepared = preparation if isinstance(preparation, dict) else {}
    side = prepared.get("crop") or prepared.get("image_size")
    shape = f"[B, {channels}, {side}, {side}]" if side else f"[B, {channels}, H, W]"
    head = {"library_name": "matcaps", "pipeline_tag": "image-classification", "tags": ["capsule-networks", "matcaps"]}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items())]
    lines += [f"license: {json.dumps(licence)}"] if licence else []
    lines += ["---", "", _MADE, "", f"# {repository.split('/')[-1]}", ""]
    lines += [f"{kind}: {sum(weight.numel() for weight in network.parameters()):,} parameters, {classes} classes.", ""]
    lines += ["```python", "import matcaps", "", f"network = matcaps.from_pretrained({json.dumps(repository)})"]
    lines += [f"output = network(images)  # images {shape} → {returns}", "```"]
    names = description.get("classes")
    if isinstance(names, list):
        lines += ["", f"**Classes.** {', '.join(str(name) for name in names)}."]
    if prepared:
        lines += ["", "**Input.** `config.json` says how images are prepared; `matcaps predict` and `eval` do it."]
    lines += _figure(folder)
    if (folder / DECODER_NAME).is_file():
        lines += ["", f"**Decoder.** `{DECODER_NAME}` draws the image from the winner's pose, for `matcaps inspect`."]
    return "\n".join(lines) + "\n"


_MADE = "<!-- This card was made by matcaps.models.push_to_hub, which makes it anew; take this line out to keep it. -->"


def _is_written_by_hand(api: Any, repository: str) -> bool:
    """Whether a repository has a card that is not to be replaced."""
    if not api.file_exists(repository, CARD_NAME):
        return False
    return _MADE not in Path(api.hf_hub_download(repository, CARD_NAME)).read_text(encoding="utf-8")


def _figure(folder: Path) -> list[str]:
    """What a run says of its test, as lines of a card."""
    try:
        results = json.loads((folder / RESULTS_NAME).read_text(encoding="utf-8"))
        test = results["test"]
        error, count, data = 100 * (1 - test["accuracy"]), test["num_images"], results["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return ["", f"**Figure.** {error:.2f} % error on {count:,} test images of {data}, by the run that trained it."]


def _save(network: nn.Module, folder: Path, decoder: PoseDecoder | None, metadata: dict[str, object]) -> None:
    if decoder is not None:
        found, expected = decoder.num_classes, getattr(unwrap(network), "num_classes", None)
        if found != expected:
            raise ValueError(f"decoder must be one for {expected} classes, as the network has; got one for {found}")
    save_pretrained(network, folder, **metadata)
    if decoder is not None:
        save_weights(decoder, folder / DECODER_NAME)


def _copy(source: str | PathLike[str], folder: Path) -> None:
    """What is sent of a folder, and what its card is made of."""
    if not user_path(source).is_dir() and source not in list_pretrained():
        raise FileNotFoundError(f"there is no folder {source} with a saved network to send")
    place = resolve_folder(source)
    from_pretrained(place)  # what nobody could load is not sent
    for name in (WEIGHTS_NAME, CONFIG_NAME, DECODER_NAME, CARD_NAME, RESULTS_NAME):
        if (place / name).is_file():
            shutil.copyfile(place / name, folder / name)
