"""What stands on the page: well-formed, in words too, and right where it shows numbers."""

import base64
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from matcaps._numbers import short_number
from matcaps.demo import charts, panels
from matcaps.demo.session import attack, read
from matcaps.inspect.style import COLOURS


@pytest.fixture(scope="module")
def reading(demo):
    assert demo.examples is not None
    return read(demo, demo.examples.dataset.images[5:6], "a <drawn> five", 5)


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def parse(text: str) -> ElementTree.Element:
    """The panel as XML, every picture of which is described."""
    root = ElementTree.fromstring("<div>" + re.sub(r"(<img [^>]*)>", r"\1/>", text) + "</div>")
    for image in root.iter("img"):
        assert image.get("alt")
        assert str(image.get("src")).startswith("data:image/png;base64,")
    for chart in root.iter("svg"):
        assert chart.get("aria-label")
        assert chart.get("role") == "img"
        for size in chart.iter("text"):
            assert float(str(size.get("font-size"))) >= 11
    return root


def test_bars_are_as_long_as_activations():
    root = parse(charts.draw_bars(["a", "b & c"], [0.25, 1.0], chosen=1, truth=0))
    first, second = root.iter("rect")
    assert float(second.get("width")) == pytest.approx(4 * float(first.get("width")), rel=0.01)
    assert (first.get("fill"), second.get("fill")) == (charts.OTHER, COLOURS[0])
    text = "".join(root.itertext())
    for part in ("true ▸ a", "b & c", "0.250", "1.000", "activation of the class capsule"):
        assert part in text


def test_every_panel_of_a_reading(demo, reading):
    text = "".join(parse(panels.show_reading(demo, reading, "Said.")).itertext())
    assert "The network sees:" in text
    assert "It is 5." in text
    assert "28×28 pixels. Said." in text
    for row in (1, demo.iterations):
        root = parse(panels.show_votes(demo, reading, row))
        assert len(list(root.iter("svg"))) == 10
        text = "".join(root.itertext())
        assert f"After iteration {row} of {demo.iterations}" in text
        assert "in pose units" in text
        assert f"mean {short_number(float(reading.votes.mean_distance[row - 1, 4]))}" in text
    root = parse(panels.show_pose(demo, reading, None))
    own, same = [pixels(str(image.get("src"))) for image in root.iter("img")][1:]
    assert np.array_equal(own, same)
    root = parse(panels.show_pose(demo, reading, reading.pose + 1))
    own, moved = [pixels(str(image.get("src"))) for image in root.iter("img")][1:]
    assert not np.array_equal(own, moved)
    assert "4.00 pose units away" in "".join(root.itertext())


def test_sliders_are_told_ranges_and_values(demo, reading):
    told = json.loads(panels.pose_values(demo, reading))
    assert [len(told[name]) for name in ("low", "high", "values", "own")] == [16] * 4
    assert torch.allclose(panels.parse_pose(json.dumps(told)), reading.pose)
    assert panels.parse_pose("") is None
    large = f'{{"values": [1{"0" * 400}]}}'
    for bad in ("[", "[1]", '{"values": 3}', '{"values": ["a"]}', "null", "[" * 100_000, large):
        with pytest.raises(ValueError, match="pose must be a list of numbers"):
            panels.parse_pose(bad)
    assert panels.pose_values(demo, None) == panels.pose_values(replace(demo, decoder=None), reading) == ""


def test_the_attack_shows_change_and_verdicts(demo, reading):
    text = "".join(parse(panels.show_attack(demo, reading, attack(reading, 0))).itertext())
    assert "Nothing is changed yet" in text
    found = attack(reading, 0.25)
    root = parse(panels.show_attack(demo, reading, found))
    _, change, after = (pixels(str(image.get("src"))) for image in root.iter("img"))
    raised = found.change[0, 0] > 0.2
    assert raised.any()
    orange = [int(COLOURS[1][place : place + 2], 16) for place in (1, 3, 5)]
    assert np.abs(change[(found.change[0, 0] == 0.25).numpy()] - orange).max() <= 1
    assert np.array_equal(after, (found.image[0, 0] * 255).round().byte().numpy())
    text = "".join(root.itertext())
    assert "+0.25" in text
    assert "from black, 0, to white, 1" in text
    assert ("Fooled:" in text) == (found.winner != reading.winner)


def test_diverging_colours():
    shown = charts.diverging(torch.tensor([[-1.0, 0.0, 1.0]]), 1.0)
    assert [tuple(round(255 * float(value)) for value in colour) for colour in shown[0]] == [
        (0, 114, 178),
        (255, 255, 255),
        (213, 94, 0),
    ]


def test_a_sweep_has_gaps_where_there_is_no_image():
    values = torch.rand(18, 3)
    values[4] = float("nan")
    root = parse(charts.draw_sweep(["a", "b", "c"], values, at=2))
    paths = [str(path.get("d")) for path in root.iter("path")]
    assert all(path.count("M") == 2 for path in paths)
    assert len({path.get("stroke-dasharray") for path in root.iter("path")}) == 3
    assert "azimuth, degrees" in "".join(root.itertext())
    parse(charts.draw_sweep(["a"], torch.full((18, 1), float("nan")), at=0))


def test_empty_states_say_what_to_do(demo):
    assert "draw on the pad" in panels.show_reading(demo, None)
    for text in (
        panels.show_votes(demo, None, 1),
        panels.show_pose(demo, None, None),
        panels.show_attack(demo, None, None),
    ):
        assert "first image" in text
    bare = replace(demo, decoder=None, decoder_note="matcaps inspect RUN --train_decoder trains one.")
    assert "--train_decoder" in panels.show_pose(bare, None, None)
    assert "There are no test images" in panels.show_examples(None, 0)


def test_examples_are_buttons(demo):
    root = parse(panels.show_examples(demo.examples, 0))
    assert [button.get("data-index") for button in root.iter("button")] == [str(place) for place in range(20)]


def test_verdicts_in_words():
    assert panels.verdict("ab", torch.tensor([0.9, 0.2])) == "a (activation 0.90; next b, 0.20)"
    assert panels.verdict("ab", torch.tensor([0.1, 0.2])).startswith("not sure: b at most")


def test_what_people_send_cannot_break_the_page():
    assert "<script>" not in panels.note("<script>alert(1)</script>", "problem")
