"""The fingerprint of data: the same for the same images in whatever order, and told apart otherwise."""

from dataclasses import replace

import pytest
import torch

from matcaps.data import Fingerprint, ImageDataset
from matcaps.data.fingerprint import changes, fingerprint


@pytest.fixture
def part():
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageDataset("folder", "train", images, torch.arange(20) % 2, ("cat", "dog"), torch.arange(20))


def test_order_does_not_matter_and_every_pixel_does(part):
    one = fingerprint({"train": part, "test": None})
    assert one == fingerprint({"train": part.subset(torch.arange(19, -1, -1))})
    assert Fingerprint.from_dict(one.to_dict()) == one
    assert changes(one, one) == ""
    changed = part.images.clone()
    changed[3, 0, 2, 2] ^= 1
    found = fingerprint({"train": replace(part, images=changed)})
    assert changes(one, found) == "train: 20 images then, 20 now, other ones in dog"


def test_keys_count_where_there_are_any(part):
    keyed = replace(part, keys=torch.arange(20))
    assert fingerprint({"train": keyed}) == fingerprint({"train": replace(keyed, images=part.images // 2)})
    assert fingerprint({"train": keyed}) != fingerprint({"train": replace(keyed, keys=torch.arange(1, 21))})


def test_what_changed_is_said_with_counts(part):
    one = fingerprint({"train": part, "test": part})
    assert changes(one, fingerprint({"train": part, "test": part.subset(torch.arange(13))})) == (
        "test: 20 images then, 13 now, other ones in cat, dog"
    )
    with_validation = fingerprint(dict.fromkeys(("train", "test", "validation"), part))
    assert changes(one, with_validation) == "validation: 0 images then, 20 now, other ones in cat, dog"
    other = replace(part, classes=("ant", "cat"))
    assert changes(one, fingerprint({"train": other})) == "the classes were cat, dog and are ant, cat"
    assert changes(one, fingerprint({"train": replace(part, name="mnist")})) == "the data set was folder and is mnist"


@pytest.mark.parametrize("values", [{}, {"version": 2}, {"version": 1, "name": "x", "classes": [], "parts": [1]}])
def test_what_is_no_fingerprint_is_refused(values):
    with pytest.raises(ValueError, match="fingerprint"):
        Fingerprint.from_dict(values)
