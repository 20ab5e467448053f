"""Probes: a planted relation is found, noise is not; viewpoints and known distortions."""

import pytest
import torch

from matcaps.data import ImageDataset
from matcaps.inspect import linear_probe, pose_response, principal_components, viewpoint_probe
from matcaps.inspect.response import DISTORTIONS
from tests.support.networks import make_dots


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_planted_relation_is_found():
    features, weight = draw(300, 16), draw(16, 2, seed=1)
    targets = 30 + 5 * features @ weight + 0.01 * draw(300, 2, seed=2)
    probe = linear_probe(features[:200], targets[:200], features[200:], targets[200:])
    assert float(probe.r_squared.min()) > 0.999
    torch.testing.assert_close(probe.predictions, targets[200:], rtol=0.05, atol=1.0)


def test_noise_is_not():
    features, targets = draw(600, 16), draw(600, 3, seed=1)
    probe = linear_probe(features[:300], targets[:300], features[300:], targets[300:])
    assert float(probe.r_squared.abs().max()) < 0.1
    assert probe.penalty >= 0.1  # it learned that there is nothing to learn


def test_scale_and_constant_features_do_not_matter():
    features, weight = draw(100, 4), draw(4, 1, seed=1)
    targets = features @ weight
    odd = torch.cat([1e6 * features[:, :2] + 7, 1e-4 * features[:, 2:], torch.full((100, 1), 3.0)], 1)
    probe = linear_probe(odd[:60], targets[:60], odd[60:], targets[60:])
    assert float(probe.r_squared[0]) > 0.999


def test_r_squared_is_about_the_test_parts_mean():
    """Features that tell nothing leave the fit part's mean, which is 1 off."""
    fit, test = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    probe = linear_probe(torch.zeros(2, 1), fit, torch.zeros(2, 1), test)
    assert float(probe.r_squared[0]) == pytest.approx(1 - 4 / 2)


def test_groups_stay_together():
    """Features that tell objects apart by heart say nothing of another object, so that trusting them little is best."""
    groups = torch.arange(40).repeat_interleave(5)
    smaller = 0
    for seed in range(12):  # of few objects features may by chance say something
        heart = draw(40, 60, seed=100 + seed)[groups]
        targets = draw(40, 1, seed=200 + seed)[groups] + 0.3 * draw(200, 1, seed=300 + seed)
        loose = linear_probe(heart, targets, heart, targets)
        held = linear_probe(heart, targets, heart, targets, groups=groups)
        smaller += loose.penalty < held.penalty
    assert smaller >= 9, smaller


def test_bad_parts():
    with pytest.raises(ValueError, match="the test part must have features"):
        linear_probe(draw(3, 2), draw(3, 1), draw(1, 2), draw(1, 1))


def test_principal_components_come_from_the_fit_part():
    fit = torch.zeros(50, 5, dtype=torch.float64)
    fit[:, 3] = draw(50)
    low, other = principal_components(fit, torch.eye(5, dtype=torch.float64), 1)
    assert (low.shape, other.shape) == ((50, 1), (5, 1))
    assert (other - other.mean()).abs().argmax() == 3
    assert principal_components(fit, fit, 5)[0] is fit


def norb(instances: tuple[int, ...] = (0, 1, 2, 3, 5), classes: int = 2) -> ImageDataset:
    """Blank images with every label: each class, instance, elevation, third azimuth and lighting."""
    grid = torch.cartesian_prod(
        torch.arange(classes), torch.tensor(instances), torch.arange(9), torch.arange(0, 36, 6), torch.arange(6)
    )
    return ImageDataset(
        name="smallnorb",
        split="test",
        images=torch.zeros(len(grid), 1, 4, 4, dtype=torch.uint8),
        labels=grid[:, 0].contiguous(),
        classes=("a", "b"),
        indices=torch.arange(len(grid)),
        attributes={
            name: grid[:, 1 + place].contiguous()
            for place, name in enumerate(("instance", "elevation", "azimuth", "lighting"))
        },
    )


def test_viewpoint_probe_knows_what_features_know():
    dataset = norb()
    elevation = dataset.attributes["elevation"].double()
    lighting = torch.nn.functional.one_hot(dataset.attributes["lighting"], 6).double()
    # each class in a frame of its own
    sign = torch.where(dataset.labels == 0, 1.0, -3.0)
    knows = torch.cat([(sign * elevation)[:, None], lighting, 0.01 * draw(len(dataset), 9)], 1)
    found = viewpoint_probe({"knows": knows, "wide noise": draw(len(dataset), 40)}, dataset)
    assert found.targets == ("elevation", "azimuth, sine", "azimuth, cosine", "lighting")
    assert found.r_squared[0].tolist() == pytest.approx([1, 0, 0, 1], abs=0.03)
    assert float(found.r_squared[1].abs().max()) < 0.1
    assert found.r_squared_by_class.shape == (2, 2, 4)
    assert float(found.lighting_accuracy[0]) == 1
    assert (found.num_fit, found.num_test) == (2 * 3 * 324, 2 * 2 * 324)
    assert found.to_dict()["r_squared"]["knows"]["elevation"] == pytest.approx(1, abs=0.01)


def test_viewpoints_must_be_known():
    dataset = norb()
    dataset.attributes["elevation"][0] = -1
    with pytest.raises(ValueError, match="must have known instance, elevation, azimuth and lighting"):
        viewpoint_probe({"x": draw(len(dataset), 3)}, dataset)
    dataset = norb((0, 1, 2))
    with pytest.raises(
        ValueError,
        match=r"must have images of instances \[0, 1, 2\] and \[3, 5\]; got 972 and 0: take more.*\[0, 1, 2\]$",
    ):
        viewpoint_probe({"x": draw(len(dataset), 3)}, dataset)
    with pytest.raises(ValueError, match="features 'x' must have shape"):
        viewpoint_probe({"x": draw(3, 3)}, norb())


def test_pose_response(network):
    dataset, transform = make_dots()
    found = pose_response(network, dataset, transform, 1, num_images=18)
    assert found.num_images == 18
    assert list(found.change) == list(DISTORTIONS)
    for name, change in found.change.items():
        assert change.shape == (9, 16)
        assert float(change[4].abs().max()) == 0  # undistorted
        assert float(change.abs().max()) > 0
        assert found.r_squared[name] <= 1
    with pytest.raises(ValueError, match="must leave each class at least 4"):
        pose_response(network, dataset, transform, 1, num_images=6)


def test_the_probes_figure_names_features_and_targets():
    from matcaps.inspect import ViewpointDisplay

    found = viewpoint_probe({"pose": draw(len(norb()), 16), "other": draw(len(norb()), 3)}, norb())
    (axes,) = ViewpointDisplay(found, "A probe", False).plot().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == list(found.targets)
    assert len(axes.patches) == 8
