"""Routing whose β and λ follow from running statistics."""

import copy
from dataclasses import replace

import pytest
import torch

from matcaps.capsules import Capsules
from matcaps.layers import ClassCapsules, ConvCapsules, NormalisedRoutingParameters
from matcaps.layers.normalisation import NormalisedConv2d
from matcaps.routing import (
    available_implementations,
    fit_class_em_routing,
    fit_conv_em_routing,
)


def capsules(seed: int = 0, batch: int = 6, scale: float = 1.0) -> Capsules:
    generator = torch.Generator().manual_seed(seed)
    return Capsules(
        scale * torch.randn(batch, 6, 6, 3, 4, 4, generator=generator),
        torch.rand(batch, 6, 6, 3, generator=generator),
    )


def conv_layer(**options) -> ConvCapsules:
    torch.manual_seed(0)
    layer = ConvCapsules(3, 4, stride=2, normalise=True, activation_rule="relative", annealing=0.1, **options)
    layer.calibrate(capsules())
    return layer


def class_layer(**options) -> ClassCapsules:
    torch.manual_seed(0)
    layer = ClassCapsules(3, 5, normalise=True, activation_rule="relative", annealing=0.1, **options)
    layer.calibrate(capsules())
    return layer


def statistics(layer) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in layer.routing.named_buffers()}


def trained(layer, steps: int = 300, images: Capsules | None = None):
    """The layer after its statistics have come to rest, on the same images and with the same weights."""
    layer.train()
    with torch.no_grad():
        for _ in range(steps):
            layer(capsules() if images is None else images)
    return layer


def test_in_evaluation_a_layer_is_procedure_1_with_plain_numbers():
    layer, images = conv_layer().eval(), capsules(1)
    spec = replace(layer.routing.spec, stride=2, competition="child", implementation="reference")
    expected, _ = fit_conv_em_routing(layer.routing.inputs(images, layer.weight), spec)
    torch.testing.assert_close(layer(images).activations, expected.activations)
    torch.testing.assert_close(layer.trace(images)[-1].activation, expected.activations)
    classes = class_layer(coordinate_components=None).eval()
    plain, _ = fit_class_em_routing(classes.routing.inputs(images, classes.weight), classes.routing.spec)
    torch.testing.assert_close(classes(images).activations, plain.activations)


def test_data_described_better_than_usual_are_a_reward_and_a_windows_costs_sum_to_nothing():
    layer = trained(conv_layer()).eval()
    state = layer.trace(capsules())[-1]
    mass, log_deviation = state.mass, state.variance.log().mean(dim=-1) / 2
    usual = (mass * log_deviation).sum(dim=-1, keepdim=True) / mass.sum(dim=-1, keepdim=True)
    better = log_deviation < usual - 1e-3
    assert better.any()
    assert (state.cost[better] < 0).all()
    assert float(state.cost.detach().sum(dim=-1).abs().max()) < 1e-3


def test_the_scale_of_poses_does_not_matter_in_training_or_evaluation():
    layer = trained(conv_layer(variance_floor=1e-12))
    for mode in (True, False):
        layer.train(mode)
        one, other = (layer(capsules(1, scale=scale)).activations for scale in (1.0, 20.0))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_logits_have_the_gain_as_deviation():
    layer = trained(conv_layer(gain=1.5)).eval()
    logit = layer(capsules()).activations.detach().logit()
    assert float(logit.square().mean().sqrt()) == pytest.approx(1.5, rel=0.05)


