import json
import math

import numpy as np
import pytest
import torch

from matcaps.data import Transform, TransformSettings
from matcaps.data.random import integers, make_keys, uniform_between
from matcaps.data.transforms import _BRIGHTNESS, _CONTRAST, _LEFT, _TOP, crop_places

NORB = TransformSettings().resolve("smallnorb")
AUTHORS = TransformSettings(normalise="crop").resolve("smallnorb")
WARPED = TransformSettings(max_shift=2, max_rotation=20, max_scale=0.2, max_shear=10, flip=True).resolve("mnist")
CASES = {
    "paper": (NORB, 2, 48),
    "authors": (AUTHORS, 2, 48),
    "shift": (TransformSettings(max_shift=3, fill="edge", max_contrast=2, max_brightness=0.1).resolve("mnist"), 1, 28),
    "warp": (WARPED, 1, 28),
    "elastic": (TransformSettings(max_elastic=3, max_rotation=20, crop_jitter=0.5).resolve("smallnorb"), 2, 48),
    "warp-standardised": (TransformSettings(max_rotation=20, normalise="image", crop=20).resolve("mnist"), 3, 28),
}


def images_of(count, channels, size, seed=0):
    return torch.randint(
        0, 256, (count, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture(params=CASES)
def case(request):
    settings, channels, size = CASES[request.param]
    return Transform(settings, size), images_of(33, channels, size)


def test_result_depends_on_image_index_seed_and_epoch_alone(case):
    transform, images = case
    indices = np.arange(100, 133)
    whole = transform.train(images, indices, seed=5, epoch=2)
    assert whole.dtype == torch.float32
    assert whole.shape == (33, images.shape[1], transform.output_size, transform.output_size)
    order = np.random.default_rng(0).permutation(33)
    parts = torch.cat([transform.train(images[p], indices[p], seed=5, epoch=2) for p in np.array_split(order, 7)])
    assert torch.equal(parts, whole[order])
    alone = torch.cat([transform.train(images[i : i + 1], indices[i : i + 1], seed=5, epoch=2) for i in range(33)])
    assert torch.equal(alone, whole)
    assert not torch.equal(transform.train(images, indices, seed=6, epoch=2), whole)
    assert not torch.equal(transform.train(images, indices, seed=5, epoch=3), whole)
    assert not torch.equal(transform.train(images, indices + 1, seed=5, epoch=2), whole)


def test_evaluation_draws_nothing_and_leaves_images_alone(case):
    transform, images = case
    before = images.clone()
    first = transform.evaluate(images)
    assert torch.equal(first, transform.evaluate(images))
    assert torch.equal(torch.cat([transform.evaluate(one[None]) for one in images]), first)
    transform.train(images, range(33), seed=0, epoch=0)
    assert torch.equal(images, before)


def test_description_makes_the_same_transform(case):
    transform, images = case
    again = Transform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert torch.equal(again.evaluate(images), transform.evaluate(images))
    assert again.to_dict() == transform.to_dict()


def test_paper_pipeline_step_by_step():
    """Standardise each image over both channels, crop, then contrast and brightness: against a loop in float64."""
    transform, images = Transform(NORB, 48), images_of(12, 2, 48)
    got = transform.train(images, range(12), seed=1, epoch=4)
    keys = make_keys(1, 4, range(12))
    top, left = integers(keys, _TOP, 17), integers(keys, _LEFT, 17)
    contrast, shift = uniform_between(keys, _CONTRAST, 0.5, 1.5), uniform_between(keys, _BRIGHTNESS, -0.5, 0.5)
    for i, image in enumerate(images.double()):
        standard = (image - image.mean()) / image.std(correction=0)
        crop = standard[:, top[i] : top[i] + 32, left[i] : left[i] + 32]
        torch.testing.assert_close(got[i].double(), crop * contrast[i] + shift[i], atol=2e-6, rtol=1e-5)
    plain = transform.evaluate(images)
    expected = (images[0].double() - images[0].double().mean()) / images[0].double().std(correction=0)
    torch.testing.assert_close(plain[0].double(), expected[:, 8:40, 8:40], atol=2e-6, rtol=1e-5)


def test_authors_pipeline_step_by_step():
    """Brightness and contrast in grey levels (each channel about its own mean), crop, standardise the crop."""
    transform, images = Transform(AUTHORS, 48), images_of(12, 2, 48)
    got = transform.train(images, range(12), seed=1, epoch=4)
    keys = make_keys(1, 4, range(12))
    top, left = integers(keys, _TOP, 17), integers(keys, _LEFT, 17)
    contrast, shift = uniform_between(keys, _CONTRAST, 0.2, 1.8), uniform_between(keys, _BRIGHTNESS, -63, 63)
    for i, image in enumerate(images.double()):
        mean = image.mean(dim=(1, 2), keepdim=True)
        crop = ((image - mean) * contrast[i] + mean + shift[i])[:, top[i] : top[i] + 32, left[i] : left[i] + 32]
        expected = (crop - crop.mean()) / crop.std(correction=0)
        torch.testing.assert_close(got[i].double(), expected, atol=2e-5, rtol=1e-4)
    assert torch.allclose(got.mean(dim=(1, 2, 3)), torch.zeros(12), atol=1e-6)
    assert torch.allclose(got.std(dim=(1, 2, 3), correction=0), torch.ones(12), atol=1e-5)


def test_the_authors_variation_is_nearly_undone():
    """Standardising last takes a shift away exactly, and a factor but for the channels' own means."""
    still = TransformSettings(normalise="crop", max_brightness=0, min_contrast=1, max_contrast=1).resolve("smallnorb")
    images = images_of(64, 1, 48)
    varied = Transform(AUTHORS, 48).train(images, range(64), seed=0, epoch=0)
    unvaried = Transform(still, 48).train(images, range(64), seed=0, epoch=0)
    torch.testing.assert_close(varied, unvaried, atol=1e-4, rtol=1e-4)


def test_blank_images_give_zeros_not_nan():
    for settings in (NORB, AUTHORS):
        transform = Transform(settings, 48)
        blank = torch.full((3, 2, 48, 48), 255, dtype=torch.uint8)
        assert transform.evaluate(blank).abs().max() < 0.01  # float32, after a factor of 255 times 68
        assert transform.train(blank, range(3), seed=0, epoch=0).isfinite().all()


def test_every_crop_and_shift_comes_up_equally():
    marks = torch.arange(6 * 6, dtype=torch.uint8).reshape(1, 1, 6, 6).expand(6400, 1, 6, 6)
    crop = Transform(TransformSettings(crop=3, normalise="scale").resolve("mnist"), 6)
    corners = (crop.train(marks, range(6400), seed=0, epoch=0)[:, 0, 0, 0] * 255).round().int()
    counts = torch.bincount(corners, minlength=36)
    assert (counts > 0).sum() == 16
    assert counts[counts > 0].min() > 300  # expected 400, standard deviation 19
    shift = Transform(TransformSettings(max_shift=1).resolve("mnist"), 6)
    middles = (shift.train(marks, range(6400), seed=0, epoch=0)[:, 0, 2, 2] * 255).round().int()
    counts = torch.bincount(middles, minlength=36)
    assert (counts > 0).sum() == 9
    assert counts[counts > 0].min() > 580  # expected 711, standard deviation 25


def test_shift_fills_with_zero_or_the_edge():
    images = torch.full((50, 1, 8, 8), 100, dtype=torch.uint8)
    for fill, lowest in (("zero", 0), ("edge", 100)):
        transform = Transform(TransformSettings(max_shift=2, fill=fill).resolve("mnist"), 8)
        result = transform.train(images, range(50), seed=0, epoch=0)
        assert (result.min() * 255).round() == lowest
        assert (result.max() * 255).round() == 100


def test_contrast_and_brightness_stay_in_range():
    settings = TransformSettings(min_contrast=0.5, max_contrast=1.5, max_brightness=0.1).resolve("mnist")
    images = images_of(400, 1, 28)
    result = Transform(settings, 28).train(images, range(400), seed=0, epoch=0).double()
    plain = images.double() / 255
    contrast = result.std(dim=(1, 2, 3)) / plain.std(dim=(1, 2, 3))
    shift = (result - plain).mean(dim=(1, 2, 3))
    assert 0.5 - 1e-6 < contrast.min() < 0.52
    assert 1.48 < contrast.max() < 1.5 + 1e-6
    assert -0.1 - 1e-6 < shift.min() < -0.09
    assert 0.09 < shift.max() < 0.1 + 1e-6


@pytest.mark.parametrize(
    ("setting", "moved"),
    [({"max_rotation": 30.0}, True), ({"max_scale": 0.3}, False), ({"max_shear": 30.0}, False)],
)
def test_warps_keep_the_middle_and_move_the_rest(setting, moved):
    bar = torch.zeros(40, 1, 29, 29, dtype=torch.uint8)
    bar[:, :, 4:25, 14] = 255
    result = Transform(TransformSettings(**setting).resolve("mnist"), 29).train(bar, range(40), seed=0, epoch=0)
    assert (result[:, 0, 14, 14] > 0.4).all()
    assert result.isfinite().all()
    assert -1e-6 <= result.min() <= result.max() <= 1 + 1e-6
    assert not torch.allclose(result[0], result[1])
    # Only a rotation lifts the bar's ends off its column on both sides the same way.
    top, bottom = result[:, 0, 7].argmax(1), result[:, 0, 21].argmax(1)
    if moved:
        assert torch.equal((top < 14)[(top != 14) & (bottom != 14)], (bottom > 14)[(top != 14) & (bottom != 14)])
        assert (top != 14).any()


def test_rotation_by_a_known_angle(monkeypatch):
    """A quarter turn, exactly: through the same grid as any other angle."""
    monkeypatch.setattr(
        "matcaps.data.transforms.uniform_between", lambda keys, draw, low, high: np.full(len(keys), high)
    )
    images = images_of(2, 1, 9)
    turned = Transform(TransformSettings(max_rotation=90.0).resolve("mnist"), 9).train(
        images, range(2), seed=0, epoch=0
    )
    expected = images.double() / 255
    assert any(torch.allclose(turned.double(), expected.rot90(k, (2, 3)), atol=1e-5) for k in (1, 3))


def test_elastic_deformation_moves_all_points_and_what_lies_between(monkeypatch):
    """All points moved as far as can be, 2 of 9 pixels: a plain shift. One moved: its corner alone."""
    images = images_of(3, 2, 9)
    transform = Transform(TransformSettings(max_elastic=2.0, fill="edge").resolve("mnist"), 9)
    monkeypatch.setattr("matcaps.data.transforms.uniform", lambda keys, draw: np.ones((len(keys), draw.size)))
    moved = transform.train(images, range(3), seed=0, epoch=0)
    near = torch.arange(9).add(2).clamp_max(8)
    torch.testing.assert_close(moved, images[:, :, near][:, :, :, near] / 255, atol=1e-5, rtol=0)

    def one_corner(keys, draw):
        draws = np.full((len(keys), 2, 4, 4), 0.5)
        draws[:, :, 0, 0] = 1
        return draws

    monkeypatch.setattr("matcaps.data.transforms.uniform", one_corner)
    moved = transform.train(images, range(3), seed=0, epoch=0)
    torch.testing.assert_close(moved[:, :, 0, 0], images[:, :, 2, 2] / 255, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, :, 6:, 6:], images[:, :, 6:, 6:] / 255, atol=1e-5, rtol=0)


def test_elastic_deformations_differ_and_stay_small():
    """On a ramp from left to right the result says how far each pixel was moved."""
    ramp = torch.arange(40, dtype=torch.uint8).mul(5).expand(50, 1, 40, 40)
    transform = Transform(TransformSettings(max_elastic=3.0, fill="edge").resolve("mnist"), 40)
    moves = transform.train(ramp, range(50), seed=0, epoch=0) * 255 / 5 - torch.arange(40)
    inside = moves[:, 0, 5:-5, 5:-5]
    assert 2 < inside.abs().max() < 3 * 1.6  # between points a cubic may go further than at them
    assert 0.7 < inside.std() < 1.7  # at a point 3/sqrt(3) = 1.73, less between them
    assert inside.std(dim=(1, 2)).min() > 0.3  # no plain shift
    steps = inside.diff(dim=2).abs()
    assert steps.max() < 1.5  # smooth: 6 pixels at most over 13


def test_crops_near_the_centre():
    marks = torch.arange(15 * 15, dtype=torch.uint8).reshape(1, 1, 15, 15).expand(4000, 1, 15, 15)
    for jitter, places in ((0.5, range(2, 7)), (0.0, range(4, 5)), (1.0, range(9))):
        settings = TransformSettings(crop=7, crop_jitter=jitter, normalise="scale").resolve("mnist")
        transform = Transform(settings, 15)
        corners = (transform.train(marks, range(4000), seed=0, epoch=0)[:, 0, 0, 0] * 255).round().int()
        assert sorted(set(corners.tolist())) == sorted(15 * top + left for top in places for left in places)
        centre = (transform.evaluate(marks[:1])[0, 0, 0, 0] * 255).round()
        assert centre == 15 * 4 + 4


def test_flip_mirrors_half():
    images = images_of(2000, 1, 5)
    result = Transform(TransformSettings(flip=True).resolve("mnist"), 5).train(images, range(2000), seed=0, epoch=0)
    plain = images / 255
    mirrored = (result - plain.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-6
    same = (result - plain).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert (mirrored ^ same).all()
    assert 900 < mirrored.sum() < 1100


@pytest.mark.parametrize("count", [1, 5, 9, 13])
@pytest.mark.parametrize("crop", [31, 32, 48])
def test_crops_lie_inside_and_the_centre_comes_first(count, crop):
    transform = Transform(TransformSettings(num_test_crops=count, crop=crop).resolve("smallnorb"), 48)
    images = images_of(3, 2, 48)
    crops = transform.evaluate_crops(images)
    assert crops.shape == (3, count, 2, crop, crop)
    assert torch.equal(crops[:, 0], transform.evaluate(images))
    places = crop_places(count, 48 - crop)
    assert places[0] == (math.floor((48 - crop) / 2 + 0.5),) * 2
    assert all(0 <= value <= 48 - crop for place in places for value in place)
    if crop < 48:
        assert len(set(places)) == count


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="settings must be resolved"):
        Transform(TransformSettings(), 48)
    with pytest.raises(ValueError, match="crop must be at most the image's side of 28 pixels; got 32"):
        Transform(NORB, 28)
    transform = Transform(NORB, 48)
    for images in (images_of(2, 2, 32), images_of(2, 2, 48).float(), images_of(2, 2, 48)[0]):
        with pytest.raises(ValueError, match=r"images must be uint8 \[B, C, 48, 48\]"):
            transform.evaluate(images)
    for values in ({}, {"image_size": 48, "nonsense": 1}):
        with pytest.raises(ValueError, match="not the description of a transform"):
            Transform.from_dict(values)


@pytest.mark.parametrize("name", ["scale", "image", "crop"])
def test_bounds_are_what_black_and_white_come_to(name):
    """Two pixels of each image are made black and white; the rest cannot go beyond them."""
    transform = Transform(TransformSettings(crop=20, normalise=name).resolve("smallnorb"), 29)
    images = images_of(9, 2, 29)
    images[:, 0, 15, 15], images[:, 1, 9, 20] = 0, 255
    low, high = transform.bounds(images)
    inputs = transform.evaluate(images)
    assert low.shape == high.shape == (9, 1, 1, 1)
    assert low.dtype == high.dtype == torch.float32
    assert torch.equal(low.flatten(), inputs.amin((1, 2, 3)))
    assert torch.equal(high.flatten(), inputs.amax((1, 2, 3)))
    assert torch.equal(inputs[:, 0, 10, 10], low.flatten())
    whole = images.double() if name == "image" else images[:, :, 5:25, 5:25].double()
    deviation = whole.flatten(1).std(1, correction=0) if name != "scale" else torch.full((9,), 255.0).double()
    expected = 255 / deviation if name != "scale" else torch.ones(9).double()
    torch.testing.assert_close((high - low).flatten().double(), expected, rtol=1e-5, atol=0)


def test_bounds_of_a_blank_image_hold_it():
    transform = Transform(NORB, 48)
    blank = torch.full((2, 2, 48, 48), 77, dtype=torch.uint8)
    low, high = transform.bounds(blank)
    assert ((low <= transform.evaluate(blank)) & (transform.evaluate(blank) <= high)).all()
    with pytest.raises(ValueError, match="images must be uint8"):
        transform.bounds(blank[:, :, :20])
