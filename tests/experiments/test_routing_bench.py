"""The bench of routings: equal parameters, equal tuning, an honest choice; and a whole one, of noise."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from matcaps import cli
from matcaps.experiments import routing_rates
from matcaps.experiments.routing_bench import (
    CONTENDERS,
    Bench,
    configurations,
    contenders_named,
    final_jobs,
    is_of_elevations,
    search_jobs,
)
from matcaps.experiments.routing_figure import draw_routings
from matcaps.experiments.routing_runs import best_configuration
from matcaps.experiments.routing_table import gather_bench, make_routing_table
from matcaps.models import create_model
from matcaps.models.config import ROUTING_NAMES
from matcaps.models.presets import PRESETS
from matcaps.training.record import write_json
from tests.support.norb import write_noise_norb

EM_PARAMETERS = 68_754
ALL = [one for contender in CONTENDERS for one in configurations(Bench(), contender)]

pytestmark = pytest.mark.filterwarnings("ignore:.*the checksum differs from the published one:UserWarning")


# --- what is compared ---


def test_every_network_has_the_parameters_of_em_within_a_twentieth():
    networks = {(one.settings.model.preset, str(one.settings.model.changes())): one.settings.model for one in ALL}
    for model in networks.values():
        count = sum(parameter.numel() for parameter in create_model(model.preset, **model.changes()).parameters())
        assert abs(count / EM_PARAMETERS - 1) < 0.05, (model.changes(), count)


def test_every_row_is_tuned_as_much_and_differs_only_in_what_its_row_says():
    assert [len(configurations(Bench(), contender)) for contender in CONTENDERS] == [6] * len(CONTENDERS)
    assert len({one.name for one in ALL}) == len(ALL)
    alike = []
    for one in ALL:
        settings = replace(one.settings, model=ALL[0].settings.model, optimizer=ALL[0].settings.optimizer)
        if one.contender.preset == "baseline-cnn":  # whose choice it is
            settings = replace(settings, loss=replace(settings.loss, name="spread"))
        alike.append(settings)
    assert all(settings == alike[0] for settings in alike)
    rates = {(one.settings.optimizer.learning_rate, one.settings.optimizer.matrix_learning_rate) for one in ALL}
    assert rates == {(3e-3, 0.03), (1e-3, 0.01), (9e-3, 0.09), (3.3e-4, 3.3e-3)}


def test_every_routing_is_on_the_bench():
    assert {str(one.model.get("routing", "em")) for one in CONTENDERS if one.preset != "baseline-cnn"} == {
        *ROUTING_NAMES
    }


def test_capsules_have_the_same_stem_and_the_same_votes():
    """Types differ only in the configurations that say so, agreeing EM alone normalises."""
    plain = PRESETS["annealed-small"]
    for one in ALL:
        if one.contender.preset == "baseline-cnn":
            continue
        network = create_model(one.settings.model.preset, **one.settings.model.changes()).config
        changed = {name for name, value in asdict(network).items() if value != getattr(plain, name)}
        allowed = {"routing", "routing_rank", "competition", "iterations", "annealing", "calibration"}
        if "types" in one.name:
            allowed |= {"conv_capsules1", "conv_capsules2"}
        if one.contender.name == "agreeing":
            allowed |= {"activation_rule", "normalisation", "class_beta_activation", "class_iterations"}
        assert changed <= allowed, one.name


def test_no_training_reads_the_test_part():
    bench = Bench(contenders=contenders_named(["em-3"]))
    trials = [trial for _, (_, trial) in search_jobs(bench)]
    finals = [trial for _, trial in final_jobs(bench, configurations(bench, bench.contenders[0])[0])]
    assert (len(trials), len(finals)) == (6 * 5, 3 * 2 * 5)
    assert {trial.settings.data.split.source for trial in (*trials, *finals)} == {"train"}
    assert {trial.settings.data.split.test_instances for trial in finals} == {(4,), (6,), (7,), (8,), (9,)}
    novel = [trial for trial in finals if is_of_elevations(trial.name)]
    assert len(novel) == 15
    assert {trial.settings.data.split.rule for trial in novel} == {"elevation"}
    # the first seed's trainings are those of the search
    assert {trial.training_folder(Path()) for trial in trials[:1]} <= {
        trial.training_folder(Path()) for trial in finals
    }


def test_the_best_configuration_is_that_of_the_lowest_log_loss_on_toys_left_out(tmp_path):
    bench = Bench(contenders=contenders_named(["em-3"]), num_configurations=3, folds=(4, 6), seeds=(0,))
    (contender,) = bench.contenders
    losses = [(1.0, 1.0), (0.2, 0.4), (0.1, None)]
    for configuration, own in zip(configurations(bench, contender), losses, strict=True):
        for fold, loss in zip((4, 6), own, strict=True):
            folder = tmp_path / configuration.name / f"fold{fold}-20epochs-seed0"
            folder.mkdir(parents=True)
            if loss is not None:
                write_json(folder / "results.json", {"looked_at_test_part": False, "test": {"log_loss": loss}})
    assert best_configuration(bench, contender, tmp_path) is None  # one is not done
    write_json(folder / "diverged.json", {})
    best = best_configuration(bench, contender, tmp_path)
    assert best is not None
    assert best.name == "em-3-full-rate1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "em-4"], "only must name rows from average, uniform"),
        (["--configurations", "7"], "configurations must be 1 to 6; got 7"),
        (["--folds", "4,5"], "folds must be different ones of 4, 6, 7, 8, 9; got [4, 5]"),
        (["--folds", "four"], "folds must be toys' numbers, such as 4,6; got 'four'"),
        (["--seeds", "0,0"], "seeds must be different; got [0, 0]"),
        (["--shard", "3/2"], "shard must be k/n with k from 1 to n; got 3/2"),
        (["--set", "model.annealing=1"], "set must not change model.annealing, which the rows of the bench set"),
        (["--recipe", "mnist"], "folds must have data whose objects are known; got data.name=mnist"),
    ],
)
def test_a_bench_that_cannot_be_is_refused_in_one_line(arguments, message, capsys):
    try:
        status = cli.main(["experiment", "routings", *arguments, "--list"])
    except SystemExit as end:
        status = end.code
    assert status in (1, 2)
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1


# --- a whole one ---

TINY = [
    *("--folds=4,6", "--configurations=2", "--seeds=0,1", "--epochs=1", "--max_train_images=10"),
    *("--max_test_images=10", "--accelerator=cpu", "--set=calibration_images=4", "--set=data.batch_size=5"),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A bench of which two rows were run."""
    base = tmp_path_factory.mktemp("bench")
    root = write_noise_norb(tmp_path_factory.mktemp("data"))
    arguments = [*TINY, f"--root={root}", f"--folder={base}"]
    assert cli.main(["experiment", "routings", "--only=stem,average", "--shard=1/2", *arguments]) == 0
    assert not list(base.rglob("*seed1"))  # the other process has not done its part of the search
    assert cli.main(["experiment", "routings", "--only=stem,average", "--shard=2/2", *arguments]) == 0
    assert cli.main(["experiment", "routings", "--only=stem,average", *arguments]) == 0
    return base


