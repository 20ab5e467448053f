"""What save_pretrained writes, from_pretrained reads; what it could not read is refused before anything is written."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

import matcaps
from matcaps.layers import ClassCapsules, ConvCapsules
from matcaps.models import EMCapsNet, EMCapsNetConfig, PoseDecoder
from matcaps.models.pretrained import save_weights
from matcaps.models.sources import CONFIG_NAME, WEIGHTS_NAME
from matcaps.training import load_decoder
from tests.support.presets import make

IMAGES = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def check_round_trip(network: nn.Module, folder: Path) -> nn.Module:
    """What is read computes what was saved, and is saved again as the same."""
    network.eval()
    matcaps.save_pretrained(network, folder)
    loaded = matcaps.from_pretrained(folder)
    for one, other in zip(network(IMAGES), loaded(IMAGES), strict=True):
        assert torch.equal(one, other)
    again = folder / "again"
    matcaps.save_pretrained(loaded, again)
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    return loaded


def new_head(num_classes: int, **options: object) -> ClassCapsules:
    return ClassCapsules(2, num_classes, **options)  # type: ignore[arg-type]


REPLACED = {
    "other classes": lambda net: {"class_capsules": new_head(7)},
    "other options": lambda net: {
        "class_capsules": new_head(7, annealing=0.3, activation_rule="standardised", variance_floor=1e-3)
    },
    "other coordinates": lambda net: {
        "class_capsules": new_head(3, coordinate_components=(0, 1), coordinate_scale=2.0)
    },
    "no coordinates": lambda net: {"class_capsules": new_head(3, coordinate_components=None)},
    "one iteration": lambda net: {"class_capsules": new_head(3, inverse_temperature=(0.01,))},
    "five iterations and one reward": lambda net: {
        "class_capsules": new_head(7, inverse_temperature=(0.01,) * 5, shared_beta_activation=True)
    },
    "wider middle": lambda net: {
        "conv_capsules2": ConvCapsules(2, 5, competition="window", annealing=0.2),
        "class_capsules": ClassCapsules(5, 4),
    },
}


@pytest.mark.parametrize("kind", list(REPLACED))
def test_replaced_layers_of_our_kinds_are_read_as_they_were(kind, tmp_path):
    network = make()
    for name, layer in REPLACED[kind](network).items():
        setattr(network, name, layer)
    loaded = check_round_trip(network, tmp_path)
    assert isinstance(loaded, EMCapsNet)
    assert loaded.config.num_classes == network.num_classes == loaded.num_classes


def test_iterations_of_the_class_capsules_are_read_off_the_layers(tmp_path):
    network = make()
    network.class_capsules = new_head(3, inverse_temperature=(0.01, 0.02), annealing=1 / 16)  # type: ignore[assignment]
    matcaps.save_pretrained(network, tmp_path)
    description = json.loads((tmp_path / CONFIG_NAME).read_text())
    assert (description["model"]["iterations"], description["model"]["class_iterations"]) == (3, 2)
    assert "layers" not in description
    description["model"]["class_iterations"] = None  # as earlier versions had it
    description["layers"] = {"class_capsules": {"iterations": 2}}
    (tmp_path / CONFIG_NAME).write_text(json.dumps(description))
    loaded = matcaps.from_pretrained(tmp_path)
    assert torch.equal(loaded(IMAGES).activations, network.eval()(IMAGES).activations)
    assert isinstance(loaded, EMCapsNet)
    for name in ("conv_capsules1", "conv_capsules2", "class_capsules"):
        loaded.get_submodule(name).routing.inverse_temperature = torch.ones(2)
    matcaps.save_pretrained(loaded, tmp_path)
    saved = json.loads((tmp_path / CONFIG_NAME).read_text())["model"]
    assert (saved["iterations"], saved["class_iterations"]) == (2, None)


def test_what_was_saved_for_triton_is_read_for_cuda(tmp_path):
    """An earlier version's name of what routes on GPUs."""
    network = make().eval()
    matcaps.save_pretrained(network, tmp_path)
    description = json.loads((tmp_path / CONFIG_NAME).read_text())
    description["model"]["implementation"] = "triton"
    (tmp_path / CONFIG_NAME).write_text(json.dumps(description))
    loaded = matcaps.from_pretrained(tmp_path)
    assert loaded.config.implementation == "cuda"  # type: ignore[union-attr]
    assert loaded.class_capsules.routing.implementation == "cuda"  # type: ignore[union-attr]
    here = matcaps.from_pretrained(tmp_path, implementation="reference")
    torch.testing.assert_close(here(IMAGES), network(IMAGES))
    matcaps.save_pretrained(loaded, tmp_path)
    assert json.loads((tmp_path / CONFIG_NAME).read_text())["model"]["implementation"] == "cuda"


def test_settings_changed_on_the_modules_are_saved(tmp_path):
    network = make()
    assert isinstance(network, EMCapsNet)
    network.class_capsules.coordinate_scale = 0.5
    network.conv_capsules1.routing.annealing = 0.7
    loaded = check_round_trip(network, tmp_path)
    assert loaded.config.coordinate_scale == 0.5  # type: ignore[union-attr]
    assert json.loads((tmp_path / CONFIG_NAME).read_text())["layers"] == {"conv_capsules1": {"annealing": 0.7}}


