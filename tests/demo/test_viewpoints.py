"""smallNORB by object and viewpoint."""

import pytest
import torch

from matcaps.demo.viewpoints import open_viewer, open_views
from tests.support.norb import write_small_norb

SOURCE = "paper-small-smallnorb"


@pytest.fixture
def views(tmp_path):
    with pytest.warns(UserWarning, match="checksum differs"):
        return open_views(SOURCE, root=str(write_small_norb(tmp_path)))


def test_every_image_is_found_by_what_it_shows(views):
    attributes = views.dataset.attributes
    assert int((views.places >= 0).sum()) == len(views.dataset) == 20
    for place in range(20):
        category, instance, elevation, azimuth, lighting = (
            int(attributes[name][place]) for name in ("category", "instance", "elevation", "azimuth", "lighting")
        )
        view = views.view(category, instance, elevation, azimuth // 2, lighting)
        assert torch.equal(view.pixels, views.dataset.images[place])
        assert view.truth == category
        with torch.no_grad():
            image = views.saved.transform.evaluate(views.dataset.images[place : place + 1])
            assert torch.allclose(view.activations, views.saved.network(image).activations[0], atol=1e-5)
        sweep = views.sweep(category, instance, elevation, lighting)
        assert sweep.shape == (18, 5)
        assert torch.allclose(sweep[azimuth // 2], view.activations, atol=1e-5)


def test_what_is_not_there(views):
    place = tuple((views.places < 0).nonzero()[0].tolist())
    assert views.view(*place) is None
    empty = (views.places < 0).all(3).nonzero()[0].tolist()
    assert torch.isnan(views.sweep(*empty)).all()


def test_bad_viewers(tmp_path, digits):
    with pytest.raises(FileNotFoundError, match="matcaps data fetch smallnorb"):
        open_views(SOURCE, root=str(tmp_path))
    with pytest.raises(ValueError, match="is not a capsule network for smallNORB: it must take 2 channels"):
        open_viewer(str(digits))
