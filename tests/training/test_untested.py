"""Runs that leave the test part alone, and say so; and whatever reads them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from matcaps import cli
from matcaps.report import collect_run, make_report
from matcaps.training import run as run_module
from matcaps.training import train
from matcaps.training.tested import describe_tested
from tests.support.runs import tiny_settings, write_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    settings = tiny_settings(epochs=1, test="never", agreement_every=1)
    return train(settings, tmp_path_factory.mktemp("untested") / "run").folder


@pytest.fixture
def untested(whole, tmp_path) -> Path:
    """A copy of the run to write into."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_run_that_never_tests_classifies_no_test_image_and_says_so(tmp_path, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise AssertionError("tested")

    monkeypatch.setattr(run_module, "evaluate", refuse)
    monkeypatch.setattr("matcaps.report.collect.evaluate", refuse)
    config = write_config(tiny_settings(epochs=1), tmp_path)
    folder = tmp_path / "run"
    assert cli.main(["train", config, "--test", "never", "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "no test image was used (test never)" in printed
    assert "accuracy" not in printed.splitlines()[-4]
    results = json.loads((folder / "results.json").read_text())
    assert results["test"] is None
    assert results["looked_at_test_part"] is False
    page = (folder / "report.html").read_text()
    assert "No test image was used (test never)" in page
    assert "Confusion matrix" not in page


@pytest.mark.usefixtures("undrawn")
def test_what_reads_a_run_stands_a_run_without_a_test(untested, tmp_path, capsys):
    tested = train(tiny_settings(epochs=1), tmp_path / "tested").folder
    page = make_report([collect_run(untested), collect_run(tested)])
    assert "not tested" in page
    assert cli.main(["eval", str(untested)]) == 0
    assert "log-loss" in capsys.readouterr().out
    assert cli.main(["inspect", str(untested), "--output", str(tmp_path / "inspected"), "--num_images", "4"]) == 0
    assert cli.main(["report", str(tested), str(untested), "--output", str(tmp_path / "page.html")]) == 0


def test_a_finished_run_is_tested_later_when_asked_to_and_keeps_the_rest_of_its_record(untested):
    before = json.loads((untested / "results.json").read_text())
    assert cli.main(["train", "--resume", str(untested), "--test", "end", "--report", "false"]) == 0
    after = json.loads((untested / "results.json").read_text())
    assert after.pop("test")["num_images"] == 20
    assert after.pop("looked_at_test_part") is True
    assert all(before[name] == value for name, value in after.items())


def test_weights_are_the_same_whether_a_run_tests_or_not(untested, tmp_path):
    tested = train(tiny_settings(epochs=1, agreement_every=1), tmp_path / "tested").folder
    assert (tested / "model.safetensors").read_bytes() == (untested / "model.safetensors").read_bytes()


def test_a_run_that_never_tests_watches_no_test_images():
    with pytest.raises(ValueError, match="watched_parts must be empty where test is never; got test"):
        tiny_settings(test="never", watched_parts=("test",))
    with pytest.raises(ValueError, match="test must be one of never, end; got 'often'"):
        replace(tiny_settings(), test="often")


def test_words_say_what_was_looked_at():
    assert describe_tested({"test": {"num_images": 5}}) == ""  # an earlier version's
    assert "no test part was used" in describe_tested({"test": {"num_images": 5}, "looked_at_test_part": False})
    assert "5 images of it" in describe_tested({"test": {"num_images": 5}, "looked_at_test_part": True})
