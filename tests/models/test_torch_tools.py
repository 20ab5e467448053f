"""What torch's tools do to a network: hooks, checkpoints, traces, exports, per-sample gradients, the meta device."""

import copy
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

import matcaps
from matcaps.capsules import Capsules
from matcaps.layers import ClassCapsules, ConvCapsules
from matcaps.models import EMCapsNet, create_model

TINY = {"in_channels": 1, "stem_channels": 4, "primary_capsules": 2, "conv_capsules1": 3, "conv_capsules2": 2}


def tiny(**changes) -> EMCapsNet:
    torch.manual_seed(0)
    network = create_model("quickstart", **{**TINY, "num_classes": 3, **changes})
    assert isinstance(network, EMCapsNet)
    return network


def images_of(count: int = 2, size: int = 17) -> Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def gradients(loss: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


def loss_of(output: tuple[Tensor, ...]) -> Tensor:
    return output[0].square().sum() + output[1].square().sum()


@pytest.mark.parametrize("made", [tuple, list, lambda capsules: capsules])
def test_every_capsule_layer_takes_a_plain_pair(made):
    network = tiny()
    outputs = network.layer_outputs(images_of())
    children, last = outputs["primary_capsules"], outputs["conv_capsules2"]
    for layer, capsules in ((network.conv_capsules1, children), (network.class_capsules, last)):
        other = copy.deepcopy(layer)
        for name in ("forward", "votes", "trace", "calibrate"):
            pairs = zip(getattr(layer, name)(made(capsules)), getattr(other, name)(capsules), strict=True)
            for found, expected in pairs:
                for one, two in zip(found, expected, strict=True):
                    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (torch.zeros(1, 5, 5, 2, 4, 4), "got Tensor"),
        ((torch.zeros(1, 5, 5, 2, 4, 4),), "got tuple of Tensor"),
        ((torch.zeros(1, 5, 5, 2, 4, 4), None), "got tuple of Tensor, NoneType"),
        ([], "got list of nothing"),
        ({"poses": 0, "activations": 0}, "got dict"),
        (None, "got NoneType"),
    ],
)
def test_a_capsule_layer_refuses_anything_else_in_words(wrong, got):
    for layer in (ConvCapsules(2, 3), ClassCapsules(2, 3)):
        for call in (layer, layer.votes, layer.trace, layer.calibrate):
            with pytest.raises(TypeError, match=rf"Capsules\(poses, activations\), or a tuple of .*{got}$"):
                call(wrong)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_hooks_may_hand_on_plain_pairs():
    network, images = tiny(), images_of()
    expected = network(images)
    for module in network.children():
        if module is not network.stem:
            module.register_forward_hook(lambda module, inputs, output: tuple(output))
            module.register_full_backward_hook(lambda module, grads_in, grads_out: None)
    found = network(images)
    assert isinstance(found, Capsules)
    assert torch.equal(found.poses, expected.poses)
    for one, two in zip(gradients(loss_of(found), network), gradients(loss_of(expected), network), strict=True):
        assert torch.equal(one, two)
    assert all(isinstance(capsules, Capsules) for capsules in network.layer_outputs(images).values())
    assert [len(states) for states in network.trace(images).values()] == [3, 3, 3]


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_any_stage_changes_no_gradient(use_reentrant):
    network, images = tiny(), images_of()

    def middle(poses: Tensor, activations: Tensor) -> Capsules:
        return network.conv_capsules2(network.conv_capsules1((poses, activations)))

    def last(poses: Tensor, activations: Tensor) -> Capsules:
        return network.class_capsules((poses, activations))

    children = network.primary_capsules(network.stem(images).relu())
    plain = last(*middle(*children))
    kept = checkpoint(middle, *children, use_reentrant=use_reentrant)
    kept = checkpoint(last, *kept, use_reentrant=use_reentrant)
    expected = torch.autograd.grad(loss_of(plain), children, retain_graph=True)
    if use_reentrant:  # which has no autograd.grad
        for part in children:
            part.retain_grad()
        loss_of(kept).backward()
        found = [part.grad for part in children]
    else:
        found = torch.autograd.grad(loss_of(kept), children)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_per_sample_gradients_are_those_of_each_sample():
    network, images = tiny(), images_of(3)
    parameters = dict(network.named_parameters())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return loss_of(functional_call(network, parameters, (image[None],)))

    found = vmap(grad(loss), in_dims=(None, 0))({k: v.detach() for k, v in parameters.items()}, images)
    for index, image in enumerate(images):
        for (name, _), expected in zip(
            parameters.items(), gradients(loss_of(network(image[None])), network), strict=True
        ):
            size = expected.abs().max().item()
            torch.testing.assert_close(found[name][index], expected, rtol=1e-3, atol=1e-4 * size)


