"""A turn: a planted matrix is found, a change at random is not, and what is missing is said."""

import pytest
import torch

from matcaps.data import ImageDataset
from matcaps.inspect import ViewpointDisplay, ViewpointProbe, turn_probe


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(classes: int = 2, instances: tuple[int, ...] = (3, 5), elevations: int = 9) -> ImageDataset:
    """Blank images of all azimuths, in an order by chance."""
    azimuths = torch.arange(0, 36, 2)
    grid = torch.cartesian_prod(
        torch.arange(classes), torch.tensor(instances), torch.arange(elevations), azimuths, torch.arange(2)
    )
    grid = grid[torch.randperm(len(grid), generator=torch.Generator().manual_seed(5))]
    names = "instance", "elevation", "azimuth", "lighting"
    return ImageDataset(
        name="smallnorb",
        split="test",
        images=torch.zeros(len(grid), 1, 4, 4, dtype=torch.uint8),
        labels=grid[:, 0].contiguous(),
        classes=tuple("ab"[:classes]),
        indices=torch.arange(len(grid)),
        attributes={name: grid[:, 1 + place].contiguous() for place, name in enumerate(names)},
    )


def rotating_poses(dataset: ImageDataset) -> torch.Tensor:
    """Poses ``[N, 16]``, which a turn multiplies from the left by one rotation; toy and elevation say what turns."""
    angle = torch.deg2rad(10.0 * dataset.attributes["azimuth"].double())
    turn = torch.eye(4, dtype=torch.float64).repeat(len(dataset), 1, 1)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angle.sin(), angle.sin()
    kind = dataset.labels * 90 + dataset.attributes["instance"] * 9 + dataset.attributes["elevation"]
    return (turn @ draw(200, 4, 4)[kind]).flatten(1)


def test_a_planted_matrix_is_found():
    dataset = turned()
    poses = rotating_poses(dataset)
    found = turn_probe({"pose": poses, "other": poses @ torch.linalg.qr(draw(30, 16, seed=1))[0].T}, dataset)
    assert found.left.tolist()[0] == pytest.approx(1, abs=1e-6)
    assert found.left[1].isnan()
    assert found.linear.tolist() == pytest.approx([1, 1], abs=1e-3)
    assert found.toys.tolist() == [[0, 3], [0, 5], [1, 3], [1, 5]]
    assert (found.num_fit, found.num_test) == (4 * 5 * 36, 4 * 4 * 36)
    assert found.to_dict()["share_of_change"]["pose"]["left 4x4"] == pytest.approx(1, abs=1e-6)


def test_a_matrix_from_the_right_is_linear_and_no_matrix_from_the_left():
    dataset = turned(1, (3,))
    poses = rotating_poses(dataset).unflatten(1, (4, 4)).transpose(1, 2).flatten(1)
    found = turn_probe({"pose": poses}, dataset)
    assert float(found.linear[0]) > 0.99
    assert float(found.left[0]) < 0.5


def test_what_stays_but_for_noise_is_not_foretold():
    """Each view has noise of its own: the best map goes to the mean, half of the squared change, and learns no turn."""
    dataset = turned()
    found = turn_probe({"pose": draw(len(dataset), 16)}, dataset)
    assert float(found.linear[0]) == pytest.approx(0.5, abs=0.06)


def test_the_display_says_it():
    dataset = turned()
    numbers = torch.zeros(1, 4)
    probe = ViewpointProbe(("pose",), ("a", "b", "c", "d"), numbers, numbers[None], torch.zeros(1), (0,), (3,), 1, 1)
    turn = turn_probe({"pose": rotating_poses(dataset)}, dataset)
    display = ViewpointDisplay(probe, "A probe", False, turn)
    assert "pose 100 % (one 4×4 matrix from the left: 100 %)" in display.sentences.values()
    assert display.numbers["turn"]["degrees"] == 20
    assert "turn" not in ViewpointDisplay(probe, "A probe", False).numbers


def test_bad_input():
    dataset = turned(1, (3,))
    with pytest.raises(ValueError, match=r"features 'pose' must have shape \[324, 16\]; got \[324, 9\]"):
        turn_probe({"pose": draw(324, 9)}, dataset)
    few = turned(1, (3,), elevations=1)
    with pytest.raises(ValueError, match=r"toy 3 of class 'a' must have 32 pairs.*got 36 and 0: take all images"):
        turn_probe({"pose": draw(36, 16)}, few)
    dataset.attributes["azimuth"][0] = -1
    with pytest.raises(ValueError, match="must have known azimuth"):
        turn_probe({"pose": draw(324, 16)}, dataset)
