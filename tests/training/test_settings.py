import inspect
import math
import re
from dataclasses import MISSING, FrozenInstanceError, dataclass, fields, replace

import pytest
import yaml

from matcaps.data import DataSettings, SplitSettings, TransformSettings, load_data
from matcaps.experiments.differences import differences
from matcaps.models import BaselineCNNConfig, EMCapsNetConfig, list_models, model_config
from matcaps.models.config import CONFIGS
from matcaps.training import (
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    TrainSettings,
    list_recipes,
    recipe_settings,
)
from matcaps.training.module import margin_at
from matcaps.training.network_fields import network_fields
from matcaps.training.record import read_settings, write_settings
from matcaps.training.run import make_network
from tests.support.runs import TINY, tiny_settings

EVERYTHING = TrainSettings(
    recipe="mine",
    model=ModelSettings(
        "tutorial", pretrained="weights", freeze="stem, conv1", coordinate_components=(1, 2), annealing=0.5
    ),
    data=DataSettings(
        "smallnorb",
        split=SplitSettings("azimuth", train_azimuths=(0, 2)),
        transform=TransformSettings(crop=24, flip=True),
    ),
    loss=LossSettings("margin", reconstruction_weight=5e-4, margin_scale=100.0),
    optimizer=OptimizerSettings("adamw", schedule="cosine", warmup_steps=3, ema_decay=0.99, gradient_clip=2.0),
    epochs=3,
    seed=5,
    precision="bf16-mixed",
)


@pytest.mark.parametrize("settings", [EVERYTHING, *map(recipe_settings, list_recipes())], ids=lambda s: s.recipe)
def test_round_trip(settings, tmp_path):
    assert TrainSettings.from_dict(settings.to_dict()) == settings
    write_settings(tmp_path / "settings.yaml", settings.to_dict())
    assert TrainSettings.from_dict(read_settings(tmp_path / "settings.yaml")) == settings
    assert yaml.safe_load(yaml.safe_dump(settings.to_dict())) == settings.to_dict()


def test_a_run_may_go_on_with_another_implementation_and_old_settings_have_none(tmp_path):
    """They differ in rounding, as devices do."""
    with_one = replace(EVERYTHING, model=replace(EVERYTHING.model, implementation="reference"))
    assert EVERYTHING.with_incidentals_of(with_one) == with_one
    assert differences(EVERYTHING, with_one) == []
    values = EVERYTHING.to_dict()
    del values["model"]["implementation"]
    assert TrainSettings.from_dict(values).model.implementation is None
    network = make_network(
        tiny_settings(model=replace(TINY, implementation="reference")), load_data(tiny_settings().data, 0)
    )
    assert network.config.implementation == "reference"
    with pytest.raises(TypeError, match="preset 'baseline-cnn' has no setting 'implementation'"):
        model_config("baseline-cnn", **ModelSettings("baseline-cnn", implementation="native").changes())


def test_the_name_of_an_earlier_version_means_todays(tmp_path, monkeypatch):
    """Of Python's settings, of a run's file, and of the command that reads such a file."""
    from matcaps.cli import train as cli_train
    from matcaps.training.record import read_run_settings

    values = tiny_settings().to_dict()
    values["model"]["implementation"] = "triton"
    write_settings(tmp_path / "settings.yaml", values)
    assert read_run_settings(tmp_path).model.implementation == "cuda"
    assert ModelSettings("quickstart", implementation="triton").changes() == {"implementation": "cuda"}
    started = []
    monkeypatch.setattr(cli_train, "_fit", lambda settings, *rest, **options: started.append(settings) or 0)
    assert cli_train.train_command([f"--config={tmp_path / 'settings.yaml'}"]) == 0
    assert started[0].model.implementation == "cuda"


def test_defaults_are_settings():
    assert TrainSettings.from_dict({}) == TrainSettings()
    assert TrainSettings.from_dict({"model": {"annealing": 0.5}}).model == ModelSettings(annealing=0.5)


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        TrainSettings().epochs = 2  # type: ignore[misc]


@pytest.mark.parametrize("config", [EMCapsNetConfig, BaselineCNNConfig])
def test_every_field_of_a_model_can_be_set(config):
    from_data = {"in_channels", "num_classes", "image_size"}
    known = {entry.name: entry for entry in fields(ModelSettings)}
    for entry in fields(config):
        if entry.name not in from_data:
            assert entry.name in known
            assert known[entry.name].default is None
            assert getattr(entry.type, "__name__", str(entry.type)) in str(known[entry.name].type)
    assert not from_data & set(known)


