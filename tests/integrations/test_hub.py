"""Networks go to the hub and come back, with decoder and card; the hub's own client speaks to a stand-in of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import matcaps
from matcaps.models import PoseDecoder, load_decoder, push_to_hub
from matcaps.models.hub import _MADE
from matcaps.models.pretrained import save_weights
from matcaps.models.sources import resolve_folder
from tests.support.hub import Hub, hub
from tests.support.networks import make_network

FILES = ["README.md", "config.json", "decoder.safetensors", "model.safetensors"]


@pytest.fixture
def stand_in(monkeypatch, tmp_path) -> Iterator[Hub]:
    """A hub, and the client pointed to it; what the client would read of its environment is long read."""
    from huggingface_hub import constants

    with hub() as state:
        monkeypatch.setattr(constants, "ENDPOINT", state.address)
        template = state.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        from huggingface_hub import hf_api

        monkeypatch.setattr(hf_api.api, "endpoint", state.address)
        yield state


def decoder_of(classes: int) -> PoseDecoder:
    torch.manual_seed(1)
    return PoseDecoder(classes, (1, 20, 20), hidden_units=(8, 8))


def test_a_network_comes_back_with_its_decoder(stand_in):
    network, decoder = make_network(), decoder_of(3)
    address = network.push_to_hub("me/shapes", decoder=decoder, classes=["a", "b", "c"], licence="mit")
    assert address.startswith(f"{stand_in.address}/me/shapes/commit/")
    assert stand_in.tokens == {"Bearer hf_secret"}
    assert sorted(stand_in.repositories["me/shapes"][-1]) == FILES
    images = torch.rand(2, 1, 20, 20)
    same = matcaps.from_pretrained("me/shapes")
    assert torch.equal(same(images).poses, network(images).poses)
    poses, labels = network(images).poses, torch.tensor([0, 2])
    loaded = load_decoder(resolve_folder("me/shapes") / "decoder.safetensors", 3, (1, 20, 20))
    assert torch.equal(loaded(poses, labels), decoder(poses, labels))


def card(state: Hub) -> str:
    return state.repositories["me/shapes"][-1]["README.md"].decode()


def test_the_card_says_what_it_is(stand_in, tmp_path):
    network = make_network()
    run = tmp_path / "run"
    network.save_pretrained(run, classes=["cat", "dog", "owl"], preprocessing={"image_size": 20, "crop": 0})
    results = {"data": "pets", "test": {"accuracy": 0.875, "num_images": 1200}}
    (run / "results.json").write_text(json.dumps(results))
    (run / "metrics.csv").write_text("not for the hub")
    push_to_hub(run, "me/shapes", licence="cc-by-4.0")
    assert sorted(stand_in.repositories["me/shapes"][-1]) == ["README.md", "config.json", "model.safetensors"]
    text = card(stand_in)
    from huggingface_hub import ModelCard

    data: Any = ModelCard(text).data
    assert (data.library_name, data.license) == ("matcaps", "cc-by-4.0")
    for part in (
        "cat, dog, owl",
        "12.50 % error on 1,200 test images of pets",
        "[B, 1, 20, 20]",
        'matcaps.from_pretrained("me/shapes")',
        f"{sum(weight.numel() for weight in network.parameters()):,} parameters",
    ):
        assert part in text
    assert "Decoder" not in text


def test_what_is_on_the_hub_becomes_what_was_sent_last(stand_in):
    """A decoder that read other poses goes; a card that we made is made anew, one that somebody wrote stays."""
    network = make_network()
    push_to_hub(network, "me/shapes", decoder=decoder_of(3))
    assert "**Decoder.**" in card(stand_in)
    push_to_hub(network, "me/shapes", classes=["a", "b", "c"])
    assert sorted(stand_in.repositories["me/shapes"][-1]) == ["README.md", "config.json", "model.safetensors"]
    assert "**Decoder.**" not in card(stand_in)
    files = dict(stand_in.repositories["me/shapes"][-1])
    assert _MADE.encode() in files["README.md"]
    stand_in.repositories["me/shapes"].append(files | {"README.md": b"# Mine\n", "notes.txt": b"mine"})
    push_to_hub(make_network(iterations=2), "me/shapes")
    assert card(stand_in) == "# Mine\n"
    assert "notes.txt" in stand_in.repositories["me/shapes"][-1], "what is not ours stays"
    assert matcaps.from_pretrained("me/shapes").config.iterations == 2


def test_a_folders_own_card_is_sent(stand_in, tmp_path):
    make_network().save_pretrained(tmp_path / "net")
    save_weights(decoder_of(3), tmp_path / "net" / "decoder.safetensors")
    (tmp_path / "net" / "README.md").write_text("# Of the folder\n")
    push_to_hub(tmp_path / "net", "me/shapes")
    assert card(stand_in) == "# Of the folder\n"
    assert sorted(stand_in.repositories["me/shapes"][-1]) == FILES


def test_what_does_not_fit_is_refused_before_anything_is_made(stand_in, tmp_path):
    network = make_network()
    with pytest.raises(ValueError, match="decoder must be one for 3 classes, as the network has; got one for 4"):
        push_to_hub(network, "me/shapes", decoder=decoder_of(4))
    with pytest.raises(TypeError, match="model must be one of"):
        push_to_hub(torch.nn.Linear(1, 1), "me/shapes")
    with pytest.raises(FileNotFoundError, match="no folder"):
        push_to_hub(tmp_path / "nowhere", "me/shapes")
    network.save_pretrained(tmp_path / "net")
    with pytest.raises(TypeError, match="a folder has its own decoder and metadata; got decoder, classes too"):
        push_to_hub(tmp_path / "net", "me/shapes", decoder=decoder_of(3), classes=["a", "b", "c"])
    (tmp_path / "net" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="not a safetensors file"):
        push_to_hub(tmp_path / "net", "me/shapes")
    with pytest.raises(ValueError, match="Repo id must"):
        push_to_hub(network, "me/no/such")
    assert not stand_in.repositories


def test_a_refusal_of_the_hub_is_one_line(stand_in):
    stand_in.refuse = True
    with pytest.raises(
        OSError, match=r"me/shapes could not be sent to the hub: You don't have the rights.*hf auth login"
    ):
        push_to_hub(make_network(), "me/shapes")


def test_a_hub_that_cannot_be_reached_is_one_line(stand_in, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"me/shapes could not be sent to the hub: .*refused"):
        push_to_hub(make_network(), "me/shapes")


OFFLINE = """
import sys, torch, matcaps
from matcaps.inference import open_saved
from matcaps.models.sources import resolve_folder
network = matcaps.from_pretrained("me/shapes")
torch.save(network(torch.load(sys.argv[1])).poses.detach(), sys.argv[2])
assert open_saved("me/shapes").classes == ("a", "b", "c")
assert (resolve_folder("me/shapes") / "decoder.safetensors").is_file()
try:
    matcaps.from_pretrained("me/others")
except FileNotFoundError as error:
    assert "me/others" in str(error)
else:
    raise AssertionError("there is no such network")
try:
    network.push_to_hub("me/shapes")
except OSError as error:
    assert "could not be sent" in str(error) and "\\n" not in str(error), str(error)
else:
    raise AssertionError("it is offline")
"""


def test_a_network_that_was_fetched_once_loads_offline(stand_in, tmp_path):
    """In a process that has the cache alone: HF_HUB_OFFLINE=1, and no hub that it could reach."""
    network = make_network()
    preparation = {"name": "mnist"} | vars(matcaps.data.TransformSettings().resolve("mnist")) | {"image_size": 20}
    del preparation["name"]
    network.push_to_hub("me/shapes", decoder=decoder_of(3), classes=["a", "b", "c"], preprocessing=preparation)
    matcaps.from_pretrained("me/shapes")
    images = torch.rand(2, 1, 20, 20)
    torch.save(images, tmp_path / "images.pt")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": str(Path(matcaps.__file__).parents[1]),
    }
    command = [sys.executable, "-c", OFFLINE, tmp_path / "images.pt", tmp_path / "poses.pt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "poses.pt"), network(images).poses.detach())
