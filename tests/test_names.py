"""Names of classes, files and folders are shown as they are, everywhere, or refused before anything is trained."""

import json
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcaps import cli
from matcaps.data.names import check_class_names, printable, short_name
from matcaps.inspect.confusion import ConfusionDisplay
from matcaps.inspect.curves import CurvesDisplay
from matcaps.inspect.style import save_figure, save_svg, to_pixels
from matcaps.training.record import read_json, write_json
from tests.support.runs import TINY

ODD = (
    "tumour [benign]",
    "[bold]x[/bold]",
    ":smile:",
    "$1$ and $\\frac$",
    "<script>alert(1)</script>",
    "a|b",
    "_x",
    "שלום",
    "n" * 200,
)
"""Names that markup, mathematics, HTML or a table would take for something else."""

OPTIONS = [
    *(f"--model.{name}={value}" for name, value in TINY.changes().items()),
    "--epochs=1",
    "--accelerator=cpu",
    "--data.image_size=28",
]


def make_folder(root: Path, names: list[str]) -> Path:
    random = np.random.default_rng(0)
    for name in names:
        place = f"{root}/{name.replace('/', '⁄')}"
        os.makedirs(place)
        for number in range(30):
            Image.fromarray(random.integers(0, 256, (28, 28), dtype=np.uint8)).save(f"{place}/{number}.png")
    return root


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return cli.main([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


def test_odd_names_are_shown_as_they_are_by_every_command(call, tmp_path):
    folder = make_folder(tmp_path / "pics", [name.replace("/", "⁄") for name in ODD])
    names = sorted(name.replace("/", "⁄") for name in ODD)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        status, _, errors = call(
            "train", "quickstart", *OPTIONS, "--data.name=folder", f"--data.folder={folder}", "--output=run"
        )
        assert status == 0, errors
        assert read_json(Path("run/results.json"))["test"]["classes"] == names
        page = Path("run/report.html").read_text(encoding="utf-8")
        assert "<script" not in page
        assert "tumour [benign]" in page
        status, printed, _ = call("eval", "run")
        shown = re.sub(r"[\s│]", "", printed)  # a long name goes on in the next line of its cell
        for name in names:
            assert name.replace(" ", "")[:60] in shown or name[:20] in shown
        picture = next(folder.rglob("*.png"))
        status, printed, _ = call("predict", "run", picture)
        assert any(name in printed for name in names)
        assert set(json.loads(call("predict", "run", picture, "--json")[1])[str(picture)]) == set(names)
        status, _, errors = call("inspect", "run", "--num_images=0")
        assert status == 0, errors


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\nb", "has the control character U+000A"),
        ("a\x1b[31mb", "has the control character U+001B"),
        ("cat\u202egnp", "has the control character U+202E"),
        (" ", "is empty"),
    ],
)
def test_a_name_that_cannot_be_shown_is_refused_before_the_training(name, why, call, tmp_path):
    folder = make_folder(tmp_path / "pics", ["tea", name])
    status, printed, errors = call(
        "train", "quickstart", *OPTIONS, "--data.name=folder", f"--data.folder={folder}", "--output=run"
    )
    assert (status, printed) == (1, "")
    lines = [line for line in errors.splitlines() if not line.startswith("matcaps 0.")]
    assert len(lines) == 1, errors
    assert f"{why}: rename it" in lines[0]
    assert not Path("run").exists()


def test_a_folder_whose_name_is_no_utf_8_is_trained_on_under_an_escaped_name(call, tmp_path):
    folder = make_folder(tmp_path / "pics", ["tea", "caf\udce9"])
    status, _, errors = call(
        "train", "quickstart", *OPTIONS, "--data.name=folder", f"--data.folder={folder}", "--output=run"
    )
    assert status == 0, errors
    assert read_json(Path("run/results.json"))["test"]["classes"] == ["caf\\xe9", "tea"]
    assert read_json(Path("run/config.json"))["classes"] == ["caf\\xe9", "tea"]
    assert "caf\\xe9" in call("eval", "run")[1]


def test_names_that_look_the_same_are_refused():
    with pytest.raises(ValueError, match="two classes look the same, 'e\u0301'"):
        check_class_names(["\u00e9", "e\u0301"])
    with pytest.raises(ValueError, match="is no UTF-8: rename it"):
        check_class_names(["tea", "caf\udce9"])
    check_class_names(["cat", "Cat", "cat ", "می‌خواهم", "👩‍🚀"])


def test_a_path_that_is_no_utf_8_is_kept_in_records(tmp_path):
    write_json(tmp_path / "record.json", {"origin": "folder /caf\udce9", "word": "Zürich"})
    assert read_json(tmp_path / "record.json") == {"origin": "folder /caf\udce9", "word": "Zürich"}
    assert "Zürich" in (tmp_path / "record.json").read_text(encoding="utf-8")


def test_no_text_commands_a_terminal():
    assert printable("a\x1b[2Jb\x07 \udce9\tc\n") == "a\\x1b[2Jb\\x07 \\udce9\tc\n"
    assert short_name("0123456789" * 3, 9) == "0123…6789"
    assert short_name("a\nb") == "a\\nb"


def test_figures_draw_dollars_and_underscores_as_they_stand(tmp_path):
    figure = ConfusionDisplay([[1, 0], [0, 1]], ["$x$", "\\$ $\\frac$ 5$"]).plot()
    save_figure(figure, tmp_path / "confusion")
    to_pixels(figure)
    svg = (tmp_path / "confusion.svg").read_text(encoding="utf-8")
    assert "<!-- $x$ -->" in svg
    assert "<!-- \\$ $\\frac$ 5$ -->" in svg
    rows = [{"epoch": "1", "train/loss": "1"}]
    curves = CurvesDisplay({"_one": rows, "$a$ $b$": rows}).plot()
    save_svg(curves, tmp_path / "curves.svg")
    svg = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert "_one, train" in svg
    assert "$a$ $b$, train" in svg


def test_letters_that_the_font_lacks_are_one_warning(tmp_path):
    with pytest.warns(UserWarning, match="the figures' font has no letter") as warned:
        save_svg(ConfusionDisplay([[1, 0], [0, 1]], ["猫犬", "鳥"]).plot(), tmp_path / "figure.svg")
    assert len(warned) == 1