def test_its_trainings_are_those_of_the_search_and_more_seeds_of_the_best(done):
    trained = {path.parent.relative_to(done).as_posix() for path in done.rglob("results.json")}
    assert len(trained) == 2 * (2 * 2 + 2 + 4)  # rows, of each: the search, seed 1 of the best, low elevations
    for path in done.rglob("results.json"):
        assert json.loads(path.read_text())["looked_at_test_part"] is False
    measured = [json.loads(path.read_text()) for path in done.rglob("held_out.json")]
    assert len(measured) == 2 * 2 * 2
    assert {len(one["distortions"]["rotation"]) for one in measured} == {4}
    assert all("smallnorb train" in one["data_origin"] for one in measured)


def test_it_goes_on_only_as_it_was(done, capsys):
    assert cli.main(["experiment", "routings", *TINY, f"--folder={done}", "--configurations=1"]) == 1
    assert "holds a bench that was begun with other num_configurations" in capsys.readouterr().err


def test_its_table_says_what_was_run_and_what_was_not(done, tmp_path, capsys):
    assert cli.main(["table", "routings", str(done), "--output", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    table, _, _ = text.partition("\n\nError and log-loss")
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("|")}
    assert "| not run |" in lines["variational Bayes (De Sousa Ribeiro 2020)"]
    assert re.search(r"\| 69,309 \| 0, 1 \| 4 \|$", lines["no routing: the mean of the votes"])
    stem = lines["the stem with pooling, 69 K parameters"]
    assert re.search(r"[+-]\d\.\d{3} \([+-]\d\.\d{3} to [+-]\d\.\d{3}\)", stem)
    assert re.search(r"\d+\.\d → \d+\.\d \|", stem)
    assert "at most 10 images to train on" in text
    assert (tmp_path / "routings.svg").is_file()
    assert (tmp_path / "routings.md").read_text() + "\n" == text


def test_a_bench_without_a_row_has_a_table_and_no_figure(tmp_path):
    write_json(tmp_path / "bench.json", Bench().begun_with())
    gathered = gather_bench(tmp_path)
    assert make_routing_table(gathered).count("| not run |") == len(CONTENDERS)
    assert draw_routings(gathered) is None


def test_a_plan_counts_what_is_left(done, monkeypatch, capsys):
    rate = routing_rates.Rate(images_per_second=10 / 3600, num_parameters=7)
    monkeypatch.setattr(routing_rates, "measure_rate", lambda configuration, accelerator: rate)
    arguments = ["experiment", "routings", "--plan", "--only=average,vb", *TINY, f"--folder={done}"]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "| average | 7 | 0 | 0 | 0.0 |" in text
    assert "| vb | 7 | 0 | 10 | 10.0 |" in text  # ten trainings of ten images, at ten an hour


def test_a_rate_is_measured():
    (stem,) = contenders_named(["stem"])
    rate = routing_rates.measure_rate(configurations(Bench(), stem)[0], "cpu")
    assert rate.num_parameters == 69_251
    assert rate.images_per_second > 0
