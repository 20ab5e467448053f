import json

import numpy as np
import pytest
import torch

import matcaps
from matcaps.layers import ClassCapsules, ConvCapsules, PrimaryCapsules
from matcaps.models import BaselineCNN, BaselineCNNConfig, EMCapsNet, EMCapsNetConfig, create_model, model_config


def test_list_models():
    assert {"tutorial", "paper", "paper-small", "quickstart", "baseline-cnn"} <= set(matcaps.list_models())


@pytest.mark.parametrize("preset", matcaps.list_models())
def test_every_preset_runs(preset):
    network = create_model(preset)
    assert network.training
    config = network.config
    size = config.image_size if isinstance(config, BaselineCNNConfig) else (28, 28)
    output = network(torch.randn(2, config.in_channels, *size))
    scores = output if isinstance(network, BaselineCNN) else output.activations
    assert scores.shape == (2, config.num_classes)
    assert scores.isfinite().all()


@pytest.mark.parametrize(
    ("preset", "count"),
    [("tutorial", 318_964), ("paper", 317_194), ("paper-small", 68_754), ("baseline-cnn", 4_253_349)],
)
def test_parameter_counts(preset, count):
    assert sum(parameter.numel() for parameter in create_model(preset).parameters()) == count


@pytest.mark.parametrize("preset", ["agreement", "agreement-small", "agreement-tutorial"])
def test_presets_of_agreement_are_normalised_and_start_alive(preset):
    network = create_model(preset)
    assert (network.config.activation_rule, network.config.normalisation) == ("relative", "batch")
    network.calibrate(torch.rand(8, network.config.in_channels, 28, 28))
    for capsules in network.eval().layer_outputs(torch.rand(8, network.config.in_channels, 28, 28)).values():
        assert 0.1 < float(capsules.activations.detach().mean()) < 0.9


def test_normalisation_wants_the_relative_rule():
    with pytest.raises(ValueError, match="activation_rule must be 'relative' with normalisation 'batch'; got 'paper'"):
        create_model("paper-small", normalisation="batch")


@pytest.mark.parametrize("preset", ["tutorial", "paper", "paper-small"])
def test_published_presets_are_as_published(preset):
    config = model_config(preset)
    assert config.annealing == 1
    assert config.variance_floor == 5e-4
    assert config.iterations == 3
    assert config.coordinate_scale == 1
    if preset == "tutorial":
        assert (config.competition, config.activation_rule) == ("window", "standardised")
        assert config.inverse_temperature == config.class_inverse_temperature == (1, 2, 3)
        assert (config.coordinates, config.coordinate_components) == ("grid", (0, 1))
    else:
        assert (config.competition, config.activation_rule) == ("child", "paper")
        assert config.inverse_temperature == pytest.approx((5.0e-4, 9.75e-4, 1.42625e-3))
        assert config.class_inverse_temperature == pytest.approx((1.25e-4, 2.4375e-4, 3.565625e-4))
        assert (config.coordinates, config.coordinate_components) == ("receptive-field", (3, 7))


@pytest.mark.parametrize(("iterations", "expected"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (5, (1, 1.5, 2, 2.5, 3))])
def test_tutorial_temperatures(iterations, expected):
    assert EMCapsNetConfig(iterations=iterations, temperature_schedule="tutorial").inverse_temperature == expected


@pytest.mark.parametrize("schedule", ["authors", "tutorial"])
def test_class_capsules_may_have_iterations_of_their_own(schedule):
    config = EMCapsNetConfig(iterations=2, class_iterations=5, temperature_schedule=schedule)
    same = EMCapsNetConfig(iterations=5, temperature_schedule=schedule)
    assert config.class_inverse_temperature == same.class_inverse_temperature
    assert (
        config.inverse_temperature == EMCapsNetConfig(iterations=2, temperature_schedule=schedule).inverse_temperature
    )


def test_create_model_with_changes():
    network = matcaps.create_model("paper-small", in_channels=3, num_classes=7, annealing=1 / 16, iterations=2)
    assert isinstance(network, EMCapsNet)
    assert network.config == model_config("paper-small", in_channels=3, num_classes=7, annealing=1 / 16, iterations=2)
    assert network(torch.randn(1, 3, 32, 32)).activations.shape == (1, 7)


def test_fresh_weights_each_time_and_the_seed_decides():
    torch.manual_seed(0)
    first, second = create_model("paper-small"), create_model("paper-small")
    torch.manual_seed(0)
    again = create_model("paper-small")
    assert not torch.equal(first.class_capsules.weight, second.class_capsules.weight)
    assert torch.equal(first.class_capsules.weight, again.class_capsules.weight)


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"preset must be one of .*'paper-small'.*; got 'papper'"):
        create_model("papper")


