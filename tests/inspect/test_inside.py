"""Contributions, activations, EM steps and traversals: laws on small networks."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from matcaps import Capsules
from matcaps.inspect import (
    activation_maps,
    capsule_health,
    contributions,
    em_steps,
    pose_traversal,
    save_arrays,
    true_poses,
)
from matcaps.inspect.assignments import child_shares
from matcaps.models import PoseDecoder
from matcaps.routing import RoutingIteration
from tests.support.networks import make_network

# Contributions


@pytest.mark.parametrize("competition", ["child", "window"])
def test_shares_sum_to_one_in_every_layer(competition, images):
    network = make_network(competition=competition)
    found = contributions(network, images)
    assert found.classes.tolist() == network(images).activations.argmax(1).tolist()
    assert list(found.shares) == ["conv_capsules2", "conv_capsules1", "primary_capsules"]
    for name, shares in found.shares.items():
        assert shares.shape == network.layer_outputs(images)[name].activations.shape
        assert float(shares.min()) >= 0
        torch.testing.assert_close(shares.flatten(1).sum(1), torch.ones(3), rtol=1e-4, atol=1e-5)


def test_shares_of_a_named_class(network, images):
    """The last map's shares make the class's mean of the votes."""
    classes = torch.tensor([2, 0, 1])
    found = contributions(network, images, classes)
    votes = network.votes(images, "class_capsules")[torch.arange(3), :, classes]
    means = (found.shares["conv_capsules2"].flatten(1).unsqueeze(-1) * votes).sum(1)
    poses = network(images).poses.flatten(2)[torch.arange(3), classes]
    torch.testing.assert_close(means, poses, rtol=1e-3, atol=1e-3)


def test_children_outside_every_window_have_no_share(network, images):
    """Of ten rows with a kernel of 3 and stride 2 the last is in no window."""
    primary = contributions(network, images).shares["primary_capsules"]
    assert float(primary[:, 9].sum() + primary[:, :, 9].sum()) == 0
    assert float(primary[:, 4, 4].min()) > 0


def test_a_parent_without_data_passes_nothing_on():
    state = RoutingIteration(torch.ones(2, 3), *(torch.zeros(3) for _ in range(5)))
    assert child_shares(state, torch.zeros(2)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert child_shares(state, torch.tensor([1.0, 3.0]))[:, 0].tolist() == [0.25, 0.75]


# Activations


def test_activation_maps_end_with_the_outputs(network, images):
    maps, outputs = activation_maps(network, images), network.layer_outputs(images)
    assert list(maps) == list(outputs)
    assert [tuple(values.shape[1:]) for values in maps.values()] == [
        (1, 10, 10, 2),
        (3, 4, 4, 3),
        (3, 2, 2, 4),
        (3, 1, 1, 3),
    ]
    for name, values in maps.items():
        torch.testing.assert_close(values[:, -1].flatten(), outputs[name].activations.flatten())


def test_health_finds_what_was_planted(network, images, monkeypatch):
    """Type 1 is dead, type 2 saturated, type 3 only nearly so."""

    def outputs(some):
        activations = torch.rand(len(some), 2, 2, 4).clamp(0.02, 0.98)
        activations[..., 1] = 0.003
        activations[..., 2] = 0.995
        activations[..., 3] = 0.995
        activations[0, 0, 0, 3] = 0.5
        return OrderedDict(layer=Capsules(torch.zeros(1), activations))

    monkeypatch.setattr(network, "layer_outputs", outputs)
    health = capsule_health(network, [images, images])["layer"]
    assert (health.dead, health.saturated) == ([1], [2])
    assert health.share_low.tolist() == [0, 1, 0, 0]
    assert health.share_high.tolist() == pytest.approx([0, 0, 1, 22 / 24])
    assert health.num_images == 6
    assert health.deviation[2] == pytest.approx(0, abs=1e-6)
    assert health.maximum[3] == pytest.approx(0.995)
    assert health.to_dict()["dead"] == [1]
    with pytest.raises(ValueError, match="at least one image"):
        capsule_health(network, [])


# EM steps


def test_em_steps_are_a_projection(network, images):
    """Points, means and covariances are those of 16 dimensions, seen along the two axes."""
    image = images[:1]
    found = em_steps(network, image, 1)
    votes = network.votes(image, "class_capsules")[0, :, 1]
    states = network.trace(image)["class_capsules"]
    torch.testing.assert_close(found.axes @ found.axes.T, torch.eye(2), rtol=1e-4, atol=1e-5)
    weights = found.child_activations / found.child_activations.sum()
    torch.testing.assert_close(found.points, (votes - weights @ votes) @ found.axes.T, rtol=1e-3, atol=1e-3)
    # the first M-step's mean is the centre: assignments are equal there
    torch.testing.assert_close(found.means[0], torch.zeros(2), rtol=0, atol=1e-3)
    expected = found.axes @ torch.diag(states[2].variance[0, 1]) @ found.axes.T
    torch.testing.assert_close(found.covariances[2], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.activations, torch.stack([state.activation[0, 1] for state in states]))
    torch.testing.assert_close(found.masses, found.assignment @ found.child_activations, rtol=1e-4, atol=1e-5)
    assert 0 < float(found.explained[1]) <= float(found.explained[0]) <= 1


def test_em_steps_of_a_map(network, images):
    found = em_steps(network, images[:1], 2, layer="conv_capsules1", position=(3, 0))
    assert found.points.shape == (3 * 3 * 2, 2)
    torch.testing.assert_close(found.masses, found.assignment @ found.child_activations, rtol=1e-4, atol=1e-5)


def test_no_such_parent(network, images):
    with pytest.raises(ValueError, match="parent must be from 0 to 2; got 3"):
        em_steps(network, images[:1], 3)
    with pytest.raises(ValueError, match="position must be a row below 4 and a column below 4; got None"):
        em_steps(network, images[:1], 0, layer="conv_capsules1")
    with pytest.raises(ValueError, match="position must be None"):
        em_steps(network, images[:1], 0, position=(0, 0))


# Poses


def test_a_traversal_moves_one_component_alone(network, images):
    """A decoder that hands through the poses shows what it was given."""

    class Identity(PoseDecoder):
        def forward(self, poses, classes):
            return poses[torch.arange(len(classes)), classes].view(-1, 1, 4, 4)

    seen = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    found = pose_traversal(network, Identity(3, (1, 4, 4)), images[:1], 2, seen, num_steps=5)
    own = network(images[:1]).poses[0, 2].flatten()
    torch.testing.assert_close(found.pose, own)
    low, high = seen.quantile(0.02, 0), seen.quantile(0.98, 0)
    for component in range(16):
        decoded = found.reconstructions[component].flatten(1)
        others = [other for other in range(16) if other != component]
        torch.testing.assert_close(decoded[:, others], own[others].expand(5, 15))
        torch.testing.assert_close(
            decoded[:, component], torch.linspace(float(low[component]), float(high[component]), 5)
        )
    torch.testing.assert_close(found.effect, (high - low) / 4)  # of 16 pixels one moves
    with pytest.raises(ValueError, match=r"seen must have shape \[N, 16\]"):
        pose_traversal(network, PoseDecoder(3, (1, 20, 20)), images[:1], 2, seen[:0])


def test_true_poses(network, images):
    from matcaps.data.loader import Batch

    labels = torch.tensor([2, 0, 1])
    poses, found = true_poses(network, [Batch(images, labels, labels)])
    assert found.tolist() == [2, 0, 1]
    torch.testing.assert_close(poses[1], network(images).poses[1, 0].flatten())


def test_results_are_saved_as_arrays(network, images, tmp_path):
    save_arrays(tmp_path / "a.npz", contributions(network, images))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["shares.conv_capsules1"].shape == (3, 4, 4, 3)
        assert float(arrays["fields.primary_capsules.0.step"]) == 2
    save_arrays(tmp_path / "b.npz", em_steps(network, images[:1], 0))
    with np.load(tmp_path / "b.npz", allow_pickle=False) as arrays:
        assert "position" not in arrays
        assert str(arrays["layer"]) == "class_capsules"
