"""Fine-tuning: what fits of pretrained weights is kept, the rest starts anew, and it is said."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import matcaps
from matcaps.models import BaselineCNN, EMCapsNet, create_model, model_config
from matcaps.models.transfer import adapt_channels
from tests.support.presets import TINY

IMAGES = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def trained(preset: str = "annealed-small") -> EMCapsNet | BaselineCNN:
    """A network whose every number is one that no fresh network has."""
    if preset == "baseline-cnn":
        network = create_model(preset, **TINY["baseline-cnn"])
    else:
        network = create_model(preset, in_channels=1, **TINY["quickstart"])
        network.calibrate(IMAGES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return network.eval()


def save(network: EMCapsNet | BaselineCNN, folder: Path) -> str:
    network.save_pretrained(folder)
    return str(folder)


def differing(network: torch.nn.Module, other: torch.nn.Module) -> set[str]:
    """The layers whose numbers differ."""
    state, others = network.state_dict(), other.state_dict()
    return {
        name.split(".")[0]
        for name, value in state.items()
        if value.shape != others[name].shape or not torch.equal(value, others[name])
    }


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_other_classes_keep_every_layer_but_the_class_layer_and_say_so(tmp_path):
    network = trained()
    with pytest.warns(UserWarning, match=r"class_capsules starts anew \(7 classes, the weights have 5\); call calib"):
        tuned = matcaps.from_pretrained(save(network, tmp_path), num_classes=7)
    assert isinstance(tuned, EMCapsNet)
    assert differing(tuned, network) == {"class_capsules"}
    assert (tuned.config.num_classes, tuned.num_classes, tuned.training) == (7, 7, False)
    assert tuned.class_capsules.routing.is_untouched()
    assert tuned(IMAGES).activations.shape == (6, 7)


def test_as_many_classes_keep_everything_and_say_nothing(tmp_path, quiet):
    network = trained()
    assert not differing(matcaps.from_pretrained(save(network, tmp_path), num_classes=5, in_channels=1), network)


def test_calibration_sets_the_new_layer_alone(tmp_path):
    network = trained()
    with pytest.warns(UserWarning, match="starts anew"):
        tuned = EMCapsNet.from_pretrained(save(network, tmp_path), num_classes=3)
    assert tuned.new_layers() == ("class_capsules",)
    assert tuned.calibrate(IMAGES) == ("class_capsules",)
    assert differing(tuned, network) == {"class_capsules"}
    assert 0.3 < tuned(IMAGES).activations.mean() < 0.7
    assert tuned.new_layers() == ()


def test_calibration_leaves_a_loaded_network_alone_and_says_so(tmp_path):
    network = trained()
    loaded = EMCapsNet.from_pretrained(save(network, tmp_path))
    with pytest.warns(UserWarning, match="calibrate changed no layer"):
        assert loaded.calibrate(IMAGES) == ()
    assert not differing(loaded, network)


def test_calibration_of_named_layers_sets_them_whatever_they_hold():
    network, same = trained(), trained()
    same.load_state_dict(network.state_dict())
    assert network.calibrate(IMAGES, ["class_capsules", "conv_capsules1"]) == ("conv_capsules1", "class_capsules")
    assert differing(network, same) == {"conv_capsules1", "class_capsules"}


def test_calibration_refuses_layers_that_are_none_or_frozen():
    network = trained()
    with pytest.raises(ValueError, match=r"layers must be names from conv_capsules1, .*got 'stem'"):
        network.calibrate(IMAGES, ["stem"])
    network.conv_capsules1.requires_grad_(False)
    with pytest.raises(ValueError, match="that are not frozen, or 'all'; got 'conv_capsules1'"):
        network.calibrate(IMAGES, "conv_capsules1")
    assert network.calibrate(IMAGES, "all") == ("conv_capsules2", "class_capsules")


def test_reset_classifier_starts_the_class_layer_anew_for_as_many_classes_too():
    for network in (trained(), trained("baseline-cnn")):
        layer = "class_capsules" if isinstance(network, EMCapsNet) else "classifier"
        for count in (network.num_classes, 9):
            same = {name: value.clone() for name, value in network.state_dict().items()}
            network.reset_classifier(count)
            state = network.state_dict()
            changed = {name.split(".")[0] for name in state if not torch.equal(state[name], same[name])}
            assert changed == {layer}
            assert network.num_classes == network.config.num_classes == count
            assert not network.training
        with pytest.raises(
            ValueError, match="num_classes must be a whole number of at least 2; got 0: a network distinguishes"
        ):
            network.reset_classifier(0)


def test_one_channel_is_the_sum_over_the_channels_that_were():
    network = matcaps.from_pretrained("paper-small-smallnorb")
    with pytest.warns(UserWarning, match="the first convolution's 2 channels are summed into one"):
        tuned = matcaps.from_pretrained("paper-small-smallnorb", in_channels=1)
    images = torch.rand(2, 1, 32, 32)
    for one, other in zip(tuned(images), network(images.repeat(1, 2, 1, 1)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_more_channels_repeat_the_weights_and_keep_sums_as_large(channels):
    weight = torch.randn(4, 2, 5, 5)
    adapted = adapt_channels(weight, channels)
    assert adapted.shape == (4, channels, 5, 5)
    for channel in range(channels):
        torch.testing.assert_close(adapted[:, channel], weight[:, channel % 2] * 2 / channels)
    grey = torch.rand(1, 1, 9, 9)

    def answer(weight: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(grey.expand(1, weight.shape[1], 9, 9), weight)

    alike = weight[:, :1].repeat(1, 2, 1, 1)
    torch.testing.assert_close(answer(adapt_channels(alike, channels)), answer(alike))


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_other_iterations_keep_the_scale_that_calibration_found(iterations, tmp_path):
    network = trained()
    with pytest.warns(UserWarning, match=f"trained with other settings \\(iterations {iterations} for 3\\)"):
        tuned = EMCapsNet.from_pretrained(save(network, tmp_path), iterations=iterations)
    for name in ("conv_capsules1", "class_capsules"):
        old, new = (getattr(one, name).routing.inverse_temperature for one in (network, tuned))
        assert len(new) == iterations
        common = min(iterations, 3)
        torch.testing.assert_close(new[:common], old[:common])
    assert tuned(IMAGES).activations.isfinite().all()


def test_class_iterations_and_one_reward_leave_all_else_as_it_is(tmp_path):
    network = trained()
    source = save(network, tmp_path / "each")
    with pytest.warns(UserWarning, match=r"class_iterations 5 for 3, class_beta_activation 'shared' for 'each'"):
        tuned = EMCapsNet.from_pretrained(source, class_iterations=5, class_beta_activation="shared")
    assert differing(tuned, network) == {"class_capsules"}
    old, new = (one.class_capsules.routing for one in (network, tuned))
    torch.testing.assert_close(new.inverse_temperature[:3], old.inverse_temperature)
    torch.testing.assert_close(new.beta_activation, old.beta_activation.mean().reshape(1))
    assert torch.equal(new.beta_use, old.beta_use)
    with pytest.warns(UserWarning, match="class_beta_activation 'each' for 'shared'"):
        again = EMCapsNet.from_pretrained(save(tuned, tmp_path / "shared"), class_beta_activation="each")
    assert again.class_capsules.routing.beta_activation.shape == (5,)
    for one, other in zip(again(IMAGES), tuned(IMAGES), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.warns(UserWarning, match="class_capsules starts anew"):
        other = EMCapsNet.from_pretrained(str(tmp_path / "shared"), num_classes=7)
    assert other(IMAGES).activations.shape == (6, 7)
    assert other.class_capsules.routing.beta_activation.shape == (1,)


def test_what_changes_no_shape_is_as_given_and_is_said(tmp_path):
    network = trained()
    with pytest.warns(UserWarning, match=r"other settings \(competition 'window' for 'child', annealing 1 for 0.045\)"):
        tuned = EMCapsNet.from_pretrained(save(network, tmp_path), annealing=1, competition="window")
    assert not differing(tuned, network)
    assert tuned.conv_capsules1.competition == "window"
    assert {getattr(tuned, name).routing.annealing for name in ("conv_capsules1", "class_capsules")} == {1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_capsules2": 5}, "conv_capsules2 must be 2, as in the pretrained weights; it has 5"),
        ({"stem_channels": 8}, "stem_channels must be 4, as in the pretrained weights"),
        ({"stem_kernel_size": 3}, "stem_kernel_size must be 5, as in the pretrained weights"),
        ({"pose": "vector"}, "pose must be 'matrix', as in the pretrained weights"),
        ({"temperature_schedule": "tutorial"}, "temperature_schedule must be 'authors', as in the pretrained weights"),
        ({"class_temperature_ratio": 1.0}, "class_temperature_ratio must be 0.25, as in the pretrained weights"),
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2; got 1"),
        ({"in_channels": 0}, "in_channels must be a whole number of at least 1; got 0: give the images' channels"),
    ],
)
def test_what_weights_cannot_follow_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        matcaps.from_pretrained(save(trained(), tmp_path), **changes)


def test_unknown_settings_are_refused(tmp_path):
    with pytest.raises(TypeError, match="the pretrained EMCapsNet has no setting 'image_size'; it has in_channels"):
        matcaps.from_pretrained(save(trained(), tmp_path), image_size=32)


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({"num_classes": 9}, {"classifier.4"}),
        ({"image_size": (32, 32)}, {"classifier.1", "classifier.4"}),
        ({"image_size": (30, 30)}, set()),
        ({"in_channels": 3}, {"features.0"}),
    ],
)
def test_cnn_keeps_what_fits(changes, anew, tmp_path):
    network = trained("baseline-cnn")
    folder = save(network, tmp_path)
    if anew:
        with pytest.warns(UserWarning, match="starts anew|repeated and scaled"):
            tuned = matcaps.from_pretrained(folder, **changes)
    else:
        tuned = matcaps.from_pretrained(folder, **changes)
    assert isinstance(tuned, BaselineCNN)
    state, old = tuned.state_dict(), network.state_dict()
    changed = {name.rsplit(".", 1)[0] for name in state if not torch.equal(state[name], old[name])}
    assert changed == anew
    height, width = tuned.config.image_size
    assert tuned(torch.rand(2, tuned.config.in_channels, height, width)).shape == (2, tuned.config.num_classes)


def test_create_model_takes_pretrained_weights_by_name_folder_and_true(tmp_path):
    network = trained()
    folder = save(network, tmp_path)
    sizes = TINY["quickstart"]
    assert not differing(create_model("annealed-small", pretrained=folder, **sizes), network)
    shipped = matcaps.from_pretrained("paper-small-smallnorb")
    for arguments in (
        {"preset": "annealed-small", "pretrained": True},
        {"preset": "paper-small-smallnorb", "pretrained": True},
        {"preset": "annealed-small", "pretrained": "paper-small-smallnorb"},
    ):
        made = create_model(**arguments)
        assert made.training
        assert not differing(made, shipped)
    with pytest.warns(UserWarning, match="class_capsules starts anew .* summed into one; call calibrate"):
        made = create_model("annealed-small", pretrained=True, num_classes=7, in_channels=1)
    assert differing(made, shipped) == {"stem", "class_capsules"}
    assert differing(create_model("paper-small-smallnorb"), shipped)  # the same network, fresh weights


def test_a_hub_name_and_a_home_folder_are_sources_too(tmp_path, monkeypatch):
    import huggingface_hub

    network = trained()
    save(network, tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not differing(matcaps.from_pretrained("~/mine", num_classes=5), network)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "mine"))
    made = create_model("annealed-small", pretrained="somebody/model", **TINY["quickstart"])
    assert not differing(made, network)


def test_every_default_weight_fits_its_preset(quiet):
    for preset, source in (("annealed-small", "paper-small-smallnorb"), ("annealed-tutorial", "tutorial-mnist")):
        config = create_model(preset, pretrained=True).config
        assert config == matcaps.from_pretrained(source).config
        changed = {"in_channels": config.in_channels, "num_classes": config.num_classes}
        assert config == model_config(preset, **changed)


def test_settings_of_the_weights_stand_above_the_presets_and_that_is_said():
    with pytest.warns(UserWarning, match=r"not of preset paper-small \(annealing 0.045 for 1.0, coordinate_scale"):
        network = create_model("paper-small", pretrained="paper-small-smallnorb")
    assert network.config.annealing == 0.045
    with pytest.warns(UserWarning, match=r"trained with other settings \(annealing 0.5 for 0.045\); settings are"):
        assert create_model("paper-small", pretrained="paper-small-smallnorb", annealing=0.5).config.annealing == 0.5


@pytest.mark.parametrize(
    ("preset", "pretrained", "message"),
    [
        ("tutorial", "paper-small-smallnorb", "stem_channels must be 64, .*; preset tutorial has 32"),
        ("baseline-cnn", "tutorial-mnist", "weights are of class EMCapsNet; preset baseline-cnn is of class Baseline"),
        ("paper-small", True, "preset 'paper-small' has no weights of its own, as annealed-small"),
        ("nothing", True, "preset must be one of .*'paper-small'.*or of the weights .*got 'nothing'"),
    ],
)
def test_weights_that_do_not_fit_a_preset_are_refused(preset, pretrained, message):
    with pytest.raises(ValueError, match=message):
        create_model(preset, pretrained=pretrained)


def test_a_missing_source_is_never_replaced_by_random_weights():
    with pytest.raises(FileNotFoundError, match=r"no saved model at \./nowhere"):
        create_model("annealed-small", pretrained="./nowhere")