@pytest.mark.parametrize(("preset", "name"), [("paper", "dropout"), ("baseline-cnn", "annealing")])
def test_unknown_setting(preset, name):
    with pytest.raises(TypeError, match=f"preset '{preset}' has no setting '{name}'; it has in_channels"):
        create_model(preset, **{name: 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number of at least 1; got 0"),
        ({"class_iterations": 0}, "class_iterations must be a whole number of at least 1; got 0"),
        ({"class_iterations": "5"}, "class_iterations must be a whole number of at least 1; got '5'"),
        ({"class_beta_activation": "one"}, r"class_beta_activation must be one of \('each', 'shared'\); got 'one'"),
        ({"num_classes": True}, "num_classes must be a whole number of at least 2; got True"),
        (
            {"num_classes": 1},
            "num_classes must be a whole number of at least 2; got 1: a network distinguishes at least",
        ),
        ({"num_classes": "7"}, "num_classes must be a whole number of at least 2; got '7'"),
        ({"in_channels": -1}, "in_channels must be a whole number of at least 1; got -1: give the images' channels"),
        ({"in_channels": 1.0}, "in_channels must be a whole number of at least 1; got 1.0"),
        ({"annealing": "soft"}, "annealing must be positive; got 'soft': give a finite number above 0"),
        ({"annealing": True}, "annealing must be positive; got True"),
        ({"annealing": float("inf")}, "annealing must be positive; got inf"),
        ({"class_weight_deviation": -0.1}, "class_weight_deviation must be positive; got -0.1"),
        ({"coordinate_components": 3}, "coordinate_components must be whole numbers; got 3"),
        ({"coordinate_components": (True, 3)}, r"coordinate_components must be whole numbers; got \(True, 3\)"),
        ({"coordinate_scale": True}, "coordinate_scale must be a finite number; got True"),
        ({"stem_padding": ["same"]}, r"stem_padding must be one of .*; got \['same'\]"),
        ({"iterations": 2.0}, "iterations must be a whole number of at least 1; got 2.0"),
        ({"annealing": 0}, "annealing must be positive; got 0"),
        ({"variance_floor": float("nan")}, "variance_floor must be positive; got nan"),
        ({"competition": "none"}, r"competition must be one of \('child', 'window'\); got 'none'"),
        ({"stem_padding": "full"}, r"stem_padding must be one of \('valid', 'same'\); got 'full'"),
        ({"coordinates": "polar"}, "coordinates must be one of"),
        ({"coordinate_components": (3, 3)}, "coordinate_components must be two different components"),
        ({"calibration": "half"}, "calibration must be one of"),
        ({"implementation": "opencl"}, r"implementation must be one of \('auto', .*, 'compiled'\); got 'opencl'"),
        ({"activation_rule": "softmax"}, "activation_rule must be one of"),
        ({"temperature_schedule": "hot"}, "temperature_schedule must be one of"),
    ],
)
def test_bad_capsule_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        create_model("paper-small", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (32, 2)}, r"image_size must be rows and columns, at least 4 each; got \(32, 2\)"),
        ({"image_size": (32,)}, "image_size must be rows and columns"),
        ({"image_size": "32"}, "image_size must be rows and columns, at least 4 each; got '32'"),
        ({"image_size": True}, "image_size must be rows and columns, at least 4 each; got True"),
        ({"image_size": -32}, "image_size must be rows and columns, at least 4 each; got -32"),
        ({"image_size": (32.0, 32)}, "image_size must be rows and columns"),
        ({"image_size": (32, None)}, "image_size must be rows and columns"),
        ({"dropout": "half"}, r"dropout must lie in \[0, 1\); got 'half'"),
        ({"dropout": True}, r"dropout must lie in \[0, 1\); got True"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1.0"),
        ({"hidden_units": 0}, "hidden_units must be a whole number of at least 1; got 0"),
    ],
)
def test_bad_cnn_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        create_model("baseline-cnn", **changes)


@pytest.mark.parametrize("preset", [3, None, ["paper"]])
def test_a_preset_that_is_no_name(preset):
    with pytest.raises(ValueError, match="preset must be one of"):
        create_model(preset)


def test_numbers_of_numpy_and_torch_become_plain_ones():
    config = model_config("paper", num_classes=np.int64(7), in_channels=torch.tensor(3), annealing=np.float32(0.5))
    assert config == model_config("paper", num_classes=7, in_channels=3, annealing=0.5)
    assert json.dumps(vars(config))


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3", None])
def test_counts_of_layers_are_checked_when_a_layer_is_made(value):
    for make, name in (
        (lambda: ConvCapsules(value, 2), "in_capsules"),
        (lambda: ConvCapsules(2, value), "num_capsules"),
        (lambda: ConvCapsules(2, 2, kernel_size=value), "kernel_size"),
        (lambda: ConvCapsules(2, 2, stride=value), "stride"),
        (lambda: ClassCapsules(value, 2), "in_capsules"),
        (lambda: ClassCapsules(2, value), "num_classes"),
        (lambda: PrimaryCapsules(2, value), "num_capsules"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1; got {value!r}"):
            make()


def test_configurations_are_frozen_values():
    assert BaselineCNNConfig(image_size=[28, 28]) == BaselineCNNConfig(image_size=(28, 28))
    assert hash(EMCapsNetConfig(coordinate_components=[0, 1])) == hash(EMCapsNetConfig(coordinate_components=(0, 1)))
    with pytest.raises(AttributeError):
        EMCapsNetConfig().annealing = 2
