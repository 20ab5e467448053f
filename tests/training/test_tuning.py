"""A training that starts from saved weights."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import matcaps
from matcaps.models import EMCapsNet, create_model, freeze
from matcaps.models.presets import PRESETS
from matcaps.models.sources import read_config
from matcaps.training import ModelSettings, OptimizerSettings, TrainSettings, load_run, train
from matcaps.training.record import read_json, read_run_settings
from tests.support.runs import (
    AT_EVERY_STEP,
    STEPS,
    TINY,
    TINY_CNN,
    Stop,
    StoppedError,
    repeatable_metrics,
    tiny_settings,
    weights,
)

# networks of two capsules often are stuck, and that is not what these tests are about
pytestmark = pytest.mark.filterwarnings("ignore:the training seems stuck")

AVERAGED = OptimizerSettings(ema_decay=0.9, matrix_learning_rate=0.03, weight_decay=0.1, gradient_clip=2.0)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A short run, so that its network's numbers are no fresh ones."""
    return train(tiny_settings(epochs=1), tmp_path_factory.mktemp("source") / "run").folder


def tuning(source: object, freeze: tuple[str, ...] | str = (), **changes: object) -> TrainSettings:
    model = ModelSettings("quickstart", pretrained=str(source) or None, freeze=freeze)
    return tiny_settings(**{"model": model, "optimizer": AVERAGED, "epochs": 2, **changes})


def differing(one: Path, other: Path) -> set[str]:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_frozen_parts_end_bit_for_bit_as_they_began(source, tmp_path):
    result = train(tuning(source, "stem,primary,conv1"), tmp_path / "run")
    changed = {name.split(".")[0] for name in differing(source, result.folder)}
    assert changed == {"conv_capsules2", "class_capsules"}


def test_calibrated_numbers_of_kept_layers_stay(source, tmp_path):
    result = train(tuning(source), tmp_path / "run")
    changed = differing(source, result.folder)
    assert {name.split(".")[0] for name in changed} >= {"stem", "conv_capsules1", "class_capsules"}
    assert not [name for name in changed if name.endswith(("inverse_temperature", "data_scale"))]


def test_other_classes_start_the_class_layer_anew_and_calibrate_it_alone(tmp_path):
    network = create_model("quickstart", num_classes=4, **TINY.changes())
    network.calibrate(torch.rand(8, 1, 28, 28))
    network.save_pretrained(tmp_path / "source")
    frozen = ("stem", "primary", "conv1", "conv2")
    settings = tuning(tmp_path / "source", frozen, epochs=1)
    with pytest.warns(UserWarning, match=r"class_capsules starts anew \(10 classes, the weights have 4\)"):
        result = train(settings, tmp_path / "run")
    tuned, _ = load_run(result.folder)
    assert isinstance(tuned, EMCapsNet)
    assert tuned.config.num_classes == 10
    assert tuned.class_capsules.routing.data_scale != 1
    assert torch.equal(tuned.conv_capsules2.weight, network.conv_capsules2.weight)


@pytest.mark.parametrize("recalibrate", [True, False])
def test_kept_layers_are_calibrated_with_a_new_class_layer_unless_told_not_to(recalibrate, tmp_path, monkeypatch):
    network = create_model("quickstart", num_classes=4, **TINY.changes())
    network.calibrate(torch.rand(8, 1, 28, 28))
    network.save_pretrained(tmp_path / "source")
    calibrated = []
    calibrate = EMCapsNet.calibrate
    monkeypatch.setattr(EMCapsNet, "calibrate", lambda *given: calibrated.append(calibrate(*given)))
    model = ModelSettings(pretrained=str(tmp_path / "source"), freeze="conv1", recalibrate=recalibrate)
    with pytest.warns(UserWarning, match="are calibrated anew" if recalibrate else "starts anew"):
        train(tuning("", model=model, epochs=1), tmp_path / "run")
    assert calibrated == [("conv_capsules2", "class_capsules") if recalibrate else ("class_capsules",)]


