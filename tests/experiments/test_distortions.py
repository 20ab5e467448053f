import torch
from torch import nn

from matcaps.data import DataSettings, load_data
from matcaps.experiments import measure_distortions
from matcaps.experiments.distortions import rotate_images, shift_images


def test_a_quarter_turn_is_exact():
    images = torch.randint(0, 256, (2, 1, 6, 6), dtype=torch.uint8)
    assert torch.equal(rotate_images(images, 90), images.rot90(1, (2, 3)))  # counter-clockwise
    assert torch.equal(rotate_images(images, -90), images.rot90(-1, (2, 3)))
    assert torch.equal(rotate_images(images, 0), images)


def test_a_shift_moves_pixels_and_lets_black_in():
    image = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    image[0, 0, 1, 2] = 9
    moved = shift_images(image, 2, -1)
    assert moved.shape == image.shape
    assert moved[0, 0, 3, 1] == 9
    assert moved.sum() == 9
    assert shift_images(image, 0, 2).sum() == 0  # out of the picture


class LeftHalf(nn.Module):
    """Says class 1 where the right half is brighter than the left one, else 0."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[-1] // 2
        difference = images[..., half:].sum((1, 2, 3)) - images[..., :half].sum((1, 2, 3))
        return nn.functional.pad(torch.stack([-difference, difference], 1), (0, 8), value=-1e9)


def test_errors_by_amount():
    bundle = load_data(DataSettings(max_test_images=20))
    images = torch.zeros(20, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 10:18, 16:18] = 255  # right of the middle by two pixels
    dataset = type(bundle.test)(
        name="bars", split="test", images=images, labels=torch.ones(20, dtype=torch.int64),
        classes=bundle.classes, indices=torch.arange(20),
    )  # fmt: skip
    found = measure_distortions(LeftHalf(), dataset, bundle.transform, rotations=(0, 180), shifts=(0, 8))
    assert found["rotation"][0] == {"degrees": 0, "error_percent": 0, "num_images": 20}
    assert found["rotation"][1] == {"degrees": 180, "error_percent": 100, "num_images": 40}  # both ways
    assert found["shift"][0]["error_percent"] == 0
    assert found["shift"][1] == {"pixels": 8, "error_percent": 25, "num_images": 80}  # only to the left is it wrong
