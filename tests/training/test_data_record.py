"""A run keeps a fingerprint of its data, and notices when they have become others."""

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from matcaps.cli import main
from matcaps.data import DataSettings, SplitSettings, load_data
from matcaps.inference.saved import evaluate_saved, open_saved
from matcaps.report import collect_run
from matcaps.training import train
from matcaps.training.data_record import DATA_NAME, read_fingerprint
from matcaps.training.record import read_json, read_run_settings, read_settings, write_settings
from tests.support.runs import AT_EVERY_STEP, Stop, StoppedError, tiny_settings, weights


def fill(folder, count, seed=0):
    random = np.random.default_rng([ord(folder.name[0]), seed])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = Image.fromarray(random.integers(0, 256, (28, 28), dtype=np.uint8))
        image.save(folder / f"{seed}-{number}.png")


def settings_for(folder, **changes):
    split = SplitSettings(validation_fraction=0.2)
    data = DataSettings("folder", folder=str(folder), image_size=28, batch_size=8, split=split, **changes)
    return tiny_settings(data=data, epochs=1, views_every=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("made")
    for name in ("cat", "dog"):
        fill(base / "pics" / name, 20)
    train(settings_for(base / "pics"), base / "run")
    return base


def test_a_new_run_takes_a_seed_that_leaves_no_part_empty_and_keeps_it(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / "pics" / name, 3)
    settings = settings_for(tmp_path / "pics")
    settings = replace(settings, data=replace(settings.data, split=SplitSettings(test_fraction=0.1)))
    with pytest.raises(ValueError, match=r"leaves none to test: a training with --data\.split\.seed"):
        load_data(settings.data)
    with pytest.warns(UserWarning, match=r"leaves none to test: this training uses --data\.split\.seed"):
        train(settings, tmp_path / "run")
    taken = read_run_settings(tmp_path / "run").data.split.seed
    assert taken != settings.data.split.seed
    assert evaluate_saved(str(tmp_path / "run")).num_images == len(
        load_data(read_run_settings(tmp_path / "run").data).test
    )
    fill(tmp_path / "pics" / "cat", 5, seed=1)  # more images: the run's seed stands
    with pytest.warns(UserWarning, match="image"):
        train(read_run_settings(tmp_path / "run"), tmp_path / "run", resume=True)
    assert read_run_settings(tmp_path / "run").data.split.seed == taken


@pytest.fixture
def run(made, tmp_path):
    """A finished run and its images, which the test may change."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    values = read_settings(tmp_path / "run" / "settings.yaml")
    values["data"]["folder"] = str(tmp_path / "pics")
    write_settings(tmp_path / "run" / "settings.yaml", values)
    return tmp_path / "run"


def unfinish(run):
    for name in ("model.safetensors", "results.json"):
        (run / name).unlink()


def test_the_fingerprint_is_kept_at_the_start(run):
    found = read_fingerprint(run)
    assert found is not None
    assert found.classes == ("cat", "dog")
    assert sum(one.images for part in found.parts.values() for one in part.values()) == 40
    evaluate_saved(str(run))  # a warning would be an error here


def test_eval_and_report_say_that_the_images_changed(run):
    fill(run.parent / "pics" / "cat", 9, seed=1)
    with pytest.warns(UserWarning, match=r"not those of the run in .* \(train: .* then, .* now"):
        evaluate_saved(str(run))
    with pytest.warns(UserWarning, match="not those of the run in"):
        facts = collect_run(run)
    assert "not shown, because the images are no longer those of the run" in facts.note


def test_eval_refuses_other_classes_in_one_line(run, capsys):
    fill(run.parent / "pics" / "fox", 20)
    assert main(["eval", str(run)]) == 1
    assert "must have the network's classes, cat, dog; got cat, dog, fox" in " ".join(capsys.readouterr().err.split())


def test_a_resumed_run_goes_on_with_other_images_and_says_so(run):
    unfinish(run)
    fill(run.parent / "pics" / "cat", 9, seed=1)
    with pytest.warns(UserWarning, match="not those that the run in .* was started with"):
        train(read_run_settings(run), run, resume=True)
    record = read_json(run / DATA_NAME)
    [before] = record["earlier"]
    numbers = [sum(part["cat"]["images"] for part in one["parts"].values()) for one in (before, record)]
    assert numbers == [20, 29]
    evaluate_saved(str(run))  # on the images that it ended with: no warning


def test_a_resumed_run_refuses_other_classes_in_one_line(run, capsys):
    unfinish(run)
    fill(run.parent / "pics" / "fox", 20)
    assert main(["train", "--resume", str(run)]) == 1
    said = capsys.readouterr().err
    assert "cannot continue with other data: the classes were cat, dog and are cat, dog, fox" in said
    assert "Traceback" not in said


def test_a_resumed_run_refuses_other_images_where_positions_decide(made, tmp_path):
    shutil.copytree(made / "pics", tmp_path / "pics")
    settings = settings_for(tmp_path / "pics")
    settings = replace(settings, data=replace(settings.data, split=SplitSettings(choose_by="position")))
    train(settings, tmp_path / "run")
    unfinish(tmp_path / "run")
    fill(tmp_path / "pics" / "cat", 1, seed=1)
    with pytest.raises(ValueError, match=r"other images .* their positions decide which ones are test images"):
        train(read_run_settings(tmp_path / "run"), tmp_path / "run", resume=True)


def test_a_run_of_an_earlier_version_is_not_tested_on_what_it_was_trained_on(made, tmp_path):
    shutil.copytree(made / "pics", tmp_path / "pics")
    data = replace(settings_for(tmp_path / "pics").data, split=SplitSettings(choose_by="position"))
    data = replace(data, max_train_images=None, max_test_images=None)
    run = train(tiny_settings(data=data, epochs=1, views_every=0), tmp_path / "run").folder
    values = read_settings(run / "settings.yaml")
    del values["data"]["split"]["choose_by"]
    write_settings(run / "settings.yaml", values)
    (run / DATA_NAME).unlink()
    evaluate_saved(str(run))
    for number in range(5):
        shutil.copy(tmp_path / "pics/cat/0-0.png", tmp_path / f"pics/cat/0000-{number}.png")
    with pytest.raises(ValueError, match=r"train: 32 images then, 36 now.*many of these were trained on.*--folder"):
        evaluate_saved(str(run))
    with pytest.warns(UserWarning, match="not those of the run in"):
        assert "not shown" in collect_run(run).note


def test_a_run_without_a_fingerprint_goes_on(run):
    (run / DATA_NAME).unlink()
    fill(run.parent / "pics" / "cat", 9, seed=1)
    evaluate_saved(str(run))
    unfinish(run)
    train(read_run_settings(run), run, resume=True)


def test_a_malformed_fingerprint_is_named(run):
    (run / DATA_NAME).write_text("{}")
    with pytest.raises(ValueError, match=r"data.json: not a fingerprint of data"):
        evaluate_saved(str(run))


def test_a_relative_folder_is_found_from_another_place(made, tmp_path, monkeypatch):
    shutil.copytree(made / "pics", tmp_path / "pics")
    monkeypatch.chdir(tmp_path)
    train(settings_for("pics"), "run")
    assert read_run_settings(tmp_path / "run").data.folder == str(tmp_path / "pics")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    evaluate_saved("../run")
    unfinish(tmp_path / "run")
    train(read_run_settings(tmp_path / "run"), "../run", resume=True)


@pytest.mark.filterwarnings("ignore:.*has no test part")
def test_a_relative_folder_of_an_earlier_run_is_explained(run, monkeypatch, tmp_path_factory):
    values = read_settings(run / "settings.yaml")
    values["data"]["folder"] = "pics"
    write_settings(run / "settings.yaml", values)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(FileNotFoundError, match=r"relative to the folder in which the training was started.*--folder"):
        evaluate_saved(str(run))
    with pytest.raises(
        FileNotFoundError, match=r"relative to the folder in which the training was started.*settings.yaml"
    ):
        train(read_run_settings(run), run, resume=True)
    evaluate_saved(str(run), folder=str(run.parent / "pics"))
    monkeypatch.chdir(run.parent)
    evaluate_saved(str(run))


@pytest.mark.filterwarnings("ignore:.*has no test part")
def test_home_folders_are_known_in_every_path(run, monkeypatch, capsys):
    home = run.parent
    monkeypatch.setenv("HOME", str(home))
    image = "~/pics/cat/0-0.png"
    assert main(["eval", "~/run", "--folder", "~/pics"]) == 0
    assert main(["predict", "~/run", image]) == 0
    assert main(["report", "~/run", "--output", "~/page.html"]) == 0
    assert (home / "page.html").is_file()
    values = settings_for("~/pics").to_dict()
    write_settings(home / "config.yaml", values)
    assert main(["train", "--config=~/config.yaml", "--output=~/second", "--report=false"]) == 0
    assert (home / "second" / "model.safetensors").is_file()
    unfinish(home / "second")
    assert main(["train", "--resume", "~/second"]) == 0
    capsys.readouterr()
    assert main(["eval", "~nobody-of-this-name/run"]) == 1
    assert "home folder is not known" in capsys.readouterr().err


def test_a_configuration_of_an_earlier_version_gives_that_division_again(made, tmp_path):
    values = settings_for(made / "pics").to_dict()
    del values["data"]["split"]["choose_by"], values["data"]["transparency"], values["data"]["fit"]
    write_settings(tmp_path / "config.yaml", values)
    assert (
        main(["train", f"--config={tmp_path / 'config.yaml'}", f"--output={tmp_path / 'run'}", "--report=false"]) == 0
    )
    data = read_run_settings(tmp_path / "run").data
    assert (data.split.choose_by, data.transparency) == ("position", "drop")
    assert len(load_data(data).test) == 8


def test_fit_and_transparency_reach_prediction(made, tmp_path):
    shutil.copytree(made / "pics", tmp_path / "pics")
    train(settings_for(tmp_path / "pics", fit="pad", transparency="black"), tmp_path / "run")
    pixels = np.zeros((14, 28, 4), np.uint8)
    pixels[4:8, 10:18] = (90, 90, 90, 255)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = open_saved(str(tmp_path / "run")).load_image(tmp_path / "wide.png")[0, 0]
    assert image[0, 0] == 0
    assert (image == 90).sum() == 32


def test_uneven_classes_are_said_at_the_start_and_balance_trains(tmp_path):
    fill(tmp_path / "pics" / "ant", 60)
    fill(tmp_path / "pics" / "bee", 11)
    with pytest.warns(UserWarning, match="training images .*--data.balance sampling"):
        train(settings_for(tmp_path / "pics"), tmp_path / "plain")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(settings_for(tmp_path / "pics", balance="sampling"), tmp_path / "balanced")


def test_a_balanced_training_that_is_resumed_ends_as_if_it_had_not_been_stopped(tmp_path):
    fill(tmp_path / "pics" / "ant", 40)
    fill(tmp_path / "pics" / "bee", 10)
    settings = settings_for(tmp_path / "pics", balance="sampling")
    settings = replace(settings, epochs=2, checkpoint_minutes=AT_EVERY_STEP)
    train(settings, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(settings, tmp_path / "stopped", callbacks=[Stop("on_train_batch_start", 2)])
    train(settings, tmp_path / "stopped", resume=True)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