def test_a_new_field_of_a_configuration_is_a_setting_with_its_description(monkeypatch):
    @dataclass(frozen=True)
    class Larger:
        """A network.

        Attributes:
            depth: layers, of ``one`` kind,
                see :class:`Thing`.
            num_classes: classes.
        """

        depth: int = 3
        num_classes: int = 10

    monkeypatch.setitem(CONFIGS, "Larger", Larger)

    @dataclass(frozen=True)
    @network_fields
    class Settings:
        """Settings.

        Args:
            preset: a name.
        """

        preset: str = "a"

    depth = {entry.name: entry for entry in fields(Settings)}["depth"]
    assert (depth.type, depth.default) == (int | None, None)
    assert "    preset: a name.\n" in (Settings.__doc__ or "")
    assert "\n    depth: layers, of one kind, see Thing.\n" in (Settings.__doc__ or "")
    assert "num_classes" not in {entry.name for entry in fields(Settings)}


def test_model_settings_have_no_others():
    models = {entry.name for config in (EMCapsNetConfig, BaselineCNNConfig) for entry in fields(config)}
    assert {entry.name for entry in fields(ModelSettings)} - models == {
        "preset",
        "pretrained",
        "pretrained_sha256",
        "freeze",
        "recalibrate",
    }


def test_every_setting_is_described():
    for settings in (ModelSettings, LossSettings, OptimizerSettings, TrainSettings):
        for entry in fields(settings):
            described = inspect.getdoc(settings) or ""
            assert re.search(rf"\n    {entry.name}: \S", described), f"{settings.__name__}.{entry.name}"
            assert entry.default is not MISSING or entry.default_factory is not MISSING


def test_changes_are_what_departs_from_the_preset():
    assert ModelSettings("paper").changes() == {}
    assert ModelSettings("paper", annealing=0.5, dropout=0.0).changes() == {"annealing": 0.5, "dropout": 0.0}


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_name_a_network_that_can_be_made(name):
    settings = recipe_settings(name)
    assert settings.recipe == name
    assert settings.model.preset in list_models()
    model_config(settings.model.preset, **settings.model.changes())


def test_issue_names_these_recipes():
    assert {"quickstart", "mnist", "fashion-mnist", "smallnorb", "smallnorb-paper"} <= set(list_recipes())


