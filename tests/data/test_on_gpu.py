"""On a GPU: a run's images are the CPU's, and making them waits for nothing."""

import numpy as np
import pytest
import torch

from matcaps.data import Transform, TransformSettings, loader, make_loader
from tests.support.transforms import CASES

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),  # a prototype, torch says
]
GPU = torch.device("cuda", 0)


def tolerance(name):
    """None without a warp; with one, in units of the input, what rounding of places by 1e-7 of a side may change."""
    return {"rtol": 0, "atol": 1e-4 if name == "warp" else 0}


@pytest.fixture(params=CASES)
def case(request):
    options, data = CASES[request.param]
    size = 48 if data == "smallnorb" else 28
    return request.param, Transform(TransformSettings(**options).resolve(data), size)


def test_images_are_those_of_the_cpu(case):
    name, transform = case
    size = transform.image_size
    images = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (64, 2, size, size), dtype=np.uint8))
    images[0] = 9
    there = images.to(GPU)
    expected = transform.train(images, np.arange(64), seed=3, epoch=2)
    found = transform.train(there, np.arange(64), seed=3, epoch=2)
    assert found.device == GPU
    torch.testing.assert_close(found.cpu(), expected, **tolerance(name))
    assert torch.equal(transform.evaluate_crops(there).cpu(), transform.evaluate_crops(images))
    assert all(
        torch.equal(*pair)
        for pair in zip((one.cpu() for one in transform.bounds(there)), transform.bounds(images), strict=True)
    )


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_batches_are_those_of_the_cpu(case, make_dataset, monkeypatch, fits, train):
    monkeypatch.setattr(loader, "fits", lambda *_: fits)
    name, transform = case
    dataset = make_dataset(90, 2, transform.image_size)
    options = {"train": train, "batch_size": 32, "seed": 7, "balanced": train}
    expected = list(make_loader(dataset, transform, **options))
    found = list(make_loader(dataset, transform, **options, num_workers=2, device=GPU))
    assert len(expected) == len(found) == 3
    for one, other in zip(expected, found, strict=True):
        assert {part.device for part in other} == {GPU}
        torch.testing.assert_close(other.images.cpu(), one.images, **tolerance(name))
        assert torch.equal(other.labels.cpu(), one.labels)
        assert torch.equal(other.indices.cpu(), one.indices)


@pytest.mark.parametrize("fits", [True, False])
def test_no_batch_waits_for_the_one_before(case, make_dataset, monkeypatch, fits):
    monkeypatch.setattr(loader, "fits", lambda *_: fits)
    _, transform = case
    batches = make_loader(make_dataset(90, 2, transform.image_size), transform, train=True, batch_size=32, device=GPU)
    list(batches)  # the stored images go there
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(batches)) == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")