def test_an_ensemble_of_networks_is_mapped_over():
    networks, images = [tiny().eval(), tiny(conv_weight_deviation=0.5).eval()], images_of()
    parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]

    def route(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(networks[0], (parameters, buffers), (images,)).activations

    found = vmap(route)(parameters, buffers)
    for one, network in zip(found, networks, strict=True):
        torch.testing.assert_close(one, network(images).activations, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_a_whole_network_is_functionalised_and_its_coordinates_are_mapped_over(implementation):
    network, images = tiny(implementation=implementation), images_of()
    expected = network(images).activations
    assert torch.equal(torch.func.functionalize(lambda images: network(images).activations)(images), expected)
    last = network.layer_outputs(images)["conv_capsules2"]
    places = torch.rand(3, *last.poses.shape[1:3], 2)
    found = vmap(lambda places: network.class_capsules(last, places).activations)(places)
    for one, place in zip(found, places, strict=True):
        torch.testing.assert_close(one, network.class_capsules(last, place).activations)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_a_trace_is_sound_saved_loaded_and_differentiable(implementation):
    network = tiny(implementation=implementation, iterations=2)
    traced = torch.jit.trace(network, images_of())
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    for module in (traced, torch.jit.load(file)):
        images = images_of(3)
        found, expected = module(images), network(images)
        torch.testing.assert_close(found[0], expected.poses)
        for one, two in zip(gradients(loss_of(found), module), gradients(loss_of(expected), network), strict=True):
            torch.testing.assert_close(one, two)
    with torch.no_grad():
        torch.jit.trace(network, images_of())


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_draws_the_graph(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        writer.add_graph(tiny(), images_of())
    assert any(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_an_export_is_saved_and_loaded_by_another_process(implementation, tmp_path):
    network, images = tiny(implementation=implementation, iterations=1).eval(), images_of()
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=shapes), tmp_path / "network.pt2")
    images = images_of(5)
    torch.save({"images": images, "poses": network(images).poses.detach()}, tmp_path / "expected.pt")
    script = """
import sys, torch
import matcaps.routing
program = torch.export.load(sys.argv[1] + "/network.pt2").module()
expected = torch.load(sys.argv[1] + "/expected.pt")
classes = program(expected["images"])
assert type(classes) is matcaps.Capsules, type(classes)
torch.testing.assert_close(classes.poses, expected["poses"])
"""
    environment = dict(os.environ, PYTHONPATH=str(Path(matcaps.__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("pose", ["matrix", "vector"])
@pytest.mark.parametrize("competition", ["child", "window"])
@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_on_the_meta_device_shapes_come(pose, competition, implementation):
    with torch.device("meta"):
        network = tiny(pose=pose, competition=competition, implementation=implementation)
        classes = network(torch.empty(2, 1, 17, 20))
    assert classes.poses.device.type == "meta"
    assert classes.poses.shape == (2, 3, 4, 4)
    assert classes.activations.shape == (2, 3)
    classes.activations.sum().backward()
    assert network.stem.weight.grad is not None
    assert [len(states) for states in network.trace(torch.empty(1, 1, 17, 20, device="meta")).values()] == [3, 3, 3]


def test_under_a_fake_mode_shapes_come():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        network = tiny()
        classes = network(torch.empty(2, 1, 17, 20))
        classes.activations.sum().backward()
    assert classes.poses.shape == (2, 3, 4, 4)
