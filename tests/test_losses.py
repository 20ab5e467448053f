import math

import pytest
import torch
from torch.nn import functional as F

from matcaps.losses import (
    authors_margin,
    cross_entropy_loss,
    margin_loss,
    reconstruction_loss,
    spread_loss,
    tutorial_margin,
)

ACTIVATIONS = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.4, 0.3]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2])
CLASS_LOSSES = [
    pytest.param(lambda *given, **options: spread_loss(*given, margin=0.6, **options), id="spread"),
    pytest.param(margin_loss, id="margin"),
    pytest.param(cross_entropy_loss, id="cross-entropy"),
]


def test_spread_loss_by_hand():
    # image 1: wrong class 0.5 is 0.4 below, 0.2 short; 0.1 is 0.8 below. Image 2: 0.2 is 0.1 below, 0.4 is 0.1 above.
    first, second = 0.2**2, 0.5**2 + 0.7**2
    assert spread_loss(ACTIVATIONS, TARGETS, 0.6).item() == pytest.approx((first + second) / 2)
    assert spread_loss(ACTIVATIONS, TARGETS, 0.6, reduction="sum").item() == pytest.approx(first + second)
    assert spread_loss(ACTIVATIONS[:1], TARGETS[:1], 0.4).item() == pytest.approx(0)


def test_spread_loss_leaves_the_true_class_out():
    assert spread_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), 1.0).item() == 0


def test_margin_loss_by_hand():
    first = 0.5 * 0.4**2
    second = 0.6**2 + 0.5 * (0.1**2 + 0.3**2)
    assert margin_loss(ACTIVATIONS, TARGETS).item() == pytest.approx((first + second) / 2)
    assert margin_loss(ACTIVATIONS, TARGETS, reduction="sum").item() == pytest.approx(first + second)
    changed = margin_loss(ACTIVATIONS[1:], TARGETS[1:], present=0.5, absent=0.3, absent_weight=2.0)
    assert changed.item() == pytest.approx(0.2**2 + 2 * 0.1**2)


def test_cross_entropy_by_hand():
    first, second = -math.log(0.9 / 1.5), -math.log(0.3 / 0.9)
    assert cross_entropy_loss(ACTIVATIONS, TARGETS).item() == pytest.approx((first + second) / 2)
    assert cross_entropy_loss(ACTIVATIONS, TARGETS, reduction="sum").item() == pytest.approx(first + second)


def test_cross_entropy_reaches_zero_and_stays_finite():
    assert cross_entropy_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item() == pytest.approx(0, abs=1e-6)
    worst = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = cross_entropy_loss(worst, torch.tensor([1]))
    loss.backward()
    assert loss.isfinite()
    assert worst.grad.isfinite().all()


def test_reconstruction_loss_by_hand():
    images = torch.zeros(2, 1, 2, 3)
    made = torch.stack([torch.full((1, 2, 3), 0.5), torch.full((1, 2, 3), 2.0)])
    assert reconstruction_loss(made, images).item() == pytest.approx((6 * 0.25 + 6 * 4) / 2)
    assert reconstruction_loss(made, images, "sum").item() == pytest.approx(6 * 0.25 + 6 * 4)


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_gradients_flow(loss):
    activations = ACTIVATIONS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: loss(given, TARGETS), activations)
    loss(activations, TARGETS).backward()
    for label, row in zip(TARGETS, activations.grad, strict=True):
        assert row[label] <= 0
        others = row[torch.arange(3) != label]
        assert (others >= 0).all()
    assert activations.grad.abs().sum() > 0


def test_reconstruction_gradients_flow():
    made, images = torch.rand(2, 1, 3, 3, dtype=torch.float64, requires_grad=True), torch.rand(2, 1, 3, 3)
    assert torch.autograd.gradcheck(lambda given: reconstruction_loss(given, images.double()), made)


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_one_image_and_permuted_classes(loss):
    order = torch.tensor([2, 0, 1])
    permuted = torch.stack([(order == target).nonzero().squeeze() for target in TARGETS])
    torch.testing.assert_close(loss(ACTIVATIONS[:, order], permuted), loss(ACTIVATIONS, TARGETS))
    single = [loss(ACTIVATIONS[index : index + 1], TARGETS[index : index + 1]) for index in range(2)]
    torch.testing.assert_close(sum(single) / 2, loss(ACTIVATIONS, TARGETS))


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_bad_input(loss):
    with pytest.raises(ValueError, match=r"activations must have shape \[B, classes\] and targets \[B\]; got \[6\]"):
        loss(ACTIVATIONS.flatten(), TARGETS)
    with pytest.raises(ValueError, match=r"and targets \[B\]; got \[2, 3\] and \[3\]"):
        loss(ACTIVATIONS, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"got \[2, 3\] and \[2, 3\]"):
        loss(ACTIVATIONS, F.one_hot(TARGETS, 3))
    with pytest.raises(ValueError, match=r"targets must be int64 class indices; got torch.float32"):
        loss(ACTIVATIONS, TARGETS.float())
    with pytest.raises(ValueError, match='reduction must be "mean" or "sum"; got \'none\''):
        loss(ACTIVATIONS, TARGETS, reduction="none")


@pytest.mark.parametrize("margin", [-0.1, 1.1, math.nan])
def test_bad_margin(margin):
    with pytest.raises(ValueError, match=r"margin must lie in \[0, 1\]"):
        spread_loss(ACTIVATIONS, TARGETS, margin)


def test_bad_reconstructions():
    with pytest.raises(ValueError, match="reconstructions must have the images' shape"):
        reconstruction_loss(torch.zeros(2, 9), torch.zeros(2, 1, 3, 3))
    with pytest.raises(ValueError, match="reduction must be"):
        reconstruction_loss(torch.zeros(2, 9), torch.zeros(2, 9), "none")


def test_tutorial_margin_rises_by_a_tenth_an_epoch():
    expected = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9]
    assert [tutorial_margin(50 * epoch, 50) for epoch in range(10)] == expected
    assert [tutorial_margin(50 * epoch + 49, 50) for epoch in range(10)] == expected
    with pytest.raises(ValueError, match="steps_per_epoch must be at least 1; got 0"):
        tutorial_margin(0, 0)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.2 + 0.79 * 0.017986209962091559),  # σ(−4)
        (150_000, 0.2 + 0.79 * 0.2689414213699951),  # σ(−1)
        (200_000, 0.2 + 0.79 / 2),
        (250_000, 0.2 + 0.79 * 0.7310585786300049),  # σ(1)
        (700_000, 0.2 + 0.79 * 0.9999546021312976),  # σ(10), where it stops
        (2_000_000, 0.2 + 0.79 * 0.9999546021312976),
    ],
)
def test_authors_margin(step, expected):
    assert authors_margin(step) == pytest.approx(expected, abs=1e-12)
    assert authors_margin(step // 1000, scale=50) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [0, -1.0, math.nan])
def test_bad_scale(scale):
    with pytest.raises(ValueError, match="scale must be positive"):
        authors_margin(0, scale)
