"""Trainings that leave objects out, what they leave behind, and how recipes are compared by it."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from matcaps import cli
from matcaps.data import SplitSettings
from matcaps.experiments import fold_records
from matcaps.experiments.fold_figure import draw_folds
from matcaps.experiments.fold_records import gather_folds
from matcaps.experiments.fold_statistics import Table, compare, estimate, noise_floor, sign_flip_p
from matcaps.experiments.fold_table import make_fold_table
from matcaps.experiments.folds import fold_experiment, folds_name
from matcaps.experiments.plan import make_trials
from matcaps.training import recipe_settings
from matcaps.training.record import read_run_settings, write_json, write_settings
from tests.support.folders import make_folder, write_table

TOYS = (4, 6, 7, 8, 9)
CLASSES = ("animal", "human", "plane", "truck", "car")


# Planning


@pytest.mark.parametrize("recipe", ["smallnorb", "smallnorb-cnn", "smallnorb-paper"])
def test_each_training_toy_is_left_out_once_and_the_test_part_never_read(recipe):
    base = recipe_settings(recipe)
    base = replace(base, data=replace(base.data, split=SplitSettings(validation_fraction=0.1, seed=3)))
    trials = make_trials(fold_experiment("x", base), seeds=[0, 1], epochs=20)
    splits = [trial.settings.data.split for trial in trials]
    assert [split.test_instances for split in splits] == [(toy,) for toy in TOYS] * 2
    assert {(split.rule, split.source, split.validation_fraction) for split in splits} == {("instance", "train", 0.0)}
    assert {trial.settings.data.split.seed for trial in trials} == {3}
    assert trials[0].name == "fold4-20epochs-seed0"


def test_names_of_recipes_are_fit_for_folders_and_differ_where_settings_do():
    assert folds_name("smallnorb", {}) == "smallnorb"
    assert folds_name("smallnorb", {"loss.name": "cross-entropy"}) == "smallnorb-loss.name=cross-entropy"
    odd = [folds_name("smallnorb", {"data.folder": text}) for text in ("a/b", "a b", "a-b", "é" * 300, "f" * 300)]
    assert len(set(odd)) == 5
    assert all(re.fullmatch(r"[\w.=-]{1,70}", name, re.ASCII) for name in odd)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "loss.nam=x"], "set must name a setting of matcaps train; got 'loss.nam': did you mean loss.name"),
        (["--set", "qqqq=x"], "got 'qqqq': matcaps train --help lists all"),
        (["--set", "loss"], "set must be NAME=VALUE; got 'loss'"),
        (["--set", "loss.name=x"], "loss.name must be one of 'spread', 'margin', 'cross-entropy'; got 'x'"),
        (["--set", "optimizer.ema_decay=3"], "ema_decay must lie between 0 and 1, or be None; got 3.0"),
        (["--set", "data.split.source=both"], "set must not change data.split.source, which the folds set"),
        (["--set", "seed=3"], "set must not change seed, which the folds set: give --seeds"),
        (["--set", "loss.name=margin", "--set", "loss.name=spread"], "set must name each setting once"),
        (["--name", "../x"], "name must be a folder's name"),
        (["--shard", "3/2"], "shard must be k/n"),
        (["--groups", "g.csv"], "groups and folds must be left out for smallnorb"),
        (["--set", "data.name=mnist"], "folds must have data whose objects are known; got data.name=mnist"),
        (["--set", "data.name=folder"], "folder must be given when name is 'folder'"),
    ],
)
def test_folds_that_cannot_be_are_refused_in_one_line(arguments, message, capsys):
    try:
        status = cli.main(["experiment", "folds", "--recipe", "smallnorb", *arguments, "--list"])
    except SystemExit as end:
        status = end.code
    assert status in (1, 2)
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1


def test_the_preset_of_another_network_drops_the_recipes_changes_and_settings_are_those_of_train(capsys):
    arguments = [
        "--recipe",
        "smallnorb",
        "--set",
        "model.preset=paper",
        "--set",
        "data.batch_size=64",
        "--shard",
        "2/5",
    ]
    assert cli.main(["experiment", "folds", *arguments, "--list"]) == 0
    name = "smallnorb-model.preset=paper-data.batch_size=64"
    assert capsys.readouterr().out == f"runs/folds/{name}/fold6-55epochs-seed0: toy 6 of each class left out\n"


# A whole comparison, on a folder with groups


def test_recipes_are_trained_and_compared_on_groups_that_they_never_saw(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = make_folder(Path("photos"), {"cat": 24, "dog": 24})
    table = write_table(Path("groups.csv"), [(name, f"p{number % 6}") for number, name in enumerate(names)])
    common = [
        *("--recipe", "quickstart", "--groups", str(table), "--folds", "2", "--epochs", "1", "--folder", "folds"),
        *(f"--set={name}" for name in ("data.name=folder", "data.folder=photos", "data.image_size=16")),
        *(f"--set={name}" for name in ("model.preset=baseline-cnn", "model.channels1=2", "model.channels2=2")),
        *("--set=loss.name=cross-entropy", "--set=accelerator=cpu"),
    ]
    for name, more in (("plain", ["--seeds=0,1"]), ("slow", ["--set=optimizer.learning_rate=0.00001"])):
        assert cli.main(["experiment", "folds", *common, "--name", name, *more]) == 0
    assert "the test part was not looked at" in capsys.readouterr().out
    run = Path("folds/plain/fold1-1epochs-seed0")
    results = json.loads((run / "results.json").read_text())
    assert results["looked_at_test_part"] is False
    assert sorted(results["test"]["value_names"]["group"].values()) == list(
        read_run_settings(run).data.split.test_groups
    )
    before = (run / "results.json").read_bytes()
    assert cli.main(["experiment", "folds", *common, "--name", "plain", "--shard=1/4"]) == 0  # it is done
    assert (run / "results.json").read_bytes() == before
    assert cli.main(["eval", str(run), "--by", "group"]) == 0
    assert re.search(r"\bp\d\b", capsys.readouterr().out)
    assert cli.main(["eval", str(run), "--part", "all"]) == 0
    assert "on 48 images" in capsys.readouterr().out
    make_folder(Path("others"), {"cat": 5, "dog": 5})
    assert cli.main(["eval", str(run), "--folder", "others", "--part", "all"]) == 0
    capsys.readouterr()
    losses = results["test"].pop("log_loss_by")  # as of an earlier version
    write_json(run / "results.json", results)
    for _ in range(2):
        assert cli.main(["table", "folds", "folds", "--output", "out"]) == 0
        assert "fold1-1epochs-seed0 kept no log-loss, and was tested again from its weights" in capsys.readouterr().out
        monkeypatch.setattr(fold_records, "evaluate_saved", None)  # once is enough
    (again,) = json.loads(Path("out/tested_again.json").read_text()).values()
    assert again["log_loss_by"]["group"].keys() == losses["group"].keys()
    for value, by_class in losses["group"].items():
        assert again["log_loss_by"]["group"][value] == pytest.approx(by_class, abs=1e-5)
    assert cli.main(["table", "folds", "folds", "--output", "out"]) == 0
    text = capsys.readouterr().out
    assert sorted(re.findall(r"^\| (p\d) \|", text, re.MULTILINE)) == [f"p{number}" for number in range(6)]
    assert "- slow: optimizer.learning_rate: 0.003, 1e-05" in text
    assert "Noise floor, how far two seeds of one recipe lie apart" in text
    assert Path("out/folds.md").read_text() + "\n" == text
    assert Path("out/folds.png").is_file()
    # other groups: the run is not tested by them, nor goes on with them
    write_table(table, [(name, f"p{(number + 1) % 6}") for number, name in enumerate(names)])
    assert cli.main(["eval", str(run)]) == 1
    assert "their groups decide which ones are test images" in capsys.readouterr().err


# Records


def make_run(folder: Path, toy: int, seed: int, error: float, *, losses: bool = True, **changes) -> Path:
    """The record of a run that was wrong on so large a share of each toy, and a little more of planes."""
    base = recipe_settings("smallnorb")
    trial = fold_experiment("x", replace(base, **changes)).row(f"fold{toy}")
    folder.mkdir(parents=True)
    write_settings(folder / "settings.yaml", replace(trial.settings, seed=seed).to_dict())
    accuracies = [1 - error - 0.01 * (name == "plane") for name in CLASSES]
    test = {"classes": CLASSES, "class_accuracy_by": {"instance": {toy: accuracies}}}
    test |= {"accuracy": 1 - error, "num_images": 50}
    if losses:
        test |= {"log_loss_by": {"instance": {toy: [3 * error] * 5}}, "num_images_by": {"instance": {toy: [10] * 5}}}
    write_json(folder / "results.json", {"test": test, "commit": "abc" * 5, "data_origin": "made here"})
    return folder


def make_recipe(folder: Path, offset: float = 0.0, seeds=(0,), prefix: str = "", **changes) -> None:
    for seed in seeds:
        for place, toy in enumerate(TOYS):
            error = 0.05 + 0.01 * place + 0.002 * seed + offset
            make_run(folder / f"{prefix}fold{toy}-20epochs-seed{seed}", toy, seed, error, epochs=20, **changes)


def test_runs_that_differ_in_fold_and_seed_alone_are_one_recipe_and_are_named_by_their_folders(tmp_path):
    loss = replace(recipe_settings("smallnorb").loss, name="margin")
    make_recipe(tmp_path / "plain", seeds=(0, 1))
    make_recipe(tmp_path, prefix="other-", loss=loss)
    (tmp_path / "unfinished").mkdir()
    split = fold_experiment("x", recipe_settings("smallnorb")).rows[0].settings
    write_settings(tmp_path / "unfinished" / "settings.yaml", split.to_dict())
    make_run(tmp_path / "elsewhere", 4, 0, 0.1, losses=True)
    write_settings(tmp_path / "elsewhere" / "settings.yaml", recipe_settings("smallnorb").to_dict())  # leaves none out
    gathered = gather_folds([tmp_path])
    assert sorted((recipe.name, len(recipe.runs), recipe.seeds) for recipe in gathered.recipes) == [
        ("other-20epochs", 5, (0,)),
        ("plain", 10, (0, 1)),
    ]
    assert gathered.unfinished == ("unfinished: not done yet, 0 epochs so far",)
    assert len(gathered.recipes[0].objects) == 25


def test_the_table_has_every_object_both_measures_and_the_settings_that_differ(tmp_path):
    make_recipe(tmp_path / "a", seeds=(0, 1))
    make_recipe(tmp_path / "b", offset=-0.01, loss=replace(recipe_settings("smallnorb").loss, name="margin"))
    gathered = gather_folds([tmp_path / "a", tmp_path / "b"])
    text = make_fold_table(gathered)
    for name in CLASSES:
        for toy in TOYS:
            assert f"| {name} {toy} | " in text
    assert "| plane 4 | 6.10 | 5.00 | 0.1530 | 0.1200 |" in text
    assert "- b: loss.name: spread, margin; both measures are lower than of a" in text
    assert "| b | error, points | -1.10 |" in text
    assert "0.20 points in the mean over 25 objects" in text
    assert "One seed only, so that the interval has none of a seed's share: b." in text
    assert draw_folds(gathered.recipes) is not None


def test_a_mean_over_fewer_objects_says_so_in_the_figure(tmp_path):
    make_recipe(tmp_path / "a", seeds=(0,))
    make_run(tmp_path / "b" / "fold4-seed0", 4, 0, 0.1)
    figure = draw_folds(gather_folds([tmp_path / "a", tmp_path / "b"]).recipes)
    whole, some = (text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert whole.startswith("a, mean ")
    assert " of " not in whole
    assert some.startswith("b, mean ")
    assert some.endswith(" of 5 of 25")


def test_a_run_without_log_loss_shows_its_error_alone_where_it_cannot_be_tested_again_and_says_so(tmp_path):
    make_run(tmp_path / "fold4-seed0", 4, 0, 0.1, losses=False)
    gathered = gather_folds([tmp_path])
    text = make_fold_table(gathered)
    assert "| plane 4 | 11.00 | – |" in text
    assert "fold4-seed0 has no log-loss: it is of an earlier version, and cannot be tested again" in text
    assert draw_folds(gathered.recipes) is not None


def test_runs_that_would_be_counted_twice_are_refused(tmp_path):
    make_run(tmp_path / "one-fold4-seed0", 4, 0, 0.1)
    make_run(tmp_path / "two-fold4-seed0", 4, 0, 0.1)
    with pytest.raises(ValueError, match="leave out the same objects and have the same seed: name one of them alone"):
        gather_folds([tmp_path])


def test_folders_without_such_runs_are_refused(tmp_path, capsys):
    assert cli.main(["table", "folds", str(tmp_path)]) == 1
    assert "leaves objects of the training part out" in capsys.readouterr().err
    assert cli.main(["table", "folds", str(tmp_path / "no")]) == 1
    assert f"no folder {tmp_path / 'no'}" in capsys.readouterr().err
    make_run(tmp_path / "fold4-seed0", 4, 0, 0.1)
    write_json(tmp_path / "fold4-seed0" / "results.json", {"test": None})
    text = make_fold_table(gather_folds([tmp_path]))
    assert "No run is done yet" in text
    assert "fold4-seed0: not tested: matcaps train --resume" in text
    write_json(tmp_path / "fold4-seed0" / "results.json", {"test": {"log_loss_by": {"instance": {}}}})
    with pytest.raises(ValueError, match="its test by instance is malformed"):
        gather_folds([tmp_path])


# Statistics


def test_sign_flips_are_counted_exactly():
    values = np.random.default_rng(0).normal(0.5, 1, 12)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 12)).reshape(12, -1).T
    expected = (np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean()
    assert sign_flip_p(values) == pytest.approx(expected)
    assert sign_flip_p(np.concatenate([values, np.zeros(3)])) == pytest.approx(expected)
    assert sign_flip_p(np.ones(25)) == 2 / 2**25
    assert sign_flip_p(np.zeros(5)) == 1
    assert sign_flip_p(np.array([1.0, -1.0])) == 1


def test_many_objects_are_judged_by_draws_that_are_always_the_same():
    values = np.random.default_rng(0).normal(0.2, 1, 100)
    drawn = sign_flip_p(values)
    assert drawn == sign_flip_p(values)
    z = abs(values.sum()) / np.sqrt((values**2).sum())
    assert drawn == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.01)


def test_sign_flips_call_a_tenth_of_equal_recipes_different_at_a_tenth():
    random = np.random.default_rng(0)
    found = [sign_flip_p(random.normal(0, 1, 10)) for _ in range(400)]
    assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.04)


def normal_tables(random, *, objects=25, seeds=3, difference=0.0):
    folds = [place % 5 for place in range(objects)]
    common = random.normal(5, 2, (objects, 1))
    noise = [random.normal(0, 0.5, (5, seeds))[folds] for _ in range(2)]
    return Table(common + noise[0], folds), Table(common + noise[1] + difference, folds)


def test_a_bootstrap_over_objects_and_seeds_is_as_wide_as_theory_says():
    table, _ = normal_tables(np.random.default_rng(3), objects=100)
    found = estimate(table)
    assert found.mean == pytest.approx(table.values.mean())
    of_objects = table.by_object.std() / 10
    assert (found.high - found.low) / 3.92 == pytest.approx(of_objects, rel=0.25)
    one_seed = estimate(Table(table.values[:, :1], table.folds))
    assert one_seed.low < one_seed.mean < one_seed.high
    # seeds that differ much where objects do not are what the interval shows
    seeds_alone = Table(np.broadcast_to(np.array([0.0, 1.0]), (25, 2)).copy(), [0] * 25)
    assert estimate(seeds_alone).high - estimate(seeds_alone).low == pytest.approx(1.0)


def test_objects_of_a_fold_that_no_seed_has_all_of_count_by_their_means():
    values = np.array([[1.0, np.nan], [np.nan, 3.0]])
    assert estimate(Table(values, [0, 0])).mean == 2.0


def test_pairing_sees_a_difference_that_objects_would_hide():
    first, second = normal_tables(np.random.default_rng(0), difference=1.0)
    found = compare(first, second)
    assert found.difference.low > 0.2
    assert found.p < 0.01
    assert found.num_worse > 20
    assert estimate(first).high > estimate(second).low  # unpaired, nothing is seen
    missing = Table(np.where(np.arange(25)[:, None] < 20, second.values, np.nan), second.folds)
    assert compare(first, missing).num_objects == 20


def test_the_noise_floor_is_how_far_seeds_lie_apart():
    folds = list(range(25))
    random = np.random.default_rng(0)
    found = noise_floor([Table(random.normal(5, 1, (25, 40)), folds)])
    assert found is not None
    assert found.of_object == pytest.approx(np.sqrt(2), rel=0.05)
    assert found.of_mean == pytest.approx(np.sqrt(2) / 5, rel=0.2)
    assert noise_floor([Table(random.normal(5, 1, (25, 1)), folds)]) is None
    apart = np.full((4, 2), np.nan)
    apart[:2, 0] = apart[2:, 1] = 1.0
    assert noise_floor([Table(apart, folds[:4])]) is None  # two seeds, but not on the same objects
