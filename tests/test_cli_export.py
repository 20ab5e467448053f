"""``matcaps export``: what it writes, what it says, and what it refuses in one line."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from matcaps import cli
from matcaps.data import Transform, TransformSettings
from matcaps.inference.exporting import preparation
from matcaps.models import create_model, save_pretrained
from matcaps.models.export import onnx_file

FIRST = ("opening the network", "tracing the network")
COMPARING = "comparing it with the network"
CLASSES = ("animal", "human", "plane", "truck", "car")


def transform(normalise: str = "image") -> Transform:
    return Transform(TransformSettings(crop=32, normalise=normalise).resolve("smallnorb"), 48)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    network = create_model("baseline-cnn", channels1=2, channels2=2, hidden_units=4)
    save_pretrained(network, tmp_path / "cnn", classes=CLASSES, preprocessing=transform().to_dict())
    return tmp_path / "cnn"


def test_it_writes_a_file_that_says_how_images_are_prepared(saved: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["export", str(saved), "--format", "torch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "input images: batch×2×32×32, float32"
    assert lines[1].strip().endswith("cut out the middle 32×32 pixels")
    assert lines[-1].startswith("cnn.pt2: a program of torch.export, 0.")
    extra = {"matcaps.json": ""}
    torch.export.load("cnn.pt2", extra_files=extra)
    description = json.loads(extra["matcaps.json"])
    assert description["classes"] == list(CLASSES)
    assert description["preparation"]["image_size"] == 48
    assert description["scores"] == "scores"


def test_a_file_that_is_there_is_replaced_only_where_one_says_so(saved: Path, capsys: pytest.CaptureFixture[str]):
    Path("cnn.pt2").write_text("old")
    assert cli.main(["export", str(saved), "--output", "cnn.pt2"]) == 1
    assert Path("cnn.pt2").read_text() == "old"
    error = capsys.readouterr().err
    assert error == "matcaps export: cnn.pt2 is there already: give another name, or overwrite to replace it\n"
    assert cli.main(["export", str(saved), "--output", "cnn.pt2", "--overwrite", "--json", "--one_image"]) == 0
    assert json.loads(capsys.readouterr().out)["input"]["shape"] == [1, 2, 32, 32]
    assert Path("cnn.pt2").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "a.txt"], "must end in .onnx; got 'a.txt'"),
        (["--format", "torch", "--precision", "int8"], "precision int8 is of ONNX files"),
        (["--trace"], "trace is of capsule networks"),
        (["--image_size", "31"], "images must have shape [B, 2, 32, 32]"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str],
    message: str,
    saved: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(onnx_file, "require_packages", lambda _precision: None)
    assert cli.main(["export", str(saved), *arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("matcaps export: ")
    assert message in line


def test_missing_packages_are_named_in_one_line(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(onnx_file, "is_there", lambda _package: False)
    assert cli.main(["export", str(saved)]) == 1
    assert capsys.readouterr().err == 'matcaps export: export to ONNX needs onnx: pip install "matcaps[export]"\n'


@pytest.mark.parametrize("normalise", ["scale", "image", "crop"])
def test_the_words_say_what_the_transform_does(normalise: str):
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 48, 48)).astype(np.uint8)
    grey, middle = images.astype(np.float64), (slice(None), slice(None), slice(8, 40), slice(8, 40))
    if normalise == "scale":
        expected = (grey / 255)[middle]
    else:
        whole = grey if normalise == "image" else grey[middle]
        axes = (1, 2, 3)
        expected = ((grey - whole.mean(axes, keepdims=True)) / whole.std(axes, keepdims=True))[middle]
    found = transform(normalise).evaluate(torch.from_numpy(images))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    described = preparation(transform(normalise))
    assert described["normalise"] == normalise
    steps = described["words"].split("; ")
    names = [next(name for name in ("grey levels from 0", "cut out", "divide") if name in step) for step in steps]
    order = ["cut out", "divide"] if normalise == "crop" else ["divide", "cut out"]
    assert names == ["grey levels from 0", *order]
    assert ("over 48×48" in steps[1]) is (normalise == "image")
    assert ("over 32×32" in steps[-1]) is (normalise == "crop")


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        (["--format", "torch"], [*FIRST, "writing the program", COMPARING]),
        (
            ["--precision", "bfloat16"],
            [*FIRST, "translating it to ONNX", "rounding the weights to bfloat16", COMPARING],
        ),
    ],
)
def test_the_stages_that_are_announced_are_those_that_come(saved: Path, monkeypatch, options, stages):
    if "--precision" in options:
        pytest.importorskip("onnxscript")
    begun = []

    @contextmanager
    def heard(name: str, steps: int, done: int):
        begun.append((name, steps, done))
        yield lambda: None

    monkeypatch.setattr("matcaps.cli.export.work", heard)
    assert cli.main(["export", str(saved), *options]) == 0
    assert begun == [(name, len(stages), done) for done, name in enumerate(stages)]
