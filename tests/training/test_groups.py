"""Transformation matrices learn in proportion to their size."""

import pytest
import torch

import matcaps
from matcaps.layers import ClassCapsules, ConvCapsules
from matcaps.training import OptimizerSettings, Training, parameter_groups, train
from matcaps.training.checkpoint_files import newest_checkpoint, read_checkpoint
from tests.support.runs import TINY_CNN, tiny_settings

MATRICES = {"conv_capsules1.weight", "conv_capsules2.weight", "class_capsules.weight"}


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = matcaps.create_model(
        "annealed-small", stem_channels=4, primary_capsules=2, conv_capsules1=2, conv_capsules2=2
    )
    network.calibrate(torch.rand(4, 2, 32, 32))
    return network


def names_of(network, group):
    ours = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in network.named_parameters() if id(parameter) in ours}


def test_without_a_rate_of_their_own_there_is_one_group(network):
    (group,) = parameter_groups(network, 0.1)
    assert names_of(network, group) == {name for name, _ in network.named_parameters()}
    assert group["lr"] == 0.1


def test_each_layers_matrices_are_a_group(network):
    others, *groups = parameter_groups(network, 0.1, 0.01)
    assert others["lr"] == 0.1
    assert names_of(network, others) == {name for name, _ in network.named_parameters()} - MATRICES
    assert {name for group in groups for name in names_of(network, group)} == MATRICES
    for group in groups:
        (weight,) = group["params"]
        assert group["lr"] == pytest.approx(0.01 * weight.square().mean().sqrt().item())


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW])
def test_they_move_as_if_they_were_a_scale_times_numbers_near_one(optimizer_class, weight_decay):
    torch.manual_seed(0)
    scale, target = 40.0, torch.randn(3, 2, 4, 4, dtype=torch.float64)
    layer = ClassCapsules(3, 2).double()
    unit = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    unit /= unit.square().mean().sqrt()
    with torch.no_grad():
        layer.weight.copy_(scale * unit)
    unit.requires_grad_()
    decoupled = optimizer_class is torch.optim.AdamW
    groups = parameter_groups(layer, 3e-3, 1e-2, weight_decay=weight_decay, decoupled=decoupled)
    ours = optimizer_class(groups, weight_decay=100.0)  # which has no effect: the groups have their own
    theirs = optimizer_class([unit], lr=1e-2, weight_decay=weight_decay)
    for _ in range(20):
        # gradients of about 1e-10, so that Adam's epsilon counts
        for optimizer, weight in ((ours, layer.weight), (theirs, scale * unit)):
            optimizer.zero_grad()
            (1e-12 * (weight - target).square()).sum().backward()
            optimizer.step()
    torch.testing.assert_close(layer.weight, scale * unit, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("name", "decoupled"), [("adam", False), ("adamw", True)])
def test_training_gives_the_groups_its_weight_decay(network, name, decoupled):
    optimizer = OptimizerSettings(name, matrix_learning_rate=0.01, weight_decay=0.1)
    training = Training(tiny_settings(optimizer=optimizer), network, 10)
    expected = parameter_groups(training, 3e-3, 0.01, weight_decay=0.1, decoupled=decoupled)
    made = training.make_optimizer()[0].param_groups
    assert [group["weight_decay"] for group in made] == [group["weight_decay"] for group in expected]
    assert made[0]["weight_decay"] == 0.1
    assert made[1]["weight_decay"] < 0.1


def test_networks_without_matrices_and_matrices_alone():
    cnn = torch.nn.Linear(2, 2)
    (group,) = parameter_groups(cnn, 0.1, 0.01)
    assert group["lr"] == 0.1
    layer = ConvCapsules(2, 2)
    with torch.no_grad():
        layer.weight.zero_()
    for group in parameter_groups(layer, 0.1, 0.01):
        assert group["lr"] > 0
        assert group.get("eps", 1) > 0


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), "fast"])
def test_rates_are_checked(rate):
    with pytest.raises(ValueError, match="matrix_learning_rate must be positive"):
        OptimizerSettings(matrix_learning_rate=rate)


def test_training_follows_the_setting(tmp_path):
    def rates(settings, name):
        folder = train(settings, tmp_path / name).folder
        (optimizer,) = read_checkpoint(newest_checkpoint(folder / "checkpoints"))["optimizer_states"]
        return [group["initial_lr"] for group in optimizer["param_groups"]]

    assert rates(tiny_settings(epochs=1), "one") == [3e-3]
    with_rate = tiny_settings(epochs=1, optimizer=OptimizerSettings(matrix_learning_rate=0.01))
    others, *matrices = rates(with_rate, "two")
    assert others == 3e-3
    assert len(matrices) == 3
    assert min(matrices) > 3e-3  # full calibration leaves matrices far above 0.3
    assert rates(tiny_settings(epochs=1, model=TINY_CNN, optimizer=with_rate.optimizer), "cnn") == [3e-3]