def test_as_many_classes_with_other_names_start_anew(tmp_path):
    network = create_model("quickstart", **TINY.changes())
    network.calibrate(torch.rand(8, 1, 28, 28))
    network.save_pretrained(tmp_path / "source", classes=list("0123456789"))
    with pytest.warns(UserWarning, match=r"the class layer starts anew \(as many classes, but others\)"):
        train(tuning(tmp_path / "source", epochs=1), tmp_path / "run")
    with pytest.raises(ValueError, match="freeze must name parts that come from the pretrained weights whole; got cla"):
        train(tuning(tmp_path / "source", "class"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_class_iterations_of_the_weights_stand_above_the_presets_when_a_run_goes_on(source, tmp_path, monkeypatch):
    preset = PRESETS["quickstart"]
    monkeypatch.setitem(PRESETS, "quickstart", replace(preset, class_iterations=5, class_beta_activation="shared"))
    folder = tmp_path / "run"
    with pytest.raises(StoppedError):
        train(tuning(source, epochs=2), folder, callbacks=[Stop("on_train_epoch_end", STEPS)])
    train(read_run_settings(folder), folder, resume=True)
    network, _ = load_run(folder)
    assert isinstance(network, EMCapsNet)
    assert len(network.class_capsules.routing.inverse_temperature) == 3
    assert not network.class_capsules.routing.shared_beta_activation


def test_settings_say_all_that_the_weights_decided_and_results_what_they_were(source, tmp_path):
    result = train(tuning(source, ("stem",), epochs=1), tmp_path / "run")
    chosen, own = read_run_settings(result.folder).model, read_config(source)["model"]
    for name in own.keys() - {"in_channels", "num_classes", "implementation"}:
        expected = tuple(own[name]) if isinstance(own[name], list) else own[name]
        assert getattr(chosen, name) == expected, name
    origin = {"source": str(source), "sha256": chosen.pretrained_sha256}
    results = read_json(result.folder / "results.json")
    assert (results["pretrained"], results["frozen"]) == (origin, ["stem"])
    with pytest.raises(ValueError, match=r"pretrained_sha256 must be that of the weights in .*: they have changed"):
        train(tuning(source, model=replace(chosen, pretrained_sha256="0" * 64)), tmp_path / "other")


@pytest.mark.parametrize("step", [None, STEPS + 2], ids=["before the first checkpoint", "in the second epoch"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one_without_its_source(step, source, tmp_path):
    shutil.copytree(source, tmp_path / "weights")
    settings = tuning(tmp_path / "weights", "stem,primary", checkpoint_minutes=AT_EVERY_STEP)
    whole = train(settings, tmp_path / "whole")
    hook = Stop("on_train_start", 0) if step is None else Stop("on_train_batch_end", step)
    with pytest.raises(StoppedError):
        train(settings, tmp_path / "run", callbacks=[hook])
    shutil.rmtree(tmp_path / "weights")
    if step is None:
        with pytest.raises(FileNotFoundError, match="no saved model at"):
            train(settings, tmp_path / "run", resume=True)
        shutil.copytree(source, tmp_path / "weights")
    train(settings, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(whole.folder)
    assert repeatable_metrics(tmp_path / "run") == repeatable_metrics(whole.folder)


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("stem,primary,conv1,conv2,class", "parts to freeze must leave one to train"),
        ("stem,head", "parts to freeze must be of stem, primary, conv1, conv2, class; got 'head'"),
    ],
)
def test_what_cannot_be_frozen_is_refused_before_a_folder_is_made(freeze, message, source, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(tuning(source, freeze), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_freezing_random_weights_is_refused():
    with pytest.raises(ValueError, match=r"freeze must be left out without pretrained weights; got \('stem',\)"):
        ModelSettings(freeze="stem")


def test_weights_of_another_kind_are_refused(source, tmp_path):
    settings = tuning(source, model=replace(TINY_CNN, pretrained=str(source)))
    with pytest.raises(
        ValueError, match="preset must be of the kind that the pretrained weights are of, EMCapsNet; got"
    ):
        train(settings, tmp_path / "run")


def test_sizes_other_than_the_weights_are_refused(source, tmp_path):
    settings = tuning(source, model=ModelSettings(pretrained=str(source), conv_capsules1=3))
    with pytest.raises(ValueError, match="conv_capsules1 must be 2, as in the pretrained weights"):
        train(settings, tmp_path / "run")


def test_an_unfinished_run_is_no_source(source, tmp_path):
    (tmp_path / "unfinished").mkdir()
    shutil.copy(source / "settings.yaml", tmp_path / "unfinished")
    with pytest.raises(FileNotFoundError, match="has no final weights yet: finish it"):
        train(tuning(tmp_path / "unfinished"), tmp_path / "run")


def test_images_too_small_are_refused_before_a_folder_is_made(tmp_path):
    create_model("quickstart", **{**TINY.changes(), "stem_stride": 5}).save_pretrained(tmp_path / "source")
    with pytest.raises(ValueError, match="images must have at least 31 rows and columns"):
        train(tuning(tmp_path / "source"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_normalised_otherwise_are_said(source, tmp_path):
    network = matcaps.from_pretrained(source)
    description = read_config(source)
    preprocessing = {**description["preprocessing"], "normalise": "image"}
    network.save_pretrained(tmp_path / "source", classes=description["classes"], preprocessing=preprocessing)  # type: ignore[operator]
    with pytest.warns(UserWarning, match=r"normalised by 'image', these are by .*\(--data.transform.normalise image"):
        train(tuning(tmp_path / "source", epochs=1), tmp_path / "run")


def test_a_network_of_the_same_classes_and_images_starts_without_a_word(source, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        train(tuning(source, epochs=1), tmp_path / "run")


def test_a_cnn_starts_from_its_weights(tmp_path):
    first = train(tiny_settings(model=TINY_CNN, epochs=1), tmp_path / "source").folder
    model = ModelSettings("baseline-cnn", pretrained=str(first), freeze="features")
    result = train(tiny_settings(model=model, epochs=1, optimizer=AVERAGED), tmp_path / "run")
    assert {name.split(".")[0] for name in differing(first, result.folder)} == {"classifier"}


def test_training_a_network_with_a_replaced_head_counts_its_classes():
    from matcaps.layers import ClassCapsules
    from matcaps.training import Training

    network = create_model("quickstart", **TINY.changes())
    assert isinstance(network, EMCapsNet)
    network.class_capsules = ClassCapsules(2, 12)
    freeze(network, "stem")
    training = Training(tiny_settings(), network, STEPS)
    assert training.train_accuracy.num_classes == 12
