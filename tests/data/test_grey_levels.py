"""Images as a whole: mean, deviation and border."""

import pytest
import torch

from matcaps.data import appearance, load_embedded


def test_numbers_are_those_of_the_pixels():
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    found = appearance(images)
    values = images.double() / 255
    assert found.mean == pytest.approx(float(values.mean()))
    assert found.deviation == pytest.approx(float(values.std(correction=0)))
    inner = values[:, :, 2:-2, 2:-2]
    assert found.border_mean == pytest.approx(float((values.sum() - inner.sum()) / (values.numel() - inner.numel())))


def test_inverted_images_are_told_apart_by_their_border():
    test = load_embedded("test").subset(torch.arange(100))
    found, inverted = appearance(test), appearance(255 - test.images)
    assert found.border_mean < 0.2 < 0.8 < inverted.border_mean
    assert inverted.mean == pytest.approx(1 - found.mean)
    assert inverted.deviation == pytest.approx(found.deviation)


@pytest.mark.parametrize("images", [torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 4, 4)])
def test_nothing_to_measure_is_refused(images):
    with pytest.raises(ValueError, match="images must be uint8"):
        appearance(images)
