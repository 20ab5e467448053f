"""Small files that describe large networks take no memory."""

import json
import resource

import pytest
import torch
from safetensors.torch import save_file

from matcaps import create_model, from_pretrained
from matcaps.training.decoding import load_decoder


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_units", 10**8), ("image_size", [10**6, 10**6]), ("channels1", 10**9)]
)
def test_a_config_of_a_network_that_the_weights_do_not_have(tmp_path, field, value):
    create_model("baseline-cnn", num_classes=2, image_size=28, in_channels=1).save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described["model"][field] = value
    (tmp_path / "config.json").write_text(json.dumps(described))
    before = peak()
    with pytest.raises(ValueError, match=r"config\.json"):
        from_pretrained(tmp_path)
    assert peak() - before < 100e6


def test_a_config_whose_sizes_overflow(tmp_path):
    create_model("baseline-cnn", num_classes=2, image_size=28, in_channels=1).save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described["model"]["hidden_units"] = 10**18
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="cannot be built"):
        from_pretrained(tmp_path)


def test_a_decoder_whose_biases_describe_a_matrix_that_is_not_there(tmp_path):
    wide = torch.zeros(10**5)
    save_file({"layers.0.bias": wide, "layers.2.bias": wide.clone()}, tmp_path / "decoder.safetensors")
    before = peak()
    with pytest.raises(ValueError, match="does not fit 3 classes"):
        load_decoder(tmp_path / "decoder.safetensors", 3, (1, 8, 8))
    assert peak() - before < 100e6
