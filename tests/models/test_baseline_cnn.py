import pytest
import torch

from matcaps.models import BaselineCNN, create_model, from_pretrained

TINY = {"channels1": 2, "channels2": 3, "hidden_units": 5}


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (5, 18), (4, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_sizes(size, channels):
    network = create_model("baseline-cnn", in_channels=channels, num_classes=7, image_size=size, **TINY)
    assert isinstance(network, BaselineCNN)
    assert network(torch.randn(2, channels, *size)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 2, 28, 32), (2, 32, 32)])
def test_wrong_images(shape):
    with pytest.raises(ValueError, match=r"images must have shape \[B, 2, 32, 32\]; got "):
        create_model("baseline-cnn", **TINY)(torch.randn(shape))


def test_dropout_in_training_only():
    network, images = create_model("baseline-cnn", channels1=4, channels2=4, hidden_units=64), torch.randn(2, 2, 32, 32)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_the_stem_with_pooling_is_the_capsules_stem_and_is_saved(tmp_path):
    """A control: what the capsules' first layer gives, without capsules."""
    network = create_model("baseline-cnn", channels1=64, hidden_units=21, convolutions="stem")
    capsules = create_model("paper-small")
    assert network.features[0].weight.shape == capsules.stem.weight.shape
    assert network.features[0].stride == capsules.stem.stride
    assert network.features(torch.randn(1, 2, 32, 32)).shape == (1, 64, 7, 7)
    network.eval().save_pretrained(tmp_path)
    loaded, images = from_pretrained(tmp_path), torch.randn(2, 2, 32, 32)
    assert loaded.config == network.config
    assert torch.equal(loaded(images), network(images))
    with pytest.raises(ValueError, match=r"at least 7 each; got .* leave one place"):
        create_model("baseline-cnn", convolutions="stem", image_size=6)
    with pytest.raises(ValueError, match="convolutions must be one of"):
        create_model("baseline-cnn", convolutions="three")
