"""A decoder trained on a frozen network."""

from dataclasses import replace

import pytest
import torch

from matcaps.data import load_data
from matcaps.inspect.traversal import class_poses, explained_variance
from matcaps.models import PoseDecoder
from matcaps.models.pretrained import save_weights
from matcaps.training import load_decoder, train_decoder
from matcaps.training.run import make_network
from tests.support.runs import tiny_settings


@pytest.fixture(scope="module")
def bundle():
    return load_data(tiny_settings().data)


@pytest.fixture(scope="module")
def network(bundle):
    torch.manual_seed(0)
    return make_network(tiny_settings(), bundle).eval()


def test_it_learns_and_leaves_the_network_alone(network, bundle, tmp_path):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lines: list[str] = []
    random_state = torch.get_rng_state()
    found = train_decoder(network, bundle, epochs=3, batch_size=16, report=lines.append)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert len(found.losses) == len(lines) == 3
    assert found.losses[2] < found.losses[0]
    assert not found.decoder.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    again = train_decoder(network, bundle, epochs=3, batch_size=16)
    assert again.losses == found.losses

    save_weights(found.decoder, tmp_path / "decoder.safetensors")
    loaded = load_decoder(tmp_path / "decoder.safetensors", 10, (1, 28, 28))
    poses, labels = class_poses(network, bundle.test, bundle.transform), bundle.test.labels
    assert torch.equal(loaded(poses, labels), found.decoder(poses, labels))
    assert explained_variance(loaded, poses, bundle.test, bundle.transform) == pytest.approx(found.explained)


def test_the_mean_image_explains_nothing(network, bundle):
    class Constant(PoseDecoder):
        def forward(self, poses, classes):
            return bundle.transform.evaluate(bundle.test.images).mean(0).expand(len(classes), -1, -1, -1)

    poses = class_poses(network, bundle.test, bundle.transform)
    share = explained_variance(Constant(10, (1, 28, 28)), poses, bundle.test, bundle.transform)
    assert share == pytest.approx(0, abs=1e-5)
    blank = replace(bundle.test, images=torch.zeros_like(bundle.test.images))
    assert torch.isnan(torch.tensor(explained_variance(Constant(10, (1, 28, 28)), poses, blank, bundle.transform)))


def test_bad_decoders(network, bundle, tmp_path):
    with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
        train_decoder(network, bundle, epochs=0)
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="text is not a safetensors file, or not whole"):
        load_decoder(tmp_path / "text", 10, (1, 28, 28))
    save_weights(torch.nn.Linear(2, 3), tmp_path / "linear")
    with pytest.raises(ValueError, match=r"linear holds no decoder: layers\.0 and layers\.2 must each have a bias"):
        load_decoder(tmp_path / "linear", 10, (1, 28, 28))
    save_weights(PoseDecoder(3, (1, 28, 28)), tmp_path / "other")
    with pytest.raises(ValueError, match=r"other does not fit 10 classes and images of \[1, 28, 28\]"):
        load_decoder(tmp_path / "other", 10, (1, 28, 28))


def test_hidden_units_are_read_from_the_file(tmp_path):
    small = PoseDecoder(10, (1, 28, 28), hidden_units=(24, 48)).eval()
    save_weights(small, tmp_path / "small")
    loaded = load_decoder(tmp_path / "small", 10, (1, 28, 28))
    poses, classes = torch.randn(2, 10, 4, 4), torch.tensor([3, 7])
    assert torch.equal(loaded(poses, classes), small(poses, classes))
    assert not loaded.training