def test_the_reward_counts_once_in_training_and_in_evaluation():
    layer = conv_layer()
    with torch.no_grad():
        layer.routing.beta_activation.copy_(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    trained(layer)
    in_training = layer(capsules()).activations
    torch.testing.assert_close(in_training, layer.eval()(capsules()).activations, rtol=0, atol=0.02)


@pytest.mark.parametrize("make", [conv_layer, class_layer])
def test_training_and_evaluation_agree_once_the_statistics_are_those_of_the_batch(make):
    layer = trained(make())
    in_training = layer(capsules()).activations
    in_evaluation = layer.eval()(capsules()).activations
    torch.testing.assert_close(in_training, in_evaluation, rtol=0, atol=0.02)


def test_a_shared_reward_counts_once_for_every_class_and_is_learned():
    layer = class_layer(shared_beta_activation=True)
    with torch.no_grad():
        layer.routing.beta_activation.fill_(1.5)
    trained(layer)
    assert layer.routing.paper_beta_activation().shape == (5,)
    in_training = layer(capsules()).activations
    torch.testing.assert_close(in_training, layer.eval()(capsules()).activations, rtol=0, atol=0.02)
    assert float(in_training.detach().logit().mean()) == pytest.approx(1.5, abs=0.3)
    layer.train()(capsules()).activations.sum().backward()
    assert layer.routing.beta_activation.grad.shape == (1,)
    assert float(layer.routing.beta_activation.grad.abs()) > 0


def test_the_size_of_the_weights_does_not_matter_and_takes_no_gradient():
    layer = conv_layer().eval()
    expected = layer(capsules(1)).poses
    with torch.no_grad():
        layer.weight.mul_(3.0)
    torch.testing.assert_close(layer(capsules(1)).poses, expected, rtol=1e-4, atol=1e-4)
    layer.train()(capsules(1)).poses.square().sum().backward()
    gradient, weight = layer.weight.grad, layer.weight.detach()
    assert float((gradient * weight).sum().abs()) < 1e-3 * float(gradient.norm() * weight.norm())


def test_what_would_only_spread_the_costs_takes_no_gradient_but_of_the_gain():
    layer = trained(conv_layer())
    spread = torch.tensor(2.0, requires_grad=True)  # of the costs of all parents
    inside = layer.eval()(capsules()).activations.detach().logit() * spread
    normalised = layer.routing._normalise(inside.sigmoid())
    normalised.logit().square().sum().backward()
    assert float(spread.grad.abs()) < 1e-2 * float(inside.detach().square().sum())


@pytest.mark.parametrize("implementation", available_implementations())
def test_statistics_move_in_training_alone_and_alike_in_every_implementation(implementation):
    layer, reference = conv_layer(implementation=implementation), conv_layer(implementation="reference")
    before = statistics(layer)
    layer.eval()(capsules(1))
    for name, value in statistics(layer).items():
        assert torch.equal(value, before[name])
    layer.train()(capsules(1))
    reference.train()(capsules(1))
    moved = statistics(layer)
    for name in ("cost_deviation", "data"):
        assert not torch.equal(moved[name], before[name])
    for name, value in statistics(reference).items():
        torch.testing.assert_close(moved[name], value, rtol=1e-3, atol=1e-4)


def test_a_frozen_layer_keeps_its_statistics():
    layer = conv_layer().requires_grad_(False).train()
    before = statistics(layer)
    layer(capsules(1))
    assert all(torch.equal(value, before[name]) for name, value in statistics(layer).items())
    convolution = NormalisedConv2d(2, 3, 3).requires_grad_(False).train()
    mean = convolution.normalisation.running_mean.clone()
    convolution(torch.randn(4, 2, 5, 5))
    assert torch.equal(convolution.normalisation.running_mean, mean)


def test_a_state_that_is_saved_goes_on_bit_for_bit():
    layer = conv_layer().train()
    other = ConvCapsules(3, 4, stride=2, normalise=True, activation_rule="relative", annealing=0.1)
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    one, two = layer(capsules(1)), other.train()(capsules(1))
    assert torch.equal(one.activations, two.activations)
    assert all(torch.equal(value, statistics(other)[name]) for name, value in statistics(layer).items())


def test_two_forward_passes_before_a_backward_pass_are_allowed():
    layer = class_layer().train()
    (layer(capsules(1)).activations.sum() + layer(capsules(2)).activations.sum()).backward()
    assert layer.weight.grad.isfinite().all()


def test_one_image_is_routed_with_the_running_statistics():
    layer = class_layer().train()
    one = layer(capsules(1, batch=1)).activations
    layer = class_layer().eval()
    torch.testing.assert_close(one, layer(capsules(1, batch=1)).activations)


def test_per_sample_gradients_leave_the_statistics_alone():
    layer = conv_layer().train()
    before = statistics(layer)
    parameters = dict(layer.named_parameters())

    def loss(values, poses, activations):
        images = Capsules(poses.unsqueeze(0), activations.unsqueeze(0))
        return torch.func.functional_call(layer, values, (images,)).poses.square().sum()

    images = capsules(1, batch=2)
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, *images)
    assert gradients["weight"].shape[0] == 2
    assert all(torch.equal(value, before[name]) for name, value in statistics(layer).items())


def test_one_graph_compiled_and_checkpointed_does_the_same():
    layer = class_layer().train()
    expected = layer(capsules(1))
    moved = statistics(layer)
    compiled = torch.compile(class_layer().train(), fullgraph=True, backend="aot_eager")
    found = compiled(capsules(1))
    torch.testing.assert_close(found.activations, expected.activations)
    for name, value in statistics(compiled).items():
        torch.testing.assert_close(value, moved[name])
    again = class_layer().train()
    poses, activations = capsules(1)
    poses.requires_grad_()
    torch.utils.checkpoint.checkpoint(again, Capsules(poses, activations), use_reentrant=False).poses.sum().backward()
    assert poses.grad.isfinite().all()


def test_images_that_are_alike_leave_no_layer_saturated():
    stripes = torch.arange(6).remainder(2).float().view(1, 6, 1, 1, 1, 1)
    alike = Capsules(0.1 * capsules().poses + stripes, torch.full((6, 6, 6, 3), 0.5))
    for layer in (conv_layer(), class_layer()):
        layer.calibrate(alike)
        activations = layer.eval()(alike).activations.detach()
        assert float(((activations < 0.01) | (activations > 0.99)).float().mean()) < 0.25


def test_other_rules_and_a_gain_that_is_none_are_refused():
    for rule in ("paper", "standardised"):
        with pytest.raises(ValueError, match="activation_rule must be 'relative'"):
            ConvCapsules(3, 4, normalise=True, activation_rule=rule)
    with pytest.raises(ValueError, match="gain must be positive"):
        ConvCapsules(3, 4, normalise=True, activation_rule="relative", gain=0.0)


def test_only_the_last_iteration_learns_its_temperature():
    routing = conv_layer().routing
    assert isinstance(routing, NormalisedRoutingParameters)
    before = routing.paper_inverse_temperature()
    with torch.no_grad():
        routing.log_gain.add_(1.0)
    after = routing.paper_inverse_temperature()
    assert torch.equal(after[:-1], before[:-1])
    torch.testing.assert_close(after[-1], before[-1] * torch.e)