def test_a_cnn_with_a_new_last_layer_is_saved(tmp_path):
    network = make("baseline-cnn").eval()
    network.classifier[-1] = nn.Linear(4, 7)  # type: ignore[index]
    matcaps.save_pretrained(network, tmp_path)
    loaded = matcaps.from_pretrained(tmp_path)
    assert torch.equal(loaded(IMAGES), network(IMAGES))
    assert loaded.config.num_classes == 7  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, AveragedModel, torch.compile, lambda n: torch.compile(AveragedModel(n))]
)
def test_wrapped_networks_are_saved_as_what_is_inside(wrap, tmp_path):
    network = make().eval()
    matcaps.save_pretrained(wrap(network), tmp_path)
    loaded = matcaps.from_pretrained(tmp_path)
    assert isinstance(loaded, EMCapsNet)
    assert torch.equal(loaded(IMAGES).activations, network(IMAGES).activations)


def test_a_network_under_distributed_training_is_saved_as_what_is_inside(tmp_path):
    network = make().eval()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        matcaps.save_pretrained(nn.parallel.DistributedDataParallel(network), tmp_path)
    finally:
        torch.distributed.destroy_process_group()
    loaded = matcaps.from_pretrained(tmp_path)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_compiled_layer_is_saved_as_what_it_was(tmp_path):
    network = make().eval()
    expected = network(IMAGES)
    network.class_capsules = torch.compile(network.class_capsules)  # type: ignore[assignment]
    matcaps.save_pretrained(network, tmp_path)
    assert torch.equal(matcaps.from_pretrained(tmp_path)(IMAGES).activations, expected.activations)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_the_same_numbers_in_float32(dtype, tmp_path):
    network = make().to(dtype)
    matcaps.save_pretrained(network, tmp_path)
    for name, value in matcaps.from_pretrained(tmp_path).state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, network.state_dict()[name].float()), name


def test_views_of_one_memory_are_saved_as_tensors_of_their_own(tmp_path):
    network = make().eval()
    parameters = list(network.parameters())
    flat = nn.utils.parameters_to_vector(parameters)
    nn.utils.vector_to_parameters(flat, parameters)
    check_round_trip(network, tmp_path)


def test_saving_draws_no_random_number(tmp_path):
    network = make()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    network.save_pretrained(tmp_path)
    assert torch.equal(torch.rand(3), expected)


class Other(ClassCapsules):
    pass


def _same(network: EMCapsNet) -> None:
    network.conv_capsules2.weight = network.conv_capsules1.weight


def _nan(network: EMCapsNet) -> None:
    with torch.no_grad():
        network.class_capsules.weight[0, 0, 0, 0] = float("nan")


REFUSED = {
    "layer of another kind": (
        lambda net: setattr(net, "class_capsules", nn.Linear(3, 3)),
        "class_capsules must be a ClassCapsules, so that from_pretrained can make it; got Linear",
    ),
    "layer of a subclass": (
        lambda net: setattr(net, "class_capsules", Other(2, 10)),
        "class_capsules must be a ClassCapsules, .*; got Other",
    ),
    "layer that does not fit": (
        lambda net: setattr(net, "class_capsules", ClassCapsules(5, 10)),
        r"class_capsules.weight must have shape \[2, 10, 4, 4\], as the configuration and .*; got \[5, 10",
    ),
    "one class": (
        lambda net: setattr(net, "class_capsules", ClassCapsules(2, 1)),
        "num_classes must be a whole number of at least 2; got 1",
    ),
    "further layer": (
        lambda net: setattr(net, "decoder", PoseDecoder(10, (1, 28, 28), (2, 2))),
        "the network must have no additional layers; got decoder",
    ),
    "further parameter": (
        lambda net: net.register_parameter("scale", nn.Parameter(torch.ones(1))),
        "the network must have no additional parameters; got scale",
    ),
    "stem of another size": (  # the network itself pads and places capsules by its configuration
        lambda net: setattr(net, "stem", nn.Conv2d(1, 4, 7, 2)),
        r"stem.weight must have shape \[4, 1, 5, 5\], .*; got \[4, 1, 7, 7\]",
    ),
    "stem of another stride": (
        lambda net: setattr(net, "stem", nn.Conv2d(1, 4, 5, 3)),
        r"stem.stride must be \(2, 2\), as in the network's configuration; got \(3, 3\)",
    ),
    "no bias": (
        lambda net: setattr(net, "stem", nn.Conv2d(1, 4, 5, 2, bias=False)),
        r"stem.bias must have shape \[4\], .*; got none",
    ),
    "padded stem": (
        lambda net: setattr(net, "stem", nn.Conv2d(1, 4, 5, 2, padding=1)),
        r"stem.padding must be \(0, 0\), as in the network's configuration; got \(1, 1\)",
    ),
    "other stride": (
        lambda net: setattr(net, "conv_capsules1", ConvCapsules(2, 2, stride=1)),
        "conv_capsules1.stride must be 2, as in the network's configuration; got 1",
    ),
    "parametrised": (
        lambda net: nn.utils.parametrizations.weight_norm(net.stem),
        "stem must be a Conv2d, .*; got ParametrizedConv2d",
    ),
    "pruned": (
        lambda net: prune.l1_unstructured(net.stem, "weight", 0.5),
        "stem.weight must have shape",
    ),
    "tied": (_same, "conv_capsules1.weight and conv_capsules2.weight must be two tensors; they share memory"),
    "not finite": (_nan, "class_capsules.weight must be finite; it has 1 of 320 numbers that are not"),
    "meta": (lambda net: net.to("meta"), "must have values; it is on the meta device"),
    "double": (lambda net: net.double(), "must be float32 or of half precision, .*; got float64: call .float"),
}


