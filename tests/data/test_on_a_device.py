"""Batches prepared on a GPU, without one: on torch's "meta" device, which has shapes and dtypes and no numbers.

Operations on tensors of different devices fail there as on a GPU, and so does what would bring a number to the host.
"""

import hashlib

import numpy as np
import pytest
import torch

from matcaps.data import Transform, TransformSettings, devices, loader, make_loader
from matcaps.data.balance import Balance
from matcaps.data.loader import EpochSampler, PreparedImages
from tests.support.transforms import CASES

ELSEWHERE = torch.device("meta")


@pytest.fixture(params=CASES)
def transform(request):
    options, name = CASES[request.param]
    return Transform(TransformSettings(**options).resolve(name), 48 if name == "smallnorb" else 28)


def test_a_transform_works_where_the_images_are(transform):
    size = transform.image_size
    images = torch.empty(7, 2, size, size, dtype=torch.uint8, device=ELSEWHERE)
    made = [
        transform.train(images, np.arange(7), seed=1, epoch=2),
        transform.evaluate(images),
        transform.evaluate_crops(images),
        *transform.bounds(images),
    ]
    assert all(one.device == ELSEWHERE and one.dtype == torch.float32 for one in made)
    assert made[0].shape == (7, 2, transform.output_size, transform.output_size)


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_a_loader_gives_batches_on_its_device(monkeypatch, make_dataset, transform, fits, train):
    """Whether the stored images stay on the GPU or are copied there batch by batch."""
    monkeypatch.setattr(loader, "fits", lambda *_: fits)
    dataset = make_dataset(20, 2, transform.image_size)
    batches = make_loader(
        dataset, transform, train=train, batch_size=8, balanced=train, num_workers=2, device=ELSEWHERE
    )
    assert batches.num_workers == 0
    assert not batches.pin_memory
    seen = list(batches)
    assert [len(batch.labels) for batch in seen] == [8, 8, 4]
    for batch in seen:
        assert {one.device for one in batch} == {ELSEWHERE}
        assert batch.images.dtype == torch.float32
    prepared = batches.dataset
    assert isinstance(prepared, PreparedImages)
    assert (prepared._resident is not None) == fits
    plain = prepared.unvaried(torch.tensor([3, 1]))
    assert plain.device == ELSEWHERE
    assert plain.shape == (2, 2, transform.output_size, transform.output_size)


@pytest.mark.parametrize("fits", [True, False])
def test_a_device_loader_gives_the_numbers_of_the_host(monkeypatch, make_dataset, fits):
    """The way of a device's batches, walked on the host, with images that come several times, too."""
    monkeypatch.setattr(loader, "fits", lambda *_: fits)
    transform = Transform(TransformSettings().resolve("smallnorb"), 48)
    dataset = make_dataset(30).subset(torch.arange(29, 3, -1))
    host, device = (PreparedImages(dataset, transform, train=True, seed=4) for _ in range(2))

    class Other:
        type = "other"

    device.device = Other()  # type: ignore[assignment]
    monkeypatch.setattr(loader, "send", lambda values, _: values)
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda self, other, *_, _to=torch.Tensor.to, **__: self if isinstance(other, Other) else _to(self, other),
    )
    sampler = EpochSampler(len(dataset), 8, train=True, seed=4, balance=Balance(dataset.labels))
    keys = list(sampler)
    assert any(key.repeats is not None for key in keys)
    for key in keys:
        for one, other in zip(host[key], device[key], strict=True):
            assert torch.equal(one, other)
    assert (device._resident is not None) == fits


def test_images_stay_on_a_gpu_up_to_a_share_of_its_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1000, 4000))
    assert devices.fits(250, torch.device("cuda"))
    assert not devices.fits(251, torch.device("cuda"))
    assert devices.fits(1 << 60, torch.device("cpu"))


PINNED = {
    "paper": "d4ed0320f49bca25",
    "authors": "eb1849ab68568d29",
    "scale": "304f8679e66ef893",
    "edge": "1822681a7e1a9e1f",
    "crops": "5cc64a102dcfc34a",
}


@pytest.mark.parametrize("name", PINNED)
def test_images_are_what_they_have_always_been(name):
    """To the last bit, as numpy made them before torch did; a warp is left out, whose rounding is each processor's."""
    options, data = CASES[name]
    size = 48 if data == "smallnorb" else 28
    transform = Transform(TransformSettings(**options).resolve(data), size)
    images = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (16, 2, size, size), dtype=np.uint8))
    images[0] = 9
    made = [transform.train(images, np.arange(16) + 100, seed=3, epoch=2), transform.evaluate_crops(images)]
    digest = hashlib.sha256(b"".join(one.numpy().tobytes() for one in made)).hexdigest()[:16]
    assert digest == PINNED[name]
