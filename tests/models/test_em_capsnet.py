import pytest
import torch

from matcaps.capsules import Capsules
from matcaps.models import EMCapsNet, EMCapsNetConfig, create_model

TINY = {"stem_channels": 4, "primary_capsules": 2, "conv_capsules1": 3, "conv_capsules2": 2}


def tiny(**changes) -> EMCapsNet:
    torch.manual_seed(0)
    network = create_model("quickstart", **{**TINY, **changes})
    assert isinstance(network, EMCapsNet)
    return network


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(28, 28), (17, 40), (33, 21), (63, 17)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_image_size(padding, size, channels):
    network = tiny(stem_padding=padding, in_channels=channels, num_classes=7)
    classes = network(torch.randn(2, channels, *size))
    assert isinstance(classes, Capsules)
    assert classes.poses.shape == (2, 7, 4, 4)
    assert classes.activations.shape == (2, 7)
    assert classes.poses.isfinite().all()
    assert classes.activations.min() >= 0
    assert classes.activations.max() <= 1


@pytest.mark.parametrize(
    ("changes", "smallest"),
    [
        ({"stem_padding": "same"}, 13),
        ({"stem_padding": "valid"}, 17),
        ({"stem_padding": "same", "stem_stride": 1}, 7),
        ({"stem_padding": "valid", "stem_stride": 3, "stem_kernel_size": 4}, 22),
    ],
)
def test_smallest_image(changes, smallest):
    network = tiny(**changes)
    assert network(torch.randn(1, 1, smallest, smallest + 3)).activations.shape == (1, 10)
    for call in (network, network.layer_outputs, network.trace, network.calibrate):
        with pytest.raises(ValueError, match=f"images must have at least {smallest} rows and columns.*got"):
            call(torch.randn(1, 1, smallest + 3, smallest - 1))


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (1, 28, 28), (28, 28)])
def test_wrong_channels_or_dimensions(shape):
    network = tiny()
    for call in (network, network.layer_outputs, network.calibrate):
        with pytest.raises(ValueError, match=r"images must have shape \[B, 1, H, W\]; got "):
            call(torch.randn(shape))


def test_layer_outputs_are_the_tutorials_table():
    network = create_model("tutorial")
    outputs = network.layer_outputs(torch.randn(1, 1, 28, 28))
    assert {name: list(capsules.poses.shape[1:]) for name, capsules in outputs.items()} == {
        "primary_capsules": [14, 14, 32, 4, 4],
        "conv_capsules1": [6, 6, 32, 4, 4],
        "conv_capsules2": [4, 4, 32, 4, 4],
        "class_capsules": [10, 4, 4],
    }


def test_layer_outputs_and_trace_end_where_forward_does():
    network, images = tiny(), torch.randn(3, 1, 20, 28)
    classes, outputs, trace = network(images), network.layer_outputs(images), network.trace(images)
    assert torch.equal(outputs["class_capsules"].poses, classes.poses)
    assert torch.equal(outputs["class_capsules"].activations, classes.activations)
    assert list(trace) == ["conv_capsules1", "conv_capsules2", "class_capsules"]
    for name, states in trace.items():
        assert len(states) == network.config.iterations
        torch.testing.assert_close(states[-1].activation.reshape(outputs[name].activations.shape), outputs[name][1])


def test_a_batch_is_its_images_one_by_one():
    network, images = tiny().double(), torch.randn(3, 1, 20, 28, dtype=torch.float64)
    together = network(images)
    for index in range(3):
        alone = network(images[index : index + 1])
        torch.testing.assert_close(alone.activations[0], together.activations[index])


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_iterations(iterations):
    network = tiny(iterations=iterations)
    assert len(network.conv_capsules1.routing.inverse_temperature) == iterations
    assert network(torch.randn(1, 1, 28, 28)).poses.isfinite().all()


