import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import matcaps
from matcaps.models import BaselineCNN, EMCapsNet, create_model
from matcaps.models.sources import CONFIG_NAME, DECODER_NAME, WEIGHTS_NAME, read_config
from matcaps.routing import available_implementations
from tests.support.presets import TINY, make


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)  # some draws of the weights leave calibration something to warn of
    make().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("preset", list(TINY))
def test_round_trip_is_bit_for_bit(preset, tmp_path):
    network, images = make(preset), torch.rand(3, 1, 28, 28)
    classes = [f"class {label}" for label in range(network.config.num_classes)]
    network.save_pretrained(tmp_path / "new" / "folder", classes=classes, note="größe")
    loaded = [
        matcaps.from_pretrained(tmp_path / "new" / "folder"),
        type(network).from_pretrained(str(tmp_path / "new" / "folder")),
    ]
    network.eval()
    for other in loaded:
        assert type(other) is type(network)
        assert not other.training
        assert other.config == network.config
        assert list(other.state_dict()) == list(network.state_dict())
        for name, value in network.state_dict().items():
            assert torch.equal(other.state_dict()[name], value), name
        scores, others = network(images), other(images)
        assert all(torch.equal(one, two) for one, two in zip(scores, others, strict=True))
    description = read_config(tmp_path / "new" / "folder")
    assert (description["classes"], description["note"]) == (classes, "größe")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]


def test_a_saved_network_is_loaded_with_the_implementation_asked_for(saved):
    layers = ("conv_capsules1", "conv_capsules2", "class_capsules")
    for found in (
        matcaps.from_pretrained(saved, implementation="reference"),
        EMCapsNet.from_pretrained(saved, implementation="reference"),
        make("quickstart", implementation="reference"),
    ):
        assert found.config.implementation == "reference"
        assert [found.get_submodule(name).routing.implementation for name in layers] == 3 * ["reference"]
    assert matcaps.from_pretrained(saved).config.implementation == "auto"
    with pytest.raises(ValueError, match=r"implementation must be one of \('auto', .*; got 'opencl'"):
        matcaps.from_pretrained(saved, implementation="opencl")
    make("baseline-cnn").save_pretrained(saved)
    with pytest.raises(ValueError, match="got a model of class BaselineCNN, which has no routing: leave it out"):
        matcaps.from_pretrained(saved, implementation="reference")


def test_a_config_from_before_there_was_a_choice_loads(saved):
    description = json.loads((saved / CONFIG_NAME).read_text())
    assert description["model"].pop("implementation") == "auto"
    (saved / CONFIG_NAME).write_text(json.dumps(description))
    assert matcaps.from_pretrained(saved).config.implementation == "auto"


def test_the_way_to_second_order_gradients_that_a_refusal_names_can_be_gone(saved):
    """A gradient penalty on a network, by what the message says."""

    def penalty(network, images):
        (grad,) = torch.autograd.grad(network(images).activations.sum(), images, create_graph=True)
        grad.square().sum().backward()

    images = torch.rand(1, 1, 28, 28, requires_grad=True)
    if "native" in available_implementations():
        with pytest.raises(NotImplementedError, match=r"implementation='reference', an argument of .*from_pretrained"):
            penalty(matcaps.from_pretrained(saved), images)
    network = matcaps.from_pretrained(saved, implementation="reference")
    penalty(network, images)
    assert network.conv_capsules1.weight.grad.abs().max() > 0


@pytest.mark.skipif(os.name != "posix", reason="no permissions of this kind")
def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        for _ in range(2):
            make().save_pretrained(tmp_path)
            assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    finally:
        os.umask(before)


def test_saving_again_replaces(saved):
    other = make("baseline-cnn")
    other.save_pretrained(saved)
    assert isinstance(matcaps.from_pretrained(saved), BaselineCNN)


def test_an_earlier_models_decoder_goes(saved):
    (saved / DECODER_NAME).write_bytes(b"that of the earlier model's poses")
    make().save_pretrained(saved)
    assert sorted(path.name for path in saved.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]


def test_a_compiled_model_is_saved_as_what_it_was(saved):
    network = make()
    matcaps.save_pretrained(torch.compile(network), saved)  # type: ignore[arg-type]
    loaded = matcaps.from_pretrained(saved)
    assert isinstance(loaded, EMCapsNet)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_what_could_not_be_loaded_replaces_nothing(saved):
    class Mine(EMCapsNet):
        pass

    before = (saved / CONFIG_NAME).read_bytes(), (saved / WEIGHTS_NAME).read_bytes()
    with pytest.raises(TypeError, match="got Mine: save a subclass"):
        Mine(make().config).save_pretrained(saved)  # type: ignore[arg-type]
    assert before == ((saved / CONFIG_NAME).read_bytes(), (saved / WEIGHTS_NAME).read_bytes())


def test_wrong_class(saved):
    with pytest.raises(ValueError, match="holds a model of class EMCapsNet, not BaselineCNN: load it with"):
        BaselineCNN.from_pretrained(saved)


