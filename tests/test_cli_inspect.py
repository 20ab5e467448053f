"""``matcaps inspect``: what it writes and says on good and on bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcaps.inspect.views import VIEWS
from matcaps.training import train
from tests.support.runs import TINY_CNN, tiny_settings

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tiny_settings(epochs=1), tmp_path_factory.mktemp("run")).folder


@pytest.fixture
def own(run, tmp_path) -> Path:
    """A copy of the run to write into."""
    return Path(shutil.copytree(run, tmp_path / "own"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def files(*figures: str, ending: str) -> set[str]:
    return {f"{figure}.{kind}" for figure in figures for kind in ("png", "svg", ending)}


def test_everything_about_a_run(call, own):
    config = json.loads((own / "config.json").read_text())
    config["preprocessing"]["num_test_crops"] = 5  # of which an inspection takes the first
    (own / "config.json").write_text(json.dumps(config))
    status, printed, complaint = call(
        "inspect", own, "--index=3", "--num_images=60", "--train_decoder", "--decoder_epochs=1"
    )
    assert (status, complaint) == (0, "")
    assert "decoder.safetensors" in names(own)
    assert names(own / "inspect") == {
        *files("votes", "true_and_wrong", "assignments", "activations", "em_steps", ending="npz"),
        *files("true_and_wrong_set", "poses", "viewpoint", ending="npz"),
        *files("agreement", "health", ending="json"),
        "inspect.json",
    }
    for text in (
        "agreement: Routing ",
        "vote distances: Votes for the true class ",
        "mean distance on one image by iteration, in pose units: weighted by assignment",
        "vote distances over the set: Votes for the true class ",
        "mean distance on 60 images by iteration, in pose units: weighted by assignment",
        "dead types: ",
        "saturated types: ",
        "decoder trained: in ",
        "decoder: explains ",
        "R²",
    ):
        assert text in printed
    record = json.loads((own / "inspect" / "inspect.json").read_text())
    assert record["image"] == "embedded, test image 3"
    assert len(record["activations"]) == 10
    assert record["findings"]["dead types"] in printed
    agreement = json.loads((own / "inspect" / "agreement.json").read_text())
    assert agreement["num_images"] == 60
    assert len(agreement["share_true"]) == len(agreement["log_deviation_gap"]) == 3
    with np.load(own / "inspect" / "true_and_wrong_set.npz", allow_pickle=False) as arrays:
        assert arrays["counts"].shape[:3] == (2, 2, 3)
        assert arrays["labels"].shape == (60, 2)
    with np.load(own / "inspect" / "votes.npz", allow_pickle=False) as arrays:
        assert arrays["histogram.counts"].shape == (3, 10, 30)
    with Image.open(own / "inspect" / "poses.png") as picture:
        assert min(picture.size) > 500


def test_what_is_there_is_not_replaced(call, refuse, own):
    (own / "decoder.safetensors").write_text("mine")
    refuse("decoder.safetensors already exists", "inspect", own, "--train_decoder")
    refuse("decoder.safetensors is not a safetensors file, or is incomplete", "inspect", own)
    assert not (own / "inspect").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_picture_alone(call, own, tmp_path):
    Image.effect_noise((40, 40), 80).save(tmp_path / "noise.png")
    status, printed, _ = call(
        "inspect", own, "--image", tmp_path / "noise.png", "--num_images=0", "--output=found", "--root=nowhere"
    )
    assert status == 0
    assert names(Path("found")) == {
        *files("votes", "true_and_wrong", "assignments", "activations", "em_steps", ending="npz"),
        "inspect.json",
    }
    assert "poses: left out, because there is no decoder" in printed
    assert "add --train_decoder" in printed
    assert json.loads(Path("found/inspect.json").read_text())["true_class"] is None


@pytest.mark.usefixtures("undrawn")
def test_too_few_images_for_the_viewpoint_cost_nothing_else(call, own):
    status, printed, complaint = call("inspect", own, "--num_images=20")
    assert (status, complaint) == (0, "")
    assert "viewpoint: left out: num_images must leave each class at least 4" in printed
    record = json.loads((own / "inspect" / "inspect.json").read_text())
    assert record["figures"] == [name for name in VIEWS if name not in ("poses", "viewpoint")]


def test_bad_inspections(refuse, run, tmp_path):
    refuse("no saved model at nowhere", "inspect", "nowhere")
    refuse("index must be from 0 to 999 in the test part; got 1000", "inspect", run, "--index=1000")
    refuse("index must be from 0 to 999 in the test part; got -1", "inspect", run, "--index=-1")
    refuse("none.png: No such file or directory", "inspect", run, "--image=none.png")
    refuse("num_images must be at least 0; got -1", "inspect", run, "--num_images=-1")
    refuse("batch_size must be at least 1; got 0", "inspect", run, "--batch_size=0")
    refuse("decoder_epochs must be at least 1; got 0", "inspect", run, "--decoder_epochs=0")
    refuse("part must be one of train, validation, test", "inspect", run, "--part=tset")
    refuse("it has no 'familiar_test'", "inspect", run, "--part=familiar_test")
    refuse("mnist is not complete in", "inspect", run, "--data=mnist")
    refuse("cnn must be a BaselineCNN's run", "inspect", run, "--cnn", run)
    refuse("--nonsense", "inspect", run, "--nonsense=3")
    refuse("required", "inspect")
    assert not (run / "inspect").exists()


def test_a_cnn_has_no_capsules(refuse, run, tmp_path):
    cnn = train(tiny_settings(model=TINY_CNN, epochs=1), tmp_path / "cnn").folder
    refuse("has no capsules to inspect: it is a BaselineCNN", "inspect", cnn)
    refuse("cnn compares viewpoints, and needs images with known viewpoints", "inspect", run, "--cnn", cnn)