def test_unknown_recipe():
    with pytest.raises(ValueError, match=r"recipe must be one of quickstart, .*; got 'quick'"):
        recipe_settings("quick")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "training has no setting 'epoch'; it has accelerator,"),
        ({"model": {"aneling": 3}}, "model has no setting 'aneling'; it has activation_rule,"),
        ({"model": {"pretrained": 3}}, "pretrained must be a name or a folder; got 3"),
        ({"model": {"pretrained": "x", "freeze": 3}}, "freeze must be names of parts; got 3: such as stem,primary"),
        ({"model": {"pretrained": "x", "freeze": [1]}}, "freeze must be names of parts; got"),
        ({"model": {"pretrained_sha256": "0"}}, "pretrained_sha256 must be left out without pretrained weights"),
        ({"loss": {"size": 3}}, "loss has no setting 'size'"),
        ({"data": {"nam": "mnist"}}, "data has the unknown setting 'nam'"),
        ({"model": 3}, "model must be a mapping of names to values; got int"),
        ({"data": [1]}, "data must be a mapping of names to values; got list"),
        ({"optimizer": None}, "optimizer must be a mapping of names to values; got NoneType"),
        ([], "training settings must be a mapping of names to values; got list"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; got 0"),
        ({"epochs": 2.5}, "epochs must be a whole number of at least 1; got 2.5"),
        ({"devices": True}, "devices must be a whole number of at least 1; got True"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"precision": "16"}, "precision must be one of 32-true, bf16-mixed; got '16'"),
        ({"accelerator": "tpu"}, "accelerator must be one of auto, cpu, gpu; got 'tpu'"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes must be positive; got 0"),
        ({"checkpoint_minutes": "ten"}, "checkpoint_minutes must be positive; got 'ten'"),
        ({"loss": {"name": "hinge"}}, "name must be one of spread, margin, cross-entropy; got 'hinge'"),
        ({"loss": {"margin": 1.5}}, r"margin must lie in \[0, 1\]; got 1.5"),
        ({"loss": {"margin_epochs": math.inf}}, "margin_epochs must be positive; got inf"),
        ({"loss": {"reconstruction_weight": -1}}, "reconstruction_weight must be 0 or more; got -1"),
        ({"optimizer": {"name": "sgd"}}, "name must be one of adam, adamw; got 'sgd'"),
        ({"optimizer": {"learning_rate": math.nan}}, "learning_rate must be positive; got nan"),
        ({"optimizer": {"weight_decay": -0.1}}, "weight_decay must be 0 or more; got -0.1"),
        ({"optimizer": {"warmup_steps": -1}}, "warmup_steps must be 0 or more; got -1"),
        ({"optimizer": {"ema_decay": 1.0}}, "ema_decay must lie between 0 and 1, or be None; got 1.0"),
        ({"optimizer": {"gradient_clip": 0}}, "gradient_clip must be positive; got 0"),
        ({"optimizer": {"schedule": "step"}}, "schedule must be one of constant, exponential, cosine, linear"),
        ({"recipe": "../../elsewhere"}, "recipe must be a name without a path, since a run's folder is named by it"),
        ({"recipe": 3}, "recipe must be a name without a path"),
        ({"checkpoint_minutes": 10**400}, "checkpoint_minutes must be positive; got 1000"),
        ({"data": {"split": {"validation_fraction": 10**400}}}, "validation_fraction must be a number from 0 to"),
        ({"optimizer": {"decay_steps": 0}}, "decay_steps must be positive; got 0"),
    ],
)
def test_bad_settings(values, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings.from_dict(values)


@pytest.mark.parametrize("content", ["", "- 1", "3"])
def test_settings_file_without_settings(tmp_path, content):
    (tmp_path / "s.yaml").write_text(content)
    with pytest.raises(ValueError, match="must hold a mapping of settings; got"):
        read_settings(tmp_path / "s.yaml")


def test_settings_file_that_is_not_yaml(tmp_path):
    (tmp_path / "s.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="is not YAML"):
        read_settings(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="is not YAML"):
        read_settings(tmp_path / "s.yaml")
    with pytest.raises(FileNotFoundError, match=r"no none.yaml in"):
        read_settings(tmp_path / "none.yaml")


def factors(settings: OptimizerSettings, *steps: int, total: int = 100) -> list[float]:
    return [settings.factor(step, total) for step in steps]


def test_learning_rate_factors():
    assert factors(OptimizerSettings(), 0, 50, 99) == [1, 1, 1]
    exponential = OptimizerSettings(schedule="exponential", decay_rate=0.96, decay_steps=20_000)
    assert factors(exponential, 0, 20_000, 30_000) == pytest.approx([1, 0.96, 0.96**1.5])
    cosine = OptimizerSettings(schedule="cosine")
    assert factors(cosine, 0, 25, 50, 100) == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])
    linear = OptimizerSettings(schedule="linear")
    assert factors(linear, 0, 25, 50, 100, 200) == pytest.approx([1, 0.75, 0.5, 0, 0])


@pytest.mark.parametrize("schedule", ["constant", "exponential", "cosine", "linear"])
def test_warm_up(schedule):
    settings = OptimizerSettings(schedule=schedule, warmup_steps=4)
    plain = replace(settings, warmup_steps=0)
    rising = factors(settings, 0, 1, 2, 3, 4)
    assert rising[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8], rel=1e-3)
    assert rising[4] == pytest.approx(plain.factor(0, 96), rel=1e-3)
    assert factors(settings, 4 + 48)[0] == pytest.approx(plain.factor(48, 96), rel=1e-3)


def test_schedules_stay_between_0_and_1():
    for schedule in ("constant", "exponential", "cosine", "linear"):
        for warmup in (0, 5, 500):
            settings = OptimizerSettings(schedule=schedule, warmup_steps=warmup, decay_steps=10)
            assert all(0 <= value <= 1 for value in factors(settings, *range(0, 120, 7)))


def test_margins_of_a_run():
    assert [margin_at(LossSettings(), step, 10, 100) for step in (0, 9, 10, 70, 99)] == [0.2, 0.2, 0.3, 0.9, 0.9]
    half = LossSettings(margin_epochs=3.5)
    assert [margin_at(half, step, 10, 100) for step in (0, 4, 5, 35)] == [0.2, 0.2, 0.3, 0.9]
    constant = LossSettings(margin_schedule="constant", margin=0.4)
    assert [margin_at(constant, step, 10, 100) for step in (0, 99)] == [0.4, 0.4]
    authors = LossSettings(margin_schedule="authors")
    assert margin_at(authors, 400, 100, 4000) == pytest.approx(0.595)  # a tenth of the run: σ's middle
    assert margin_at(authors, 3999, 100, 4000) == pytest.approx(0.99, abs=1e-3)
    scaled = LossSettings(margin_schedule="authors", margin_scale=50_000.0)
    assert margin_at(scaled, 200_000, 100, 10**6) == pytest.approx(0.595)
