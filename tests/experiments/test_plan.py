"""What the experiments consist of, without running any."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from matcaps.experiments import Experiment, Row, get_experiment, list_experiments, make_trials
from matcaps.experiments.differences import differences
from matcaps.experiments.measures import MEASURES
from matcaps.experiments.plan import parse_list, parse_seeds, parse_shard
from matcaps.models import model_config
from matcaps.training import ModelSettings, TrainSettings, recipe_settings


@pytest.mark.parametrize("name", list_experiments())
def test_every_row_is_a_training_that_can_be_built(name):
    experiment = get_experiment(name)
    assert experiment.title
    names = [row.name for row in experiment.rows]
    assert len(set(names)) == len(names)
    for row in experiment.rows:
        model_config(row.settings.model.preset, **row.settings.model.changes())
        assert TrainSettings.from_dict(row.settings.to_dict()) == row.settings
        if row.trained_in is not None:
            assert row.trained_as is not None
            assert get_experiment(row.trained_in).row(row.trained_as).settings == row.settings


def test_table1_changes_what_its_rows_say_and_nothing_else():
    rows = {row.name: row.settings for row in get_experiment("table1").rows}
    base = rows["iterations-3"]
    assert base == recipe_settings("smallnorb")
    expected = {
        "iterations-1": ["model.iterations"],
        "iterations-5": ["model.iterations"],
        "vector": ["model.pose"],
        "no-coordinates": ["model.coordinates"],
        "vector-no-coordinates": ["model.pose", "model.coordinates"],
        "margin": ["loss.name"],
        "cross-entropy": ["loss.name"],
        "as-written": [
            "model.annealing",
            "model.coordinate_scale",
            "model.calibration",
            "optimizer.matrix_learning_rate",
        ],
    }
    for name, changed in expected.items():
        assert sorted(line.split(":")[0] for line in differences(base, rows[name])) == sorted(changed), name


def test_the_varied_cnn_sees_what_the_capsules_see():
    rows = {row.name: row.settings for row in get_experiment("table1").rows}
    assert rows["cnn-varied"].data == rows["iterations-3"].data
    assert all(line.startswith("data.transform.") for line in differences(rows["cnn"], rows["cnn-varied"]))


def test_table1_has_the_papers_figures():
    paper = {row.name: dict(row.paper).get("test") for row in get_experiment("table1").rows}
    assert paper == {
        "iterations-1": 9.7,
        "iterations-2": 2.2,
        "iterations-3": 1.8,
        "iterations-5": 3.9,
        "vector": 2.9,
        "no-coordinates": 2.6,
        "vector-no-coordinates": 3.2,
        "margin": 3.2,
        "cross-entropy": 5.8,
        "cnn": 5.2,
        "cnn-varied": None,
        "as-written": None,
    }


def test_viewpoints_train_and_test_apart():
    for row in get_experiment("viewpoints").rows:
        assert row.settings.data.split.rule == row.name.split("-")[0]
        assert set(row.settings.watched_parts) == {"familiar_test", "test"}


def test_trials_go_seed_by_seed_and_have_folders_of_their_own():
    experiment = get_experiment("table1")
    trials = make_trials(experiment, rows=["iterations-1", "cnn"], seeds=[0, 3], epochs=7)
    assert [(trial.row.name, trial.settings.seed) for trial in trials] == [
        ("iterations-1", 0),
        ("cnn", 0),
        ("iterations-1", 3),
        ("cnn", 3),
    ]
    assert {trial.settings.epochs for trial in trials} == {7}
    assert trials[0].folder(Path("base")) == Path("base/table1/iterations-1-7epochs-seed0")
    assert len({trial.folder(Path("base")) for trial in trials}) == 4


def test_attacks_use_the_trainings_of_table1():
    capsules = make_trials(get_experiment("attacks"), rows=["capsules"], seeds=[2])[0]
    assert capsules.folder(Path("b")) == Path("b/attacks/capsules-55epochs-seed2")
    assert capsules.training_folder(Path("b")) == Path("b/table1/iterations-3-55epochs-seed2")
    # the CNN that images are transferred from is the table's own, also where its epochs are the capsules' by chance
    for epochs, name in ((None, "cnn-15epochs-seed0"), (55, "cnn-55epochs-seed0"), (3, "cnn-3epochs-seed0")):
        (trial,) = make_trials(get_experiment("attacks"), rows=["capsules"], epochs=epochs)
        (source,) = MEASURES["attacks"].also_needed(get_experiment("attacks"), trial)
        assert source.name == name


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 30])
def test_shards_are_all_trials_and_share_none(parts):
    experiment = get_experiment("table1")
    everything = make_trials(experiment, seeds=[0, 1])
    shards = [make_trials(experiment, seeds=[0, 1], shard=(part, parts)) for part in range(1, parts + 1)]
    names = [trial.name for shard in shards for trial in shard]
    assert sorted(names) == sorted(trial.name for trial in everything)


def test_limits_and_root_reach_the_data():
    trial = make_trials(
        get_experiment("mnist"), root="somewhere", max_train_images=10, max_test_images=5, accelerator="cpu"
    )[0]
    assert trial.settings.accelerator == "cpu"
    assert make_trials(get_experiment("mnist"))[0].settings.accelerator == "auto"
    data = trial.settings.data
    assert (data.root, data.max_train_images, data.max_test_images) == ("somewhere", 10, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": ["nope"]}, "rows of the experiment 'table1' must be names from iterations-1"),
        ({"rows": ["cnn", "cnn"]}, "rows must be different"),
        ({"seeds": [1, 1]}, "seeds must be different; got 1, 1"),
        ({"seeds": [-1]}, "seed must be a whole number of at least 0"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; got 0"),
        ({"shard": (0, 2)}, "shard must be k/n with k from 1 to n; got 0/2"),
        ({"shard": (3, 2)}, "got 3/2"),
    ],
)
def test_bad_plans(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_trials(get_experiment("table1"), **arguments)


def test_what_the_command_line_gives():
    assert parse_shard("2/4") == (2, 4)
    assert parse_list("a,b") == parse_list("[a, b]") == ["a", "b"]
    assert parse_seeds("0,12") == [0, 12]
    for text in ("", "2", "2/", "a/b", "-1/2"):
        with pytest.raises(ValueError, match="shard must be k/n, two whole numbers"):
            parse_shard(text)
    for text in ("", "0,", "-1", "a"):
        with pytest.raises(ValueError, match="seeds must be whole numbers"):
            parse_seeds(text)


def test_an_unknown_experiment():
    with pytest.raises(ValueError, match="the experiment must be one of table1, viewpoints, attacks, mnist; got 'x'"):
        get_experiment("x")


def test_the_same_network_by_another_name_is_the_same_training():
    named = recipe_settings("smallnorb")
    spelled = replace(
        named,
        recipe="custom",
        model=ModelSettings("paper-small", annealing=0.045, coordinate_scale=5.0, calibration="full"),
        data=replace(named.data, root="elsewhere"),
        checkpoint_minutes=1.0,
    )
    assert differences(named, spelled) == []
    assert differences(named, replace(spelled, epochs=3)) == ["epochs: 55, 3"]


def test_plans_need_no_torch():
    code = (
        "import sys; from matcaps.experiments.definitions import get_experiment; "
        "from matcaps.experiments.plan import make_trials; make_trials(get_experiment('table1')); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_experiment_of_ones_own():
    row = Row("one", "one row", recipe_settings("quickstart"))
    trials = make_trials(Experiment("mine", "a title", (row,)), seeds=[0, 1])
    assert [trial.name for trial in trials] == ["one-8epochs-seed0", "one-8epochs-seed1"]


def test_a_run_from_weights_differs_from_one_from_scratch_and_not_from_what_its_weights_decided():
    scratch = replace(recipe_settings("smallnorb"), model=ModelSettings("annealed-small"))
    asked = replace(scratch, model=ModelSettings("annealed-small", pretrained="weights", freeze="stem"))
    written = replace(asked, model=asked.model.filled({"pretrained_sha256": "0" * 64, "stem_channels": 64}))
    assert differences(written, asked) == []
    assert any(line.startswith("model.pretrained: ") for line in differences(scratch, asked))
    unfrozen = replace(asked, model=replace(asked.model, freeze=()))
    assert differences(written, unfrozen) == ["model.freeze: ['stem'], []"]