def test_only_our_models_are_saved(tmp_path):
    with pytest.raises(TypeError, match=r"model must be one of \['EMCapsNet', 'BaselineCNN'\]; got Linear"):
        matcaps.save_pretrained(nn.Linear(1, 1), tmp_path / "x")
    with pytest.raises(TypeError):
        make().save_pretrained(tmp_path / "x", note=object())
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("source", ["nowhere", "/no/where", "./no", "~/no", "a/b/c", Path("a/b")])
def test_no_folder(source):
    with pytest.raises(FileNotFoundError, match="no saved model at"):
        matcaps.from_pretrained(source)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, CONFIG_NAME])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}: is it a folder of a saved model"):
        matcaps.from_pretrained(saved)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(saved, keep):
    content = (saved / WEIGHTS_NAME).read_bytes()
    (saved / WEIGHTS_NAME).write_bytes(content[:keep])
    with pytest.raises(ValueError, match="is not a safetensors file, or is incomplete"):
        matcaps.from_pretrained(saved)


def test_garbage_weights(saved):
    (saved / WEIGHTS_NAME).write_bytes(os.urandom(10_000))
    with pytest.raises(ValueError, match="is not a safetensors file, or is incomplete"):
        matcaps.from_pretrained(saved)


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_pickle_in_disguise_is_never_executed(saved, tmp_path, write):
    mark = tmp_path / "executed"
    bomb = Bomb(mark)
    if write == "pickle":
        (saved / WEIGHTS_NAME).write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"stem.weight": bomb}, saved / WEIGHTS_NAME)
    with pytest.raises(ValueError, match="is not a safetensors file, or is incomplete"):
        matcaps.from_pretrained(saved)
    assert not mark.exists()
    pickle.loads(pickle.dumps(bomb))
    assert mark.exists()  # the bomb was live


def test_weights_of_another_shape(saved, tmp_path):
    config = json.loads((saved / CONFIG_NAME).read_text())
    config["model"]["conv_capsules1"] = 5
    (saved / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"the weights in .* do not fit the model in {CONFIG_NAME}"):
        matcaps.from_pretrained(saved)


def test_config_of_the_other_architecture(saved):
    other = saved / "other"
    make("baseline-cnn").save_pretrained(other)
    (saved / CONFIG_NAME).write_bytes((other / CONFIG_NAME).read_bytes())
    with pytest.raises(ValueError, match="do not fit the model"):
        matcaps.from_pretrained(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"a":' + "9" * 5000 + "}", r"config\.json is not JSON: Exceeds the limit"),
        (f'{{"a": [1{"0" * 400}]}}', r"config\.json must have whole numbers of at most 64 bits; got one of 1,329"),
        ("[" * 100_000, r"config\.json must nest at most 100 deep"),
        ('{"a":' + "[" * 100 + "]" * 100 + "}", r"config\.json must nest at most 100 deep"),
        ("\xff\xfe", "is not JSON|must be an object"),
        ("[]", "must hold an object; got list"),
        ("{}", 'must be an object whose "architecture" is one of'),
        ('{"architecture": "ResNet", "model": {}}', 'must be an object whose "architecture" is one of'),
        ('{"architecture": ["EMCapsNet"], "model": {}}', 'must be an object whose "architecture" is one of'),
        ('{"architecture": "EMCapsNet"}', "the model described in .* cannot be built"),
        ('{"architecture": "EMCapsNet", "model": 3}', "the model described in .* cannot be built"),
        ('{"architecture": "EMCapsNet", "model": {"dropout": 0.5}}', "cannot be built: .*dropout"),
        ('{"architecture": "EMCapsNet", "model": {"in_channels": -1}}', "cannot be built: in_channels must be"),
        ('{"architecture": "EMCapsNet", "model": {"coordinate_components": 3}}', "cannot be built"),
        (
            '{"architecture": "EMCapsNet", "model": {"coordinate_components": ["a", "b"]}}',
            "cannot be built: coordinate_components must be whole numbers",
        ),
        (
            '{"architecture": "EMCapsNet", "model": {"coordinate_components": [3, 16]}}',
            "cannot be built: coordinate_components must be two different components from 0 to 15",
        ),
        (
            '{"architecture": "EMCapsNet", "model": {"coordinate_scale": "5"}}',
            "cannot be built: coordinate_scale must be a finite number; got '5'",
        ),
    ],
)
def test_malformed_config(saved, content, message):
    (saved / CONFIG_NAME).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        matcaps.from_pretrained(saved)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make().save_pretrained(tmp_path / "file" / "model")


def test_hub_that_cannot_be_reached(monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(FileNotFoundError, match=r"no folder somebody/model, and the hub's repository .*no network"):
        matcaps.from_pretrained("somebody/model")


def test_hub_id(monkeypatch, saved):
    import huggingface_hub

    asked = []

    def give(repository, **options):
        asked.append((repository, options["allow_patterns"]))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    assert isinstance(EMCapsNet.from_pretrained("somebody/model"), EMCapsNet)
    assert asked
    assert all(entry == ("somebody/model", [WEIGHTS_NAME, CONFIG_NAME, DECODER_NAME]) for entry in asked)


def test_a_mistyped_path_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match="no saved model at runs/typo"):
        matcaps.from_pretrained("runs/typo")


def test_metadata_cannot_hide_the_architecture(tmp_path):
    network = create_model("quickstart", stem_channels=2, primary_capsules=1, conv_capsules1=1, conv_capsules2=1)
    with pytest.raises(TypeError, match="must not be called 'architecture'"):
        network.save_pretrained(tmp_path / "model", architecture="other")
    assert not (tmp_path / "model").exists()


def test_a_missing_hub_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r'pip install "matcaps\[hub\]"'):
        matcaps.from_pretrained("somebody/capsules")