@pytest.mark.parametrize("kind", list(REFUSED))
@pytest.mark.parametrize("there", [False, True], ids=["new", "over"])
def test_what_could_not_be_read_is_refused_and_nothing_written(kind, there, tmp_path):
    folder = tmp_path / "model"
    if there:
        make().save_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.glob("*")}
    network = make()
    change, message = REFUSED[kind]
    change(network)
    with pytest.raises(ValueError, match=message):
        network.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == before
    assert folder.exists() == there


def test_a_subclass_of_the_same_name_is_refused(tmp_path):
    namesake = type("EMCapsNet", (EMCapsNet,), {"forward": lambda self, images: images})
    with pytest.raises(TypeError, match=r"model must be one of .*; got EMCapsNet: save a subclass"):
        matcaps.save_pretrained(namesake(EMCapsNetConfig()), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_classes_are_as_many_as_the_model_has(tmp_path):
    with pytest.raises(ValueError, match="classes must be 10 names, as many as the model has classes; got 2"):
        make().save_pretrained(tmp_path / "model", classes=["a", "b"])
    assert not (tmp_path / "model").exists()


def test_a_save_that_fails_half_way_leaves_the_earlier_model_whole(tmp_path, monkeypatch):
    make().save_pretrained(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in (WEIGHTS_NAME, CONFIG_NAME)}
    written = Path.write_text

    def full(path: Path, *arguments: object, **options: object) -> int:
        if path.name.startswith(CONFIG_NAME):
            raise OSError(28, "No space left on device", str(path))
        return written(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        make("baseline-cnn").save_pretrained(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_weights_that_are_not_finite_are_not_loaded(tmp_path):
    make().save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS_NAME)
    weights["stem.bias"][1] = float("inf")
    save_file(weights, tmp_path / WEIGHTS_NAME)
    with pytest.raises(ValueError, match=r"the weights in .* must be finite; stem.bias is not"):
        matcaps.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"stem": {"annealing": 1.0}}, "layers must hold options by routed layer, .*; got 'stem'"),
        ({"class_capsules": 3}, "layers must hold options by routed layer"),
        ({"class_capsules": {"competition": "window"}}, "class_capsules cannot have 'competition' of its own"),
        ({"conv_capsules1": {"forward": "x"}}, "conv_capsules1 cannot have 'forward' of its own"),
        ({"conv_capsules1": {"annealing": -1}}, "annealing must be positive; got -1"),
        ([1], "cannot be built"),
    ],
)
def test_malformed_options_of_layers_are_refused(layers, message, tmp_path):
    make().save_pretrained(tmp_path)
    description = json.loads((tmp_path / CONFIG_NAME).read_text())
    (tmp_path / CONFIG_NAME).write_text(json.dumps({**description, "layers": layers}))
    with pytest.raises(ValueError, match=message):
        matcaps.from_pretrained(tmp_path)


def test_decoders_are_checked_too(tmp_path):
    decoder = PoseDecoder(3, (1, 4, 4), (2, 2))
    with torch.no_grad():
        decoder.layers[0].weight.fill_(float("inf"))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"layers\.0\.weight must be finite"):
        save_weights(decoder, tmp_path / "decoder.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_decoder_that_is_not_finite_is_not_loaded(tmp_path):
    weights = PoseDecoder(3, (1, 4, 4), (2, 2)).state_dict()
    weights["layers.2.bias"][0] = float("nan")
    save_file(weights, tmp_path / "decoder.safetensors")
    with pytest.raises(ValueError, match=r"the weights in .* must be finite; layers\.2\.bias is not"):
        load_decoder(tmp_path / "decoder.safetensors", 3, (1, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (1, 4, 4)), "num_classes must be a whole number of at least 1; got 0"),
        ((3, (0, 4, 4)), "image_shape must be a whole number of at least 1; got 0"),
        ((3, (4, 4)), r"image_shape must be 3 numbers; got \(4, 4\)"),
        ((3, (1, 4, 4), (2, -1)), "hidden_units must be a whole number of at least 1; got -1"),
    ],
)
def test_decoders_of_no_size_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PoseDecoder(*arguments)


def test_the_network_is_as_it_was_after_a_save(tmp_path):
    network = make()
    before, config = copy.deepcopy(network.state_dict()), network.config
    network.save_pretrained(tmp_path)
    assert network.config == config
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
