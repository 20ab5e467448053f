"""Class capsules with more iterations than the other layers, and one β_a for all classes, through the commands."""

import json

import pytest

from matcaps.models import EMCapsNet
from matcaps.training import load_run
from matcaps.training.record import read_metrics
from tests.support.runs import TINY, tiny_settings, write_config

pytestmark = pytest.mark.usefixtures("elsewhere")


CHANGES = ("--model.class_iterations=4", "--model.class_beta_activation=shared")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("default::UserWarning")
def test_a_network_is_trained_measured_inspected_and_reported(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_config(tiny_settings(epochs=1, model=TINY), tmp_path)
    status, _, complaint = call("train", config, *CHANGES, "--output=run", "--report=false")
    assert status == 0, complaint
    network, _ = load_run("run")
    assert isinstance(network, EMCapsNet)
    assert network.config.class_iterations == 4
    assert network.class_capsules.routing.beta_activation.shape == (1,)
    assert read_metrics(tmp_path / "run" / "metrics.csv")[-1]["agreement/share_true_4"]
    assert len(json.loads((tmp_path / "run" / "results.json").read_text())["agreement"]["share_true"]) == 4
    status, printed, _ = call("eval", "run", "--agreement")
    assert status == 0
    assert any(
        line.replace("│", " ").replace("┃", " ").split()[-4:] == ["1", "2", "3", "4"] for line in printed.splitlines()
    )
    status, printed, complaint = call("inspect", "run", "--num_images=40")
    assert (status, complaint) == (0, "")
    assert len(json.loads((tmp_path / "run" / "inspect" / "agreement.json").read_text())["changed"]) == 4
    status, _, complaint = call("report", "run")
    assert status == 0, complaint
    shorter = "--model.pretrained=run", "--model.class_iterations=2", "--output=tuned", "--report=false"
    status, _, complaint = call("train", config, *shorter)
    assert status == 0, complaint
    assert "warning: from run: the weights were trained with other settings (class_iterations 2 for 4)" in complaint
    tuned, _ = load_run("tuned")
    assert isinstance(tuned, EMCapsNet)
    assert [len(layer.routing.inverse_temperature) for layer in (tuned.conv_capsules2, tuned.class_capsules)] == [3, 2]
    assert tuned.class_capsules.routing.shared_beta_activation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--model.class_iterations=0", "class_iterations must be a whole number of at least 1; got 0"),
        ("--model.class_beta_activation=one", "class_beta_activation"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(change, message, refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(message, "train", write_config(tiny_settings(epochs=1, model=TINY), tmp_path), change, "--output=run")
