"""Networks with normalisation: saved, averaged, folded."""

import pytest
import torch

from matcaps import create_model, from_pretrained
from matcaps.models import folded, update_statistics
from matcaps.models.statistics import has_statistics


def images(seed: int = 0, batch: int = 8) -> torch.Tensor:
    return torch.rand(batch, 2, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = create_model("agreement-small", stem_channels=8, primary_capsules=2, conv_capsules1=4, conv_capsules2=4)
    network.calibrate(images())
    update_statistics(network, [images(seed) for seed in range(20)])
    return network.eval()


def test_a_folded_network_is_the_plain_one_and_computes_the_same(network):
    plain = folded(network)
    assert plain.config.normalisation == "none"
    assert not has_statistics(plain)
    for name, capsules in network.layer_outputs(images(9)).items():
        torch.testing.assert_close(capsules.poses, plain.layer_outputs(images(9))[name].poses, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(network(images(9)).activations, plain(images(9)).activations, rtol=1e-3, atol=1e-3)


def test_class_capsules_with_iterations_of_their_own_and_one_reward_are_saved_folded_and_exported(tmp_path):
    torch.manual_seed(0)
    sizes = {"stem_channels": 8, "primary_capsules": 2, "conv_capsules1": 4, "conv_capsules2": 4}
    network = create_model("agreement-small", class_iterations=5, class_beta_activation="shared", **sizes)
    network.calibrate(images())
    with torch.no_grad():
        network.class_capsules.routing.beta_activation.fill_(-0.7)
    network.eval()
    assert [len(states) for states in network.trace(images(batch=1)).values()] == [3, 3, 5]
    answer = network(images(9))
    plain = folded(network)
    assert len(plain.class_capsules.routing.inverse_temperature) == 5
    assert plain.class_capsules.routing.shared_beta_activation
    torch.testing.assert_close(plain(images(9)).activations, answer.activations, rtol=1e-3, atol=1e-3)
    for one, folder in ((network, tmp_path / "network"), (plain, tmp_path / "plain")):
        one.save_pretrained(folder)
        again = from_pretrained(folder)
        assert again.config == one.config
        assert torch.equal(again(images(3)).activations, one(images(3)).activations)
    exported = torch.export.export(network, (images(batch=2),))
    torch.testing.assert_close(exported.module()(images(5, 2)).activations, network(images(5, 2)).activations)


def test_more_class_iterations_after_training_end_with_the_learned_temperature(network, tmp_path):
    with torch.no_grad():
        network.class_capsules.routing.log_gain.add_(0.2)
    network.save_pretrained(tmp_path / "saved")
    with pytest.warns(UserWarning, match=r"other settings \(class_iterations 5 for 3, class_beta_activation 'shared'"):
        tuned = from_pretrained(tmp_path / "saved", class_iterations=5, class_beta_activation="shared")
    old, new = (one.class_capsules.routing.paper_inverse_temperature() for one in (network, tuned))
    assert len(new) == 5
    assert new[-1] == old[-1]
    assert (new[1:] > new[:-1]).all()
    assert torch.equal(
        tuned.conv_capsules1.routing.paper_inverse_temperature(),
        network.conv_capsules1.routing.paper_inverse_temperature(),
    )
    assert tuned(images()).activations.isfinite().all()


def test_folding_changes_nothing_in_what_is_folded(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_plain_network_comes_back_as_a_copy():
    network = create_model("quickstart").eval()
    copy = folded(network)
    image = torch.rand(1, 1, 28, 28)
    torch.testing.assert_close(copy(image).activations, network(image).activations)


def test_a_network_with_statistics_is_saved_and_read(network, tmp_path):
    network.save_pretrained(tmp_path / "saved")
    again = from_pretrained(tmp_path / "saved")
    assert again.config == network.config
    assert torch.equal(again(images(3)).activations, network(images(3)).activations)


def test_another_number_of_classes_keeps_the_other_layers_statistics(network, tmp_path):
    network.save_pretrained(tmp_path / "saved")
    with pytest.warns(UserWarning, match="class_capsules starts anew"):
        tuned = from_pretrained(tmp_path / "saved", num_classes=7)
    assert torch.equal(tuned.conv_capsules1.routing.cost_deviation, network.conv_capsules1.routing.cost_deviation)
    assert tuned.calibrate(images()) == ("class_capsules",)


def test_weights_cannot_be_read_into_a_network_with_another_normalisation(network, tmp_path):
    network.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="normalisation must be 'batch', as in the pretrained weights"):
        from_pretrained(tmp_path / "saved", normalisation="none")


def test_statistics_found_anew_do_not_depend_on_those_before(network):
    batches = [images(seed) for seed in range(40)]
    update_statistics(network, batches)
    expected = network(images(9)).activations
    with torch.no_grad():
        for layer in (network.conv_capsules1, network.conv_capsules2, network.class_capsules):
            layer.routing.cost_deviation.mul_(4.0)
            layer.routing.cost_deviation.mul_(4.0)
        network.stem.normalisation.running_mean.add_(1.0)
    assert float((network(images(9)).activations - expected).detach().abs().max()) > 0.05
    update_statistics(network, batches)
    torch.testing.assert_close(network(images(9)).activations, expected, rtol=0, atol=0.01)


def test_finding_statistics_leaves_weights_modes_and_momenta_alone(network):
    network.train()
    network.stem.eval()
    weights = {name: value.clone() for name, value in network.named_parameters()}
    momenta = network.stem.normalisation.momentum, network.conv_capsules1.routing.momentum
    update_statistics(network, [images()])
    assert network.training
    assert not network.stem.training
    assert momenta == (network.stem.normalisation.momentum, network.conv_capsules1.routing.momentum)
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())


def test_a_network_without_statistics_is_left_as_it_is():
    network = create_model("quickstart")
    update_statistics(network, iter(()))
    assert not has_statistics(network)


def test_an_exported_network_computes_the_same(network):
    exported = torch.export.export(network, (images(batch=2),))
    torch.testing.assert_close(exported.module()(images(5, 2)).activations, network(images(5, 2)).activations)
