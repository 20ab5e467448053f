"""The command line of fine-tuning."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from matcaps import cli
from matcaps.models import create_model
from matcaps.training.record import read_json, read_run_settings

SIZES = {"stem_channels": 4, "stem_stride": 4, "primary_capsules": 2, "conv_capsules1": 2, "conv_capsules2": 2}
SHORT = ["--data.max_train_images=20", "--data.max_test_images=20", "--epochs=1", "--accelerator=cpu", "--report=false"]


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """Weights of another task, and an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = create_model("quickstart", num_classes=4, in_channels=2, **SIZES)
    network.calibrate(torch.rand(8, 2, 28, 28))
    network.save_pretrained("source")
    return tmp_path / "source"


@pytest.mark.filterwarnings("default::UserWarning")
def test_train_from_weights_with_frozen_parts(source, capsys):
    options = ["--model.pretrained", "source", "--model.freeze", "stem,primary", *SHORT]
    assert cli.main(["train", "quickstart", *options, "--output", "run"]) == 0
    said = capsys.readouterr()
    assert "training source on embedded" in said.err
    assert "class_capsules starts anew (10 classes, the weights have 4); the first convolution's 2 channels" in said.err
    assert read_run_settings(Path("run")).model.freeze == ("stem", "primary")
    assert read_json(Path("run/results.json"))["frozen"] == ["stem", "primary"]
    old, new = load_file(source / "model.safetensors"), load_file("run/model.safetensors")
    assert torch.equal(new["primary_capsules.pose.weight"], old["primary_capsules.pose.weight"])
    assert torch.equal(new["stem.weight"], old["stem.weight"].sum(dim=1, keepdim=True))
    # the run's own file gives it again
    assert cli.main(["train", "--config", "run/settings.yaml", "--output", "again", "--report=false"]) == 0
    assert Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.pretrained", "nowhere"], "no saved model at nowhere: give a folder"),
        (
            ["--model.pretrained", "source", "--model.freeze", "head"],
            "must be names from stem, primary, conv1, conv2, class",
        ),
        (["--model.pretrained", "source", "--model.stem_channels", "8"], "stem_channels must be 4, as in the pretrai"),
        (["--model.freeze", "stem"], "freeze must be left out without pretrained weights"),
        (["--model.preset", "tutorial", "--model.pretrained", "source"], "stem_channels must be 4, .*preset tutorial"),
        (["--model.preset", "baseline-cnn", "--model.pretrained", "source"], "weights are of class EMCapsNet"),
    ],
)
def test_mistakes_end_in_one_line(source, options, message, capsys):
    assert cli.main(["train", "quickstart", *SHORT, *options, "--output", "run"]) in (1, 2)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("matcaps train: ")
    assert re.search(message, said), said
    assert not Path("run").exists()
