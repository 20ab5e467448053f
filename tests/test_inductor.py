"""torch.compile with its default backend, which writes C++ around the operator, and export of a whole network.

To import Inductor and to have its C++ compiled takes half a minute, more than any other test: ``make test-slow``. In
``make test`` the operator is compiled by the backend "aot_eager", with the same graphs (``tests/routing``).
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import torch._inductor.config

import matcaps
from matcaps.models import EMCapsNet
from matcaps.routing import available_implementations, conv_em_routing

COMPILER = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
HAS_COMPILER = shutil.which(COMPILER) and Path(sysconfig.get_path("include"), "Python.h").exists()

needs_core = pytest.mark.skipif("native" not in available_implementations(), reason="the compiled core is missing")
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason=f"Inductor needs {COMPILER} and the headers of Python")
needs_time = pytest.mark.skipif(not os.environ.get("MATCAPS_TEST_SLOW"), reason="takes half a minute: make test-slow")

# Tracing makes torch warn of its own parts.
pytestmark = pytest.mark.filterwarnings("ignore:::torch")


@pytest.fixture
def inductor(tmp_path, monkeypatch):
    """An empty cache, so that something is compiled; without what costs more than it saves in two small programs: a
    pool of processes, headers compiled beforehand, and the search for the processor's vectors."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    options = {"compile_threads": 1, "cpp_cache_precompile_headers": False, "cpp.simdlen": 1}
    known = {name: value for name, value in options.items() if name in torch._inductor.config._config}
    with torch._inductor.config.patch(known):
        yield
    assert list(tmp_path.rglob("*.so")), "Inductor compiled nothing"
    torch.compiler.reset()


def make_quickstart():
    torch.manual_seed(0)
    network = matcaps.create_model("quickstart")
    assert isinstance(network, EMCapsNet)
    images = torch.randn(4, 1, 28, 28)
    network.calibrate(images)
    return network, images


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5 * b.abs().max().item())


@needs_core
@needs_compiler
@needs_time
def test_operator_through_inductor(inductor):
    random = torch.Generator().manual_seed(1)
    shapes = [(2, 6, 5, 3, 4, 4), (2, 6, 5, 3), (3, 3, 3, 5, 4, 4), (5,), (5,)]
    inputs = [torch.randn(shape, generator=random) * 0.5 for shape in shapes]

    def route(poses, activations, *parameters):  # with something on either side that Inductor makes code of
        parents = conv_em_routing(
            poses.sin(),
            activations.sigmoid(),
            *parameters,
            inverse_temperature=[0.02, 0.03, 0.04],
            stride=2,
            implementation="native",
        )
        return parents.poses.square().sum() + parents.activations.sum()

    def value_and_grads(function):
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = function(*leaves)
        return [value.detach(), *torch.autograd.grad(value, leaves)]

    assert_close(value_and_grads(torch.compile(route, fullgraph=True)), value_and_grads(route))


@needs_core
@needs_compiler
@needs_time
def test_quickstart_through_inductor(inductor):
    network, images = make_quickstart()

    def value_and_grads(function):
        classes = function(images)
        loss = classes.activations.square().sum() + classes.poses.square().mean()
        return [*(x.detach() for x in classes), *torch.autograd.grad(loss, list(network.parameters()))]

    assert_close(value_and_grads(torch.compile(network, fullgraph=True)), value_and_grads(network))


@needs_core
def test_quickstart_exported():
    network, images = make_quickstart()
    network.eval()
    exported = torch.export.export(network, (images,))
    assert "native_routing" in exported.graph_module.print_readable(print_output=False)
    found, expected = exported.module()(images), network(images)
    torch.testing.assert_close(found.activations, expected.activations, rtol=0, atol=0)
    torch.testing.assert_close(found.poses, expected.poses, rtol=0, atol=0)
