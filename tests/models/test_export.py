"""Exported networks compute what the network computes, without matcaps; what cannot be exported is refused."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

import matcaps
from matcaps.models import EMCapsNet, create_model
from matcaps.models.export import onnx_file, writing
from matcaps.models.export.comparison import difference
from matcaps.models.export.graph import expected_outputs
from matcaps.models.export.onnx_file import OPSET
from matcaps.models.export.program import trace_program
from matcaps.models.export.writing import Exported, export_network
from tests.support.exports import assert_computes_the_same, images_for, made

TINY = {"stem_channels": 4, "primary_capsules": 2, "conv_capsules1": 3, "conv_capsules2": 2}
CNN = {"channels1": 2, "channels2": 4, "hidden_units": 64}
SIZE = 17

with_onnx = pytest.mark.skipif(
    not all(map(onnx_file.is_there, ("onnx", "onnxscript", "onnxruntime"))), reason="ONNX's packages are not installed"
)


def cnn() -> nn.Module:
    return made("baseline-cnn", **CNN)


@pytest.fixture(scope="module")
def capsules() -> nn.Module:
    """With batch normalisation and normalised routing, which plain numbers stand for in the file."""
    return made("agreement-small", **TINY, iterations=2)


@pytest.fixture(scope="module")
def capsule_file(capsules: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("onnx") / "capsules.onnx"
    return export_network(capsules, "onnx", path, image_size=SIZE, trace=True, classes=list("abcde"))


@with_onnx
def test_a_capsule_network_in_onnx_computes_the_same_in_all_iterations(capsules: nn.Module, capsule_file: Exported):
    assert_computes_the_same(capsule_file.path, capsules, trace=True, size=SIZE)
    assert capsule_file.difference is not None
    assert 0 < capsule_file.difference < 1e-4


@with_onnx
def test_the_file_has_standard_operators_and_says_what_it_is(capsule_file: Exported):
    import onnx

    model = onnx.load(capsule_file.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    assert not model.functions
    assert capsule_file.num_nodes == len(model.graph.node) < 1000
    [entry] = model.metadata_props
    description = json.loads(entry.value)
    assert (entry.key, description) == ("matcaps", json.loads(json.dumps(capsule_file.description)))
    assert description["classes"] == list("abcde")
    assert description["matcaps"] == matcaps.__version__
    assert description["input"]["shape"] == ["batch", 2, SIZE, SIZE]
    shapes = {one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in
              (*model.graph.input, *model.graph.output)}  # fmt: skip
    assert shapes.pop("images") == description["input"]["shape"]
    assert shapes == {name: output["shape"] for name, output in description["outputs"].items()}


@with_onnx
def test_files_name_no_path_of_the_machine(capsule_file: Exported, program_file: Exported):
    for path in (capsule_file.path, program_file.path):
        content = path.read_bytes()
        assert str(Path(matcaps.__file__).parent).encode() not in content
        assert b"site-packages" not in content


@with_onnx
def test_the_logistic_function_is_exact_where_onnxruntimes_own_is_not():
    class Both(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"sigmoid": images.sigmoid(), "log": logsigmoid(images)}

    program = trace_program(Both(), torch.zeros(2, 161), dynamic_batch=True)
    read = onnx_file.reader(onnx_file.write(program, "{}", "float32", lambda _step: None).content)
    assert read is not None
    x = torch.linspace(-80, 80, 161)[None]
    found = read(x)
    torch.testing.assert_close(found["sigmoid"], x.double().sigmoid().float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found["log"], logsigmoid(x.double()).float(), rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def program_file(capsules: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("torch") / "capsules.pt2"
    return capsules.export("torch", path, image_size=SIZE, trace=True, classes=list("abcde"))  # type: ignore[operator]


def test_a_program_of_torch_runs_where_matcaps_is_not(capsules: nn.Module, program_file: Exported, tmp_path: Path):
    batches = [images_for(capsules, count, SIZE) for count in (1, 7, 64)]
    torch.save(batches, tmp_path / "images.pt")
    code = f"""
import json, sys, torch
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matcaps":
            raise ImportError(name)
sys.meta_path.insert(0, Nowhere())
extra = {{"matcaps.json": ""}}
network = torch.export.load({str(program_file.path)!r}, extra_files=extra).module()
assert json.loads(extra["matcaps.json"])["classes"] == list("abcde")
folder = {str(tmp_path)!r}
torch.save([network(images) for images in torch.load(folder + "/images.pt")], folder + "/outputs.pt")
assert not any(name.partition(".")[0] == "matcaps" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path, timeout=300)
    exact = copy.deepcopy(capsules).double()
    for images, found in zip(batches, torch.load(tmp_path / "outputs.pt"), strict=True):
        assert difference(found, expected_outputs(exact, images.double(), trace=True)) < 1e-4


@with_onnx
def test_a_cnn_in_fewer_bits_is_smaller_and_near(tmp_path: Path):
    network = cnn()
    files = {
        (format, precision): export_network(network, format, tmp_path / f"{precision}{ending}", precision=precision)
        for format, ending in writing.FORMATS.items()
        for precision in writing.PRECISIONS
        if (format, precision) != ("torch", "int8")
    }
    assert_computes_the_same(files["onnx", "float32"].path, network, trace=False)
    for (_, precision), file in files.items():
        assert file.difference is not None
        assert file.difference < {"float32": 1e-5, "bfloat16": 1e-2, "int8": 5e-2}[precision]
        assert file.difference > 0 or precision == "float32"
    numbers = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert numbers * 0.5 < files["onnx", "bfloat16"].size < numbers * 0.5 + 8000
    assert numbers * 0.25 < files["onnx", "int8"].size < numbers * 0.25 + 12000
    assert files["torch", "float32"].size - files["torch", "bfloat16"].size > numbers * 0.35


