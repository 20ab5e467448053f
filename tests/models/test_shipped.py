"""The weights that come with matcaps."""

import json
import os
from pathlib import Path

import pytest
import torch

import matcaps
from matcaps.demo import drawn_digits
from matcaps.inference.saved import evaluate_saved
from matcaps.models import sources
from matcaps.models.decoder import load_decoder
from matcaps.models.sources import DECODER_NAME

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", matcaps.list_pretrained())
def test_loads_ready_to_classify(name):
    network = matcaps.from_pretrained(name)
    assert not network.training
    config = network.config
    with torch.no_grad():
        classes = network(torch.randn(2, config.in_channels, 32, 32))
    assert classes.poses.shape == (2, config.num_classes, 4, 4)
    assert classes.activations.shape == (2, config.num_classes)
    assert len(sources.read_config(name)["classes"]) == config.num_classes


@pytest.mark.parametrize("name", matcaps.list_pretrained())
def test_has_a_card_and_is_small(name):
    folder = sources.resolve_folder(name)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("**Input.**", "**Figure.**", "**Data.**", "**Training.**", "**Limits.**", "**Licence.**"):
        assert part in card, part


def test_all_are_small_together():
    folders = [sources.resolve_folder(name) for name in matcaps.list_pretrained()]
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) < 2_000_000


def test_the_digits_have_a_decoder_that_draws():
    network = matcaps.from_pretrained("tutorial-mnist")
    path = sources.resolve_folder("tutorial-mnist") / DECODER_NAME
    decoder = load_decoder(path, 10, (1, 28, 28))
    digits = drawn_digits(2)
    images = digits.images / 255
    with torch.no_grad():
        classes = network(images)
        drawn = decoder(classes.poses, digits.labels)
    assert (classes.activations.argmax(1) == digits.labels).float().mean() > 0.6  # not MNIST's, but digits
    mean = images.mean(0)
    assert (drawn - images).square().sum() < (mean - images).square().sum()


def test_a_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = matcaps.create_model("paper-small", stem_channels=2, primary_capsules=1, conv_capsules1=1, conv_capsules2=1)
    small.save_pretrained("paper-small-smallnorb")
    assert matcaps.from_pretrained("paper-small-smallnorb").config.stem_channels == 2


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(FileNotFoundError, match="come with matcaps \\(paper-small-smallnorb, tutorial-mnist"):
        matcaps.from_pretrained("paper-small-smallnorbs")


RECORDS = {"paper-small-smallnorb": "smallnorb-100-epochs", "tutorial-mnist": "mnist/tutorial-6epochs-seed0"}


@pytest.mark.parametrize("name", matcaps.list_pretrained())
def test_the_figure_on_the_card_is_the_record_s(name):
    record = json.loads((ROOT / "docs/records" / RECORDS[name] / "results.json").read_text(encoding="utf-8"))
    card = (sources.resolve_folder(name) / "README.md").read_text(encoding="utf-8")
    assert f"{record['test']['error_percent']:.2f} % error" in card


@pytest.mark.filterwarnings("ignore:.*checksum differs")  # the development copy of smallNORB is a JPEG copy
@pytest.mark.parametrize(
    ("name", "data", "count", "error"),
    [("paper-small-smallnorb", "smallnorb", 24_300, 2.51), ("tutorial-mnist", "mnist", 10_000, 0.44)],
)
def test_the_figure_on_real_images(name, data, count, error):
    root = os.environ.get("MATCAPS_TEST_DATA")
    if not root or not (Path(root) / data).is_dir():
        pytest.skip(f"MATCAPS_TEST_DATA is not set, or has no {data}: no real images to test with")
    found = evaluate_saved(name, data=data, root=root)
    assert found.num_images == count
    assert found.error_percent == pytest.approx(error, abs=0.02)
