import pytest
import torch

from matcaps.models import create_model, freeze
from matcaps.training import parameter_groups
from tests.support.presets import TINY, make


def frozen_layers(network: torch.nn.Module) -> set[str]:
    return {name.split(".")[0] for name, parameter in network.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("names", [("stem", "primary"), ("primary_capsules", "stem"), ("stem", "primary", "stem")])
def test_parts_go_by_their_names_short_or_full(names):
    network = make()
    assert freeze(network, *names) == ("stem", "primary_capsules")
    assert frozen_layers(network) == {"stem", "primary_capsules"}


def test_the_cnn_has_two_parts():
    network = make("baseline-cnn")
    assert freeze(network, "features") == ("features",)
    assert frozen_layers(network) == {"features"}
    with pytest.raises(ValueError, match="must be names from features, classifier; got 'stem'"):
        freeze(network, "stem")


def test_unknown_parts_are_refused_with_the_list():
    network = make()
    with pytest.raises(
        ValueError, match="parts to freeze must be names from stem, primary, conv1, conv2, class; got 'head'"
    ):
        freeze(network, "stem", "head")
    assert not frozen_layers(network)


def test_freezing_everything_is_refused():
    network = make()
    with pytest.raises(
        ValueError, match=r"must leave at least one part to train; got stem, .*, which is all of stem, primary"
    ):
        freeze(network, "stem", "primary", "conv1", "conv2", "class")
    assert not frozen_layers(network)
    freeze(network, "stem", "primary", "conv1", "conv2")
    with pytest.raises(ValueError, match="must leave at least one part to train"):
        freeze(network, "class")  # in two steps, too


@pytest.mark.parametrize("matrix_learning_rate", [None, 0.03])
def test_frozen_parameters_are_in_no_group_and_stay(matrix_learning_rate):
    network = make()
    freeze(network, "stem", "conv1")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = parameter_groups(network, 0.1, matrix_learning_rate, weight_decay=0.1)
    assert {id(parameter) for group in groups for parameter in group["params"]} == {
        id(parameter) for parameter in network.parameters() if parameter.requires_grad
    }
    optimizer = torch.optim.Adam(groups)
    network(torch.rand(2, 1, 28, 28)).activations[:, 0].sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"primary_capsules", "conv_capsules2", "class_capsules"}


def test_nothing_left_to_train_is_said_before_torch_says_it():
    network = make().requires_grad_(False)
    with pytest.raises(ValueError, match="network must have a parameter to train; all are frozen"):
        parameter_groups(network, 0.1)


def test_calibration_leaves_frozen_layers_alone():
    network = create_model("annealed-small", in_channels=1, **TINY["quickstart"])
    freeze(network, "conv1")
    before = network.conv_capsules1.weight.clone()
    assert network.calibrate(torch.rand(4, 1, 28, 28)) == ("conv_capsules2", "class_capsules")
    assert torch.equal(network.conv_capsules1.weight, before)
