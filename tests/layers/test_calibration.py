import pytest
import torch

from matcaps import create_model
from matcaps.capsules import Capsules
from matcaps.data import DataSettings, load_data
from matcaps.layers import CALIBRATIONS, ClassCapsules, ConvCapsules, calibration


def make_layers(activation_rule: str = "paper") -> list[ConvCapsules | ClassCapsules]:
    torch.manual_seed(0)
    options = {"activation_rule": activation_rule, "annealing": 1 / 16}
    return [
        ConvCapsules(4, 6, stride=2, **options),
        ConvCapsules(4, 6, competition="window", **options),
        ClassCapsules(4, 10, **options),
    ]


@pytest.fixture
def capsules() -> Capsules:
    generator = torch.Generator().manual_seed(1)
    poses = 0.3 * torch.randn(16, 9, 8, 4, 4, 4, generator=generator)
    return Capsules(poses, torch.rand(16, 9, 8, 4, generator=generator))


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("rule", ["paper", "standardised"])
@pytest.mark.parametrize("calibration", ["beta", "full"])
def test_about_half_of_the_capsules_are_active(index, rule, calibration, capsules):
    layer = make_layers(rule)[index]
    routed = layer.calibrate(capsules, calibration=calibration)
    assert 0.3 < (routed.activations > 0.5).float().mean() < 0.7
    assert 0.3 < routed.activations.mean() < 0.7


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_calibrate_returns_what_the_layer_then_makes(index, calibration, capsules):
    layer = make_layers()[index]
    for one, other in zip(layer.calibrate(capsules, calibration=calibration), layer(capsules), strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad


@pytest.mark.parametrize("index", range(3))
def test_none_changes_nothing(index, capsules):
    layer, same = make_layers()[index], make_layers()[index]
    layer.calibrate(capsules, calibration="none")
    for name, value in layer.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name


@pytest.mark.parametrize("index", range(3))
def test_beta_leaves_weights_and_temperatures(index, capsules):
    layer, same = make_layers()[index], make_layers()[index]
    layer.calibrate(capsules, calibration="beta")
    assert torch.equal(layer.weight, same.weight)
    assert torch.equal(layer.routing.inverse_temperature, same.routing.inverse_temperature)
    assert not torch.equal(layer.routing.beta_activation, same.routing.beta_activation)


@pytest.mark.parametrize("index", range(3))
def test_full_sets_the_scale_of_poses(index, capsules):
    layer = make_layers()[index]
    routed = layer.calibrate(capsules, calibration="full")
    assert 0.7 < routed.poses.std() < 1.4
    # The number does not depend on the units of what comes in.
    larger = make_layers()[index]
    routed = larger.calibrate(Capsules(30 * capsules.poses, capsules.activations), calibration="full")
    assert 0.7 < routed.poses.std() < 1.4


@pytest.mark.parametrize("index", range(3))
def test_full_keeps_the_schedule_and_leaves_it_finite(index, capsules):
    layer, same = make_layers()[index], make_layers()[index]
    layer.calibrate(capsules, calibration="full")
    temperature = layer.routing.inverse_temperature
    assert temperature.isfinite().all()
    assert (temperature > 0).all()
    before = same.routing.inverse_temperature
    torch.testing.assert_close(temperature / temperature[-1], before / before[-1])


@pytest.mark.parametrize("index", range(3))
def test_blank_input_stays_finite(index, capsules):
    layer = make_layers()[index]
    blank = Capsules(torch.zeros_like(capsules.poses), torch.full_like(capsules.activations, 0.5))
    routed = layer.calibrate(blank, calibration="full")
    assert all(tensor.isfinite().all() for tensor in (*routed, *layer.state_dict().values()))


@pytest.mark.parametrize("index", range(3))
def test_unknown_calibration(index, capsules):
    with pytest.raises(ValueError, match=r"calibration must be one of .*; got 'some'"):
        make_layers()[index].calibrate(capsules, calibration="some")


@pytest.mark.parametrize("schedule", [[], [0.0], [-1.0, 1.0], 1.0, [float("inf")]])
def test_inverse_temperature_is_checked_when_a_layer_is_made(schedule):
    with pytest.raises(ValueError, match="inverse_temperature must be a sequence of positive, finite numbers"):
        ConvCapsules(2, 2, inverse_temperature=schedule)


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("calibration", ["beta", "full"])
def test_under_the_standardised_rule_no_type_is_ahead_at_every_image(index, calibration, capsules):
    """Standardised costs tell types apart: without a reward of its own for each, some are always on and others off."""

    def means(layer: ConvCapsules | ClassCapsules) -> torch.Tensor:
        with torch.no_grad():
            return layer(capsules).activations.flatten(0, -2).mean(dim=0)

    def mean_logits(layer: ConvCapsules | ClassCapsules) -> torch.Tensor:
        with torch.no_grad():
            return layer(capsules).activations.logit().flatten(0, -2).mean(dim=0)

    layer = make_layers("standardised")[index]
    schedule = layer.routing.inverse_temperature.clone()
    layer.calibrate(capsules, calibration=calibration)
    assert (means(layer) - 0.5).abs().max() < 0.3
    if calibration == "full":  # standardised costs have standard deviation 1, and their logits are to have it, too
        torch.testing.assert_close(layer.routing.inverse_temperature, schedule / schedule[-1])
    else:
        assert torch.equal(layer.routing.inverse_temperature, schedule)  # the tutorial's 1, 2, 3 stay
    after = mean_logits(layer)
    with torch.no_grad():
        layer.routing.beta_activation.zero_()
    assert after.std() < mean_logits(layer).std() / 3


def stripes(seed: int) -> torch.Tensor:
    """24 images of textures: stripes of three directions, each with mean 0 and standard deviation 1."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images = []
    for number in range(24):
        width, start = torch.rand(2, generator=random).tolist()
        along = (rows, columns, rows + columns)[number % 3]
        noise = 0.25 * torch.randn(32, 32, generator=random)
        images.append(torch.sin(along * (0.5 + 0.7 * width) + 6 * start) + noise)
    stacked = torch.stack(images)[:, None]
    return (stacked - stacked.mean((1, 2, 3), keepdim=True)) / stacked.std((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("seed", range(4))
def test_textures_leave_no_layer_saturated(seed):
    torch.manual_seed(seed)
    network = create_model("quickstart", in_channels=1, num_classes=3)
    images = stripes(seed)
    network.calibrate(images)
    with torch.no_grad():
        for name, capsules in network.layer_outputs(images).items():
            saturated = ((capsules.activations < 0.01) | (capsules.activations > 0.99)).float().mean()
            assert saturated <= 0.25, name


def test_the_slow_way_is_for_saturated_layers_alone(monkeypatch):
    monkeypatch.setattr(calibration, "_settle", lambda *_: pytest.fail("calibrated slowly"))
    images = load_data(DataSettings("embedded")).train.images[:32] / 255
    create_model("quickstart", in_channels=1, num_classes=10).calibrate(images)


def test_a_layer_that_stays_saturated_is_warned_of(monkeypatch):
    monkeypatch.setattr(calibration, "_is_saturated", lambda _: True)
    network = create_model("quickstart", in_channels=1, num_classes=3)
    with pytest.warns(UserWarning, match="after calibration a quarter of a capsule layer"):
        network.calibrate(torch.rand(4, 1, 28, 28))
