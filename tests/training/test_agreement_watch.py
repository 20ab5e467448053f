"""What routing does for the true class, logged while a network trains: measured, not repeated, and of no effect."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from matcaps.data import load_data
from matcaps.inspect import routing_agreement
from matcaps.training import LossSettings, OptimizerSettings, load_run, train
from matcaps.training.loop import Callback
from matcaps.training.record import read_metrics
from matcaps.training.run import _watched
from matcaps.training.settings import INCIDENTAL
from tests.support.runs import TINY, TINY_CNN, Stop, StoppedError, repeatable_metrics, tiny_settings, weights

AVERAGED = OptimizerSettings(ema_decay=0.9)
BY_ITERATION = ("share_true", "log_deviation_gap", "nearest_is_true", "accuracy")
NAMES = {
    *(f"agreement/{name}_{iteration}" for name in BY_ITERATION for iteration in (1, 2, 3)),
    *(f"agreement/changed_{iteration}" for iteration in (2, 3)),
    *(
        f"{end}/{layer}"
        for end in ("below_0.01", "above_0.99")
        for layer in ("primary_capsules", "conv_capsules1", "conv_capsules2", "class_capsules")
    ),
}


def measured(folder) -> list[dict[str, str]]:
    """The measures in each row of metrics.csv."""
    return [
        {name: value for name, value in row.items() if name in NAMES and value}
        for row in read_metrics(folder / "metrics.csv")
    ]


@pytest.fixture(scope="module")
def settings():
    return tiny_settings(optimizer=AVERAGED, epochs=5, agreement_every=2, views_every=0)


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    return train(settings, tmp_path_factory.mktemp("runs") / "run").folder


def test_epochs_with_a_look_have_the_measures_and_the_others_none(run):
    assert [set(row) for row in measured(run)] == [set(), NAMES, set(), NAMES, NAMES]  # the last epoch always
    assert measured(run)[1] != measured(run)[3]


def test_tensorboard_has_the_same_points(run):
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for name in NAMES:
        found = [(point.step, point.value) for point in events.Scalars(name)]
        assert [step for step, _ in found] == [9, 19, 24]
        expected = [float(row[name]) for row in measured(run) if row]
        assert [value for _, value in found] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_they_are_the_averaged_weights_measures_on_the_validation_part(run):
    network, settings = load_run(run)
    bundle = load_data(settings.data, settings.seed)
    expected = routing_agreement(network, bundle.loader("validation"))
    last, final = measured(run)[-1], json.loads((run / "results.json").read_text())["agreement"]
    assert final["part"] == "validation"
    assert final["num_images"] == expected.num_images == len(bundle.validation)
    for name in BY_ITERATION:
        values = getattr(expected, name)
        assert final[name] == pytest.approx(values, rel=1e-4, abs=1e-5)
        logged = [float(last[f"agreement/{name}_{iteration}"]) for iteration in (1, 2, 3)]
        assert logged == pytest.approx(values, rel=1e-4, abs=1e-5)
    assert float(last["above_0.99/conv_capsules2"]) == pytest.approx(expected.layers["conv_capsules2"].share_high)


def test_without_a_validation_part_the_training_part_is_measured(tmp_path):
    base = tiny_settings(epochs=1, views_every=0)
    settings = replace(base, data=replace(base.data, split=replace(base.data.split, validation_fraction=0.0)))
    folder = train(settings, tmp_path / "run").folder
    found = json.loads((folder / "results.json").read_text())["agreement"]
    assert (found["part"], found["num_images"]) == ("train", 40)


@pytest.mark.parametrize("count", [1, 7, 39, 40, 256])
def test_images_are_spread_over_the_whole_part(count):
    """Images in folders come class by class: the first would show the first classes alone."""
    bundle = load_data(tiny_settings().data)
    whole = len(bundle.validation)
    places = [bundle.validation.indices.tolist().index(one) for one in _watched(bundle, count).indices.tolist()]
    assert len(set(places)) == min(count, whole)
    steps = {after - before for before, after in itertools.pairwise([*places, whole])}
    assert max(steps) - min(steps) <= 1


def test_the_training_is_the_same_to_the_bit_without(run, settings, tmp_path):
    without = train(replace(settings, agreement_every=0), tmp_path / "without").folder
    assert weights(without) == weights(run)
    others = [{name: row[name] for name in row if name not in NAMES} for row in repeatable_metrics(run)]
    assert repeatable_metrics(without) == others
    assert "agreement" not in json.loads((without / "results.json").read_text())


def test_looks_leave_running_statistics_alone(tmp_path):
    settings = tiny_settings(
        model=replace(TINY, normalisation="batch", activation_rule="relative"),
        optimizer=AVERAGED,
        epochs=2,
        views_every=0,
        agreement_every=1,
    )
    looked_at = train(settings, tmp_path / "run").folder
    assert weights(train(replace(settings, agreement_every=0), tmp_path / "without").folder) == weights(looked_at)
    network, settings = load_run(looked_at)
    bundle = load_data(settings.data, settings.seed)
    expected = routing_agreement(network, bundle.loader("validation"))
    last, final = measured(looked_at)[-1], json.loads((looked_at / "results.json").read_text())["agreement"]
    assert final["log_deviation_gap"] == pytest.approx(expected.log_deviation_gap, abs=1e-4)
    assert float(last["agreement/log_deviation_gap_3"]) == pytest.approx(expected.log_deviation_gap[-1], abs=1e-4)


def test_looks_draw_no_random_number(run, tmp_path):
    states: list[torch.Tensor] = []

    class Watch(Callback):
        def on_train_end(self, loop, training):
            states.append(torch.get_rng_state())

    for every in (0, 1):
        settings = tiny_settings(epochs=2, agreement_every=every, views_every=0)
        train(settings, tmp_path / str(every), callbacks=[Watch()])
    assert torch.equal(*states)


@pytest.mark.parametrize("step", [10, 12])
def test_a_resumed_run_has_the_same_measures(run, settings, step, tmp_path):
    hook = "on_train_epoch_start" if step == 10 else "on_train_batch_start"
    with pytest.raises(StoppedError):
        train(replace(settings, checkpoint_minutes=1e-6), tmp_path / "run", callbacks=[Stop(hook, step)])
    train(settings, tmp_path / "run", resume=True)
    assert measured(tmp_path / "run") == measured(run)
    assert weights(tmp_path / "run") == weights(run)


def test_a_cnn_has_no_routing_to_measure(tmp_path):
    loss = LossSettings(name="cross-entropy")
    folder = train(tiny_settings(model=TINY_CNN, loss=loss, epochs=1, agreement_every=1), tmp_path / "cnn").folder
    assert measured(folder) == [{}]
    assert "agreement" not in json.loads((folder / "results.json").read_text())


def test_a_run_may_go_on_with_another_pace():
    assert "agreement_every" in INCIDENTAL


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_refuses_other_than_whole_numbers(value):
    with pytest.raises(ValueError, match="agreement_every must be a whole number of at least 0"):
        tiny_settings(agreement_every=value)