def test_one_image_at_a_time(tmp_path: Path):
    network = cnn()
    exported = export_network(network, "torch", tmp_path / "one.pt2", dynamic_batch=False)
    assert exported.description["input"]["shape"] == [1, 2, 32, 32]
    assert exported.description["outputs"]["scores"]["shape"] == [1, 5]
    images = images_for(network, 1)
    loaded: Any = torch.export.load(exported.path).module()
    torch.testing.assert_close(loaded(images)["logits"], network(images))


def test_the_network_stays_as_it_is_and_is_exported_in_evaluation(tmp_path: Path):
    network = cnn().train()
    network.register_forward_hook(lambda *_: pytest.fail("a hook was called"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(pytest.fail.Exception):
        network(images_for(network, 1))
    exported = export_network(torch.nn.DataParallel(network), "torch", tmp_path / "network.pt2")
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert exported.difference is not None
    assert exported.difference < 1e-6  # with dropout it would be far


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"format": "tflite"}, ValueError, "format must be one of onnx, torch; got 'tflite'"),
        ({"path": "a.onx"}, ValueError, "must end in .onnx; got 'a.onx'"),
        ({"format": "torch", "path": "a.onnx"}, ValueError, "must end in .pt2"),
        ({"path": "missing/a.onnx"}, FileNotFoundError, "no folder missing to write a.onnx into"),
        ({"path": "old.onnx"}, FileExistsError, "old.onnx is there already: give another name, or overwrite"),
        ({"path": "folder.onnx", "overwrite": True}, IsADirectoryError, "is a folder"),
        ({"precision": "int4"}, ValueError, "precision must be one of float32, bfloat16, int8; got 'int4'"),
        ({"format": "torch", "path": "a.pt2", "precision": "int8"}, ValueError, "int8 is of ONNX files"),
        ({"trace": True}, ValueError, "trace is of capsule networks"),
        ({"image_size": 0}, ValueError, "image_size must be pixels a side"),
        ({"image_size": (32, 31)}, ValueError, r"images must have shape \[B, 2, 32, 32\]; got \[2, 2, 32, 31\]"),
        ({"classes": ["a"]}, ValueError, "classes must be 5 names"),
        ({"opset": 3}, TypeError, "metadata must not be called 'opset'"),
        ({"network": nn.Linear(2, 2)}, TypeError, "model must be one of"),
        ({"network": create_model("baseline-cnn", **CNN).to("meta")}, ValueError, "on the meta device"),
        ({"network": create_model("quickstart", **TINY), "image_size": 8}, ValueError, "at least 13 rows and columns"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("old.onnx").write_text("old")
    Path("folder.onnx").mkdir()
    monkeypatch.setattr(onnx_file, "require_packages", lambda _precision: None)
    with pytest.raises(error, match=message):
        export_network(**{"network": cnn(), "format": "onnx", "path": "a.onnx", **arguments})
    assert Path("old.onnx").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.onnx", "old.onnx"]


@pytest.mark.parametrize(
    ("missing", "precision", "message"),
    [
        ("onnx", "float32", r'export to ONNX needs onnx: pip install "matcaps\[export\]"'),
        ("onnxscript", "float32", r'needs onnxscript: pip install "matcaps\[export\]"'),
        ("onnxruntime", "int8", "in int8 needs onnxruntime: pip install onnxruntime"),
    ],
)
def test_a_missing_package_is_named(
    missing: str, precision: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(onnx_file, "is_there", lambda package: package != missing)
    with pytest.raises(ImportError, match=message):
        export_network(cnn(), "onnx", tmp_path / "a.onnx", precision=precision)


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "network.pt2"
    path.write_text("old")
    monkeypatch.setattr(
        "matcaps.models.export.comparison.expected_outputs",
        lambda _network, images, *, trace: {"scores": torch.zeros(len(images), 5)},
    )
    with pytest.raises(ValueError, match=r"to 0\.0001; its outputs differ by 0\.\d+ on random images"):
        export_network(cnn(), "torch", path, overwrite=True)
    assert path.read_text() == "old"


@pytest.mark.skipif(not os.environ.get("MATCAPS_TEST_EXPORT"), reason="MATCAPS_TEST_EXPORT is not set: many minutes")
@with_onnx
@pytest.mark.parametrize("name", [*matcaps.list_models(), *matcaps.list_pretrained()])
def test_every_preset_and_all_weights_that_come_with_matcaps(name: str, tmp_path: Path):
    network = matcaps.from_pretrained(name) if name in matcaps.list_pretrained() else made(name)
    trace = isinstance(network, EMCapsNet)
    exported = export_network(network, "onnx", tmp_path / "network.onnx", trace=trace)
    assert exported.num_nodes is not None
    assert exported.num_nodes < 1000
    assert_computes_the_same(exported.path, network, trace=trace)