def test_class_capsules_with_iterations_of_their_own_are_traced_layer_by_layer():
    network, images = tiny(iterations=2, class_iterations=4, class_beta_activation="shared"), torch.rand(2, 1, 28, 28)
    assert {name: len(states) for name, states in network.trace(images).items()} == {
        "conv_capsules1": 2,
        "conv_capsules2": 2,
        "class_capsules": 4,
    }
    torch.testing.assert_close(network.trace(images)["class_capsules"][-1].activation, network(images).activations)
    network.reset_classifier(7)
    assert len(network.class_capsules.routing.inverse_temperature) == 4
    assert network.class_capsules.routing.beta_activation.shape == (1,)


def test_coordinates_options():
    images = torch.randn(2, 1, 28, 28)
    results = {}
    for coordinates in ("receptive-field", "grid", "none"):
        network = tiny(coordinates=coordinates)
        results[coordinates] = network(images).poses
        assert (network.class_capsules.coordinate_components is None) == (coordinates == "none")
    assert not torch.allclose(results["grid"], results["none"])
    assert not torch.allclose(results["receptive-field"], results["none"])
    assert torch.equal(tiny(coordinate_scale=0.0)(images).poses, results["none"])


def test_settings_reach_every_layer():
    network = tiny(competition="window", activation_rule="standardised", annealing=0.3, variance_floor=1e-2)
    for name in ("conv_capsules1", "conv_capsules2", "class_capsules"):
        routing = network.get_submodule(name).routing
        assert (routing.activation_rule, routing.annealing, routing.variance_floor) == ("standardised", 0.3, 1e-2)
    assert network.conv_capsules1.competition == network.conv_capsules2.competition == "window"
    ratio = network.class_capsules.routing.inverse_temperature / network.conv_capsules1.routing.inverse_temperature
    torch.testing.assert_close(ratio, torch.full((3,), network.config.class_temperature_ratio))


@pytest.mark.parametrize("calibration", ["beta", "full"])
@pytest.mark.parametrize("competition", ["child", "window"])
def test_calibration_leaves_half_of_each_layer_active(competition, calibration):
    network = tiny(calibration=calibration, competition=competition)
    images = torch.rand(8, 1, 28, 28)
    network.calibrate(images)
    for name, capsules in network.layer_outputs(images).items():
        if name != "primary_capsules":
            assert 0.3 < capsules.activations.mean() < 0.7, name


def test_calibration_wants_an_image():
    network = tiny()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"images must hold at least one image to calibrate by; got \[0, "):
        network.calibrate(torch.rand(0, 1, 28, 28))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_calibration_none_changes_nothing():
    network = tiny(calibration="none")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.calibrate(torch.rand(4, 1, 28, 28))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_routing_in_float32(dtype):
    network, images = tiny(), torch.rand(2, 1, 28, 28)
    with torch.autocast("cpu", dtype=dtype):
        outputs = network.layer_outputs(images)
        network(images).activations.sum().backward()
    for name, capsules in outputs.items():
        assert [tensor.dtype for tensor in capsules] == [torch.float32] * 2, name
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in network.parameters())
    torch.testing.assert_close(outputs["class_capsules"].activations, network(images).activations, atol=0.05, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    classes = tiny().to(dtype)(torch.rand(2, 1, 28, 28, dtype=dtype))
    assert all(tensor.isfinite().all() for tensor in classes)


def test_state_dict_round_trip():
    network, images = tiny(), torch.rand(4, 1, 28, 28)
    network.calibrate(images)
    fresh = EMCapsNet(network.config)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(images).activations, network(images).activations)


def test_all_parameters_learn():
    network, images = tiny(), torch.rand(4, 1, 28, 28)
    network.calibrate(images)
    classes = network(images)
    (classes.activations[:, 0].sum() + classes.poses.square().mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_config_alone_makes_a_network():
    assert EMCapsNet(EMCapsNetConfig(**TINY))(torch.rand(1, 1, 28, 28)).activations.shape == (1, 10)
