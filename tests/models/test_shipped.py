"""The weights that come with matcaps."""

import json
import os
from pathlib import Path

import pytest
import torch

import matcaps
from matcaps.models import pretrained
from matcaps.training.inference import evaluate_saved

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
    assert len(pretrained.read_config(name)["classes"]) == config.num_classes


@pytest.mark.parametrize("name", matcaps.list_pretrained())
def test_has_a_card_and_is_small(name):
    folder = pretrained.resolve_folder(name)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("**Input.**", "**Figure.**", "**Data.**", "**Training.**", "**Limits.**", "**Licence.**"):
        assert part in card, part
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000


def test_a_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = matcaps.create_model("paper-small", stem_channels=2, primary_capsules=1, conv_capsules1=1, conv_capsules2=1)
    small.save_pretrained("paper-small-smallnorb")
    assert matcaps.from_pretrained("paper-small-smallnorb").config.stem_channels == 2


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(FileNotFoundError, match="come with matcaps \\(paper-small-smallnorb"):
        matcaps.from_pretrained("paper-small-smallnorbs")


def test_the_figure_on_the_card_is_the_record_s():
    record = json.loads((ROOT / "docs/records/smallnorb-100-epochs/results.json").read_text(encoding="utf-8"))
    card = (pretrained.resolve_folder("paper-small-smallnorb") / "README.md").read_text(encoding="utf-8")
    assert f"{record['test']['error_percent']:.2f} % error" in card


@pytest.mark.filterwarnings("ignore:.*checksum differs")  # the development copy of smallNORB is a JPEG copy
def test_the_figure_on_real_images():
    root = os.environ.get("MATCAPS_TEST_DATA")
    if not root or not (Path(root) / "smallnorb").is_dir():
        pytest.skip("MATCAPS_TEST_DATA is not set, or has no smallnorb: no real smallNORB to test with")
    found = evaluate_saved("paper-small-smallnorb", data="smallnorb", root=root)
    assert found.num_images == 24_300
    assert found.error_percent == pytest.approx(2.51, abs=0.02)
