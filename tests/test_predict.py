"""``matcaps predict`` takes what people give it, goes past what it cannot read, and says what looks unlike; eval."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcaps import cli
from matcaps.data import DataSettings
from matcaps.inference.prediction import find_images
from matcaps.models.sources import read_config
from matcaps.training import train
from tests.support.runs import tiny_settings

pytestmark = pytest.mark.filterwarnings("default")  # as a user has it, for whom a warning is no error


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return run


def draw(path: Path, *, ground: int = 0, ink: int = 255) -> Path:
    """A disc in the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:28, :28]
    disc = (rows - 14) ** 2 + (columns - 14) ** 2 < 49
    Image.fromarray(np.where(disc, ink, ground).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Trained on Fashion-MNIST, whose ground is black."""
    return train(tiny_settings(epochs=1, views_every=0), tmp_path_factory.mktemp("run")).folder


def test_predicting_and_testing_need_no_lightning(run, tmp_path):
    code = (
        "import sys\n"
        "from matcaps.inference.saved import evaluate_saved\n"
        "from matcaps.inference.prediction import predict_files\n"
        f"found = predict_files({str(run)!r}, [{str(draw(tmp_path / 'disc.png'))!r}], accelerator='cpu')\n"
        "assert len(found.scores) == 1, found\n"
        "assert 'lightning' not in sys.modules\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_files_folders_and_patterns_each_give_their_images_once(tmp_path):
    for name in ("a/1.png", "a/b/2.JPG", "a/b/notes.txt", "a/.hidden/3.png", "c[1]/4.png", "odd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        draw(tmp_path / "image.png").rename(tmp_path / name)

    def at(*names: str) -> list[str]:
        return [str(tmp_path / name) for name in names]

    assert find_images(at("a")) == (at("a/1.png", "a/b/2.JPG"), {})
    assert find_images(at("a/*.png", "a/**/*", "odd")) == (at("a/1.png", "a/b/2.JPG", "odd"), {})
    assert find_images(at("c[1]", "c[1]/4.png")) == (at("c[1]/4.png"), {})
    (tmp_path / "empty").mkdir()
    found, failures = find_images(at("empty", "*.tif", "missing.png"))
    assert found == at("missing.png")
    assert "holds no image" in failures[str(tmp_path / "empty")]
    assert "no image matches the pattern" in failures[str(tmp_path / "*.tif")]


def test_it_goes_on_past_bad_files_and_says_so_at_the_end_with_status_1(call, run, tmp_path):
    for number in range(3):
        draw(tmp_path / "pics" / f"{number}.png")
    (tmp_path / "pics" / "1b.png").write_text("no image")
    status, printed, errors = call("predict", run, "pics", "none.png")
    assert status == 1
    assert [line.split(":")[0] for line in printed] == ["pics/0.png", "pics/1.png", "pics/2.png"]
    assert len(errors) == 1
    assert errors[0].startswith("matcaps predict: 2 of 5 could not be classified: ")
    assert "1b.png cannot be read as an image" in errors[0]
    assert "none.png: No such file or directory" in errors[0]
    status, printed, errors = call("predict", run, "pics/*b.png", "pics/0.png", "--json")
    assert status == 1
    assert list(json.loads("\n".join(printed))) == ["pics/0.png"]
    assert call("predict", run, "pics/0.png", "pics/2.png")[0] == 0


@pytest.mark.usefixtures("undrawn")
def test_ink_on_paper_for_a_network_of_white_on_black_is_warned_of_and_invert_mends_it(call, run, tmp_path):
    draw(tmp_path / "dark.png")
    draw(tmp_path / "paper.png", ground=255, ink=0)
    draw(tmp_path / "blank.png", ink=0)
    status, right, errors = call("predict", run, "dark.png")
    assert (status, errors) == (0, [])
    _, _, errors = call("predict", run, "paper.png", "dark.png")
    assert len(errors) == 1
    assert "1 of 2 images (paper.png) have a bright background" in errors[0]
    assert "--invert exchanges black and white" in errors[0]
    status, printed, errors = call("predict", run, "paper.png", "--invert")
    assert (status, errors) == (0, [])
    assert printed[0].split(": ")[1] == right[0].split(": ")[1]
    assert "leave --invert out" in call("predict", run, "dark.png", "--invert")[2][0]
    assert "blank.png has only one grey level" in call("predict", run, "blank.png")[2][0]
    errors = call("inspect", run, "--image=paper.png", "--num_images=0", "--output=found")[2]
    assert "paper.png has a bright background" in errors[0]


def test_a_network_that_does_not_know_how_its_images_looked_warns_of_nothing(call, run, tmp_path):
    assert read_config(run)["appearance"]["border_mean"] < 0.1
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    config = read_config(copy)
    for kept in ({}, {"appearance": {"of": "another version"}}):
        (copy / "config.json").write_text(json.dumps({**config, "appearance": None, **kept}))
        assert call("predict", copy, draw(tmp_path / "paper.png", ground=255, ink=0))[2] == []


def test_eval_can_take_every_image_of_a_folder(call, tmp_path):
    for place, name in enumerate(("bee", "cow")):
        for number in range(10):
            draw(tmp_path / "farm" / name / f"{number}.png", ink=100 + 100 * place + number)
    data = DataSettings("folder", folder=str(tmp_path / "farm"), image_size=28, batch_size=4)
    run = train(tiny_settings(data=data, epochs=1, views_every=0), tmp_path / "run").folder
    for place, name in enumerate(("bee", "cow")):
        for number in range(3 + place):
            draw(tmp_path / "others" / name / f"{number}.png", ink=50 + 100 * place + number)
    status, printed, errors = call("eval", run, "--data.folder", "others", "--part=all")
    assert (status, errors) == (0, [])
    assert "on 7 images" in printed[-1]
    status, printed, errors = call("eval", run, "--part=all")
    assert "on 20 images" in printed[-1]
    draw(tmp_path / "others" / "bee" / "9.png", ink=7)
    shutil.copytree(run, tmp_path / "copy", ignore=lambda *_: ["settings.yaml"])
    for number in range(20):
        draw(tmp_path / "others" / "cow" / f"x{number}.png", ink=20 + number)
        draw(tmp_path / "others" / "bee" / f"x{number}.png", ink=160 + number)
    _, printed, errors = call("eval", "copy", "--folder=others")
    assert any("others has no test part: tested on the" in line and "--part all" in line for line in errors)
