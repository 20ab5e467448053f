"""Networks whose poses are vectors of 16 numbers (Hinton et al. 2018, Table 1)."""

import json

import pytest
import torch

import matcaps
from matcaps.losses import spread_loss
from matcaps.models import EMCapsNet, EMCapsNetConfig, create_model, summarise
from matcaps.models.sources import CONFIG_NAME, read_config

TINY = {"stem_channels": 4, "primary_capsules": 2, "conv_capsules1": 3, "conv_capsules2": 2, "num_classes": 3}
SIZE = (17, 15)


def tiny(**changes) -> EMCapsNet:
    torch.manual_seed(0)
    network = create_model("quickstart", **{**TINY, "pose": "vector", **changes})
    assert isinstance(network, EMCapsNet)
    return network


def test_every_routed_layer_has_them():
    network = tiny()
    shapes = {name: tuple(network.get_submodule(name).weight.shape) for name in ("conv_capsules1", "class_capsules")}
    assert shapes == {"conv_capsules1": (3, 3, 2, 3, 16, 16), "class_capsules": (2, 3, 16, 16)}
    assert network.conv_capsules2.weight.shape == (3, 3, 3, 2, 16, 16)


def test_outputs_and_trace_are_shaped_as_with_matrices():
    images = torch.rand(2, 1, *SIZE)
    network, matrices = tiny(), tiny(pose="matrix")
    classes, outputs, trace = network(images), network.layer_outputs(images), network.trace(images)
    for name, expected in matrices.layer_outputs(images).items():
        assert [part.shape for part in outputs[name]] == [part.shape for part in expected], name
    assert torch.equal(outputs["class_capsules"].activations, classes.activations)
    for name, expected in matrices.trace(images).items():
        assert [part.shape for part in trace[name][-1]] == [part.shape for part in expected[-1]], name
        assert torch.equal(trace[name][-1].activation, outputs[name].activations), name


def test_a_tiny_network_learns_its_batch():
    network = tiny()
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.rand(6, 1, *SIZE, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])
    network.calibrate(images)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        loss = spread_loss(network(images).activations, labels, margin=0.5)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses


def test_paper_small_has_917_394_parameters():
    """5×5 and 1×1 convolutions with their biases; then a 16×16 matrix a pair of types and two β a parent type."""
    a, b, c, d, classes = 64, 8, 16, 16, 5
    stem = 2 * 5 * 5 * a + a
    primary = (a + 1) * b * (16 + 1)
    routed = {
        "conv_capsules1": 9 * b * c * 16**2 + 2 * c,
        "conv_capsules2": 9 * c * d * 16**2 + 2 * d,
        "class_capsules": d * classes * 16**2 + 2 * classes,
    }
    rows = {row.name: row.num_parameters for row in summarise(create_model("paper-small", pose="vector"), (32, 32))}
    assert rows == {"image": 0, "stem": stem, "primary_capsules": primary, **routed}
    assert sum(rows.values()) == 917_394


def test_another_pose_is_refused():
    with pytest.raises(ValueError, match=r"pose must be one of \('matrix', 'vector'\); got 'tensor'"):
        EMCapsNetConfig(pose="tensor")  # type: ignore[arg-type]


def test_save_and_load(tmp_path):
    network, images = tiny(), torch.rand(2, 1, *SIZE)
    network.calibrate(images)
    network.save_pretrained(tmp_path)
    loaded = matcaps.from_pretrained(tmp_path)
    assert read_config(tmp_path)["model"]["pose"] == loaded.config.pose == "vector"
    assert all(torch.equal(one, two) for one, two in zip(network(images), loaded(images), strict=True))


def test_a_model_saved_before_there_were_vectors_has_matrices(tmp_path):
    tiny(pose="matrix").save_pretrained(tmp_path)
    description = read_config(tmp_path)
    del description["model"]["pose"]
    (tmp_path / CONFIG_NAME).write_text(json.dumps(description))
    assert matcaps.from_pretrained(tmp_path).config.pose == "matrix"
    # what is said is believed, and what does not fit it refused
    description["model"]["pose"] = "vector"
    (tmp_path / CONFIG_NAME).write_text(json.dumps(description))
    with pytest.raises(ValueError, match=f"the weights in .* do not fit the model in {CONFIG_NAME}"):
        matcaps.from_pretrained(tmp_path)
