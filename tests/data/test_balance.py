"""Equally many images of every class in an epoch, from seed and epoch alone."""

import numpy as np
import pytest
import torch

from matcaps.data import EpochSampler, ImageDataset, Transform, TransformSettings, make_loader
from matcaps.data.balance import Balance, describe_unevenness

SIZES = (3, 50, 11)


@pytest.fixture
def uneven():
    labels = torch.arange(3).repeat_interleave(torch.tensor(SIZES))[torch.randperm(sum(SIZES))]
    images = torch.randint(0, 256, (len(labels), 1, 8, 8), dtype=torch.uint8)
    return ImageDataset("folder", "train", images, labels, ("a", "b", "c"), torch.arange(len(labels)))


def drawn(dataset, epoch, **options):
    sampler = EpochSampler(len(dataset), 6, train=True, seed=3, balance=Balance(dataset.labels), **options)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_class_comes_equally_often(uneven):
    for epoch in range(3):
        positions = np.concatenate([key.positions for key in drawn(uneven, epoch)])
        assert uneven.labels[torch.from_numpy(positions)].bincount().tolist() == [21, 21, 21]


def test_every_image_of_a_class_comes_equally_often_over_the_epochs(uneven):
    positions = np.concatenate([key.positions for epoch in range(50) for key in drawn(uneven, epoch)])
    times = torch.from_numpy(np.bincount(positions, minlength=len(uneven)))
    for label in range(3):
        own = times[uneven.labels == label]
        assert own.max() - own.min() <= 1


def test_the_draw_depends_on_seed_and_epoch_alone(uneven):
    one, again, other = drawn(uneven, 4), drawn(uneven, 4), drawn(uneven, 5)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0].positions, other[0].positions)


def test_a_resumed_epoch_goes_on_with_the_same_batches(uneven):
    sampler = EpochSampler(len(uneven), 6, train=True, seed=3, balance=Balance(uneven.labels))
    sampler.resume_at(2, 4)
    rest = list(sampler)
    whole = drawn(uneven, 2)
    assert len(sampler) == len(whole) == len(rest) + 4
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(rest, whole[4:], strict=True))


def test_several_processes_share_the_steps_of_one(uneven):
    single = EpochSampler(len(uneven), 12, train=True, seed=3, balance=Balance(uneven.labels))
    shares = [drawn(uneven, 0, rank=rank, world_size=2) for rank in range(2)]
    for step, key in enumerate(single):
        both = np.concatenate([share[step].positions for share in shares])
        assert sorted(both) == sorted(key.positions)


def test_an_image_that_comes_again_is_varied_anew(uneven):
    transform = Transform(TransformSettings(max_rotation=30.0).resolve("folder"), 8)
    loader = make_loader(uneven, transform, train=True, batch_size=64, balanced=True)
    images, indices = (torch.cat(column) for column in list(zip(*loader, strict=True))[::2])
    again = (indices == indices[uneven.labels[indices] == 0][0]).nonzero().flatten()
    assert len(again) == 7
    assert len({images[place].numpy().tobytes() for place in again}) == 7


def test_evaluation_is_not_balanced(uneven):
    transform = Transform(TransformSettings().resolve("folder"), 8)
    loader = make_loader(uneven, transform, train=False, batch_size=64, balanced=True)
    assert torch.cat([batch.indices for batch in loader]).tolist() == list(range(len(uneven)))


def test_large_unevenness_is_said(uneven):
    assert describe_unevenness(uneven) == (
        "the classes have from 3 to 50 training images (a 3, b 50), so that the network may never predict a small one; "
        "--data.balance sampling draws every class equally often"
    )
    assert describe_unevenness(uneven.subset((uneven.labels == 1).nonzero().flatten()[:10])) != ""
    three_each = torch.cat([(uneven.labels == label).nonzero()[:3, 0] for label in range(3)])
    assert describe_unevenness(uneven.subset(three_each)) == ""
