"""The GPU path as operators of torch: opcheck, compile, refusals, CUDA graphs; and doing without NVIDIA's compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import matcaps
from matcaps.routing import (
    available_implementations,
    class_em_routing,
    conv_em_routing,
    cuda,
    em_routing,
    require_implementation,
    resolve_implementation,
    trace_class_em_routing,
    trace_conv_em_routing,
)
from matcaps.routing.choice import _warn_of_slow_routing
from tests.support.cuda_cases import DEVICE, needs_all, needs_device, needs_gpu

SCHEDULE = [0.02, 0.03, 0.04]


def conv_inputs(batch=1, height=4, width=5, children=3, parents=5, kernel=3, dtype=torch.float32):
    random = torch.Generator().manual_seed(1)
    inputs = [
        torch.randn(batch, height, width, children, 4, 4, generator=random, dtype=dtype),
        torch.rand(batch, height, width, children, generator=random, dtype=dtype),
        torch.randn(kernel, kernel, children, parents, 4, 4, generator=random, dtype=dtype) * 0.5,
        torch.randn(parents, generator=random, dtype=dtype) * 0.1,
        torch.randn(parents, generator=random, dtype=dtype),
    ]
    return [tensor.to(DEVICE) for tensor in inputs]


def grads_of(function, inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    poses, activations = function(*inputs)
    return [poses, activations, *torch.autograd.grad(poses.square().sum() + activations.sum(), inputs)]


def route(*inputs, **options):
    return conv_em_routing(
        *inputs, **{"inverse_temperature": SCHEDULE, "stride": 2, "implementation": "cuda", **options}
    )


@needs_device
@pytest.mark.parametrize("rule", [0, *(pytest.param(rule, marks=needs_all) for rule in (1, 2))])
@pytest.mark.parametrize("kind", ["child", "window", "class", "class without coordinates"])
def test_opcheck(kind, rule):
    inputs = conv_inputs(height=3, width=2, children=1, parents=2, kernel=2)
    coordinates = None
    if kind.startswith("class"):
        inputs[2] = inputs[2][0, 0]
    if kind == "class":
        coordinates = torch.rand(3, 2, 16, device=DEVICE, requires_grad=True)
    schedule = torch.tensor(SCHEDULE[:2], device=DEVICE)
    arguments = [x.requires_grad_() for x in (*inputs, schedule)]
    options = (1, kind == "child", rule, 5e-4, 1 / 16)
    torch.library.opcheck(cuda._forward, (*arguments, coordinates, *options, True))

    detached = [None if x is None else x.detach() for x in (*arguments, coordinates)]
    torch.library.opcheck(cuda._forward, (*detached, *options, False))
    poses, activations, *state = cuda._forward(*detached, *options, True)
    grads = [torch.rand_like(x) for x in (poses, activations)]
    torch.library.opcheck(cuda._backward, (*grads, *state, *detached, *options))


@needs_device
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["conv", "class"])
def test_compile(kind):
    inputs = conv_inputs()
    if kind == "class":
        inputs[2] = inputs[2][0, 0]

    def whole(*inputs):
        if kind == "class":
            return class_em_routing(*inputs, inverse_temperature=SCHEDULE, implementation="cuda")
        return route(*inputs)

    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    for found, expected in zip(grads_of(compiled, inputs), grads_of(whole, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@needs_device
@pytest.mark.parametrize("competition", ["child", "window"])
def test_the_same_bits_from_run_to_run(competition):
    def whole(*inputs):
        return route(*inputs, competition=competition, stride=1)

    inputs = conv_inputs(batch=2, parents=17)
    first = grads_of(whole, inputs)
    for _ in range(5 if DEVICE == "cuda" else 1):
        for found, expected in zip(grads_of(whole, inputs), first, strict=True):
            assert torch.equal(found, expected)


@needs_device
@pytest.mark.parametrize("competition", ["child", "window"])
def test_uninitialised_memory_is_not_read(competition, monkeypatch):
    def whole(*inputs):
        return route(*inputs, competition=competition)

    inputs = conv_inputs(height=6)  # the last row belongs to no window
    expected = grads_of(whole, inputs)
    new_empty, empty_like = torch.Tensor.new_empty, torch.empty_like

    def poison(tensor):
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *a, **k: poison(new_empty(self, *a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poison(empty_like(*a, **k)))
    for found, before in zip(grads_of(whole, inputs), expected, strict=True):
        assert torch.equal(found, before)


@needs_device
def test_second_order_gradients_are_refused():
    inputs = [x.requires_grad_() for x in conv_inputs()]
    parents = route(*inputs)
    (grad,) = torch.autograd.grad(parents.poses.square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="use implementation='reference'"):
        grad.sum().backward()


@needs_device
def test_gradients_of_one_result_alone():
    inputs = conv_inputs()
    for pick in (0, 1):
        grads = []
        for implementation in ("cuda", "reference"):
            leaves = [x.clone().requires_grad_() for x in inputs]
            parents = route(*leaves, implementation=implementation)
            grads.append(torch.autograd.grad(parents[pick].sum(), leaves))
        for found, expected in zip(*grads, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@needs_device
@pytest.mark.parametrize("kind", ["child", "window", "class"])
def test_traces_what_the_reference_traces(kind):
    inputs = conv_inputs()
    options = {"inverse_temperature": SCHEDULE, "annealing": 0.5, "activation_rule": "standardised"}
    trace = trace_conv_em_routing
    if kind == "class":
        inputs[2], trace = inputs[2][0, 0], trace_class_em_routing
    else:
        options.update(stride=2, competition=kind)
    ours, theirs = (trace(*inputs, implementation=name, **options) for name in ("cuda", "reference"))
    assert len(ours) == len(theirs) == 3
    for found, expected in zip(ours, theirs, strict=True):
        for name, field in expected._asdict().items():
            torch.testing.assert_close(getattr(found, name), field, rtol=1e-3, atol=1e-4, msg=name)
    inputs[0].requires_grad_()
    with pytest.raises(ValueError, match="traces without gradients"):
        trace(*inputs, implementation="cuda", **options)


def test_auto_takes_it_on_cuda(monkeypatch):
    monkeypatch.setattr(cuda, "why_not", lambda device: None)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        assert resolve_implementation("cuda", dtype) == "cuda"
    assert resolve_implementation("cuda", torch.float32, vector_poses=True) == "reference"
    assert resolve_implementation("cpu", torch.float32) != "cuda"


def test_without_a_compiler_auto_takes_the_reference_with_one_warning(monkeypatch):
    monkeypatch.setattr(cuda, "MISSING", "cuda-bindings is not installed: pip install 'matcaps[cuda]'")
    _warn_of_slow_routing.cache_clear()
    with pytest.warns(UserWarning, match=r"slow.*pip install 'matcaps\[cuda\]'"):
        assert resolve_implementation("cuda", torch.float32) == "reference"
    assert resolve_implementation("cuda", torch.float32) == "reference"  # warnings are errors here
    assert resolve_implementation("cpu", torch.float32) != "cuda"
    with pytest.raises(RuntimeError, match=r"implementation='cuda' is not available: .*pip install 'matcaps\[cuda\]'"):
        require_implementation("cuda", torch.device("cuda"), torch.float32)


def test_tensors_on_the_cpu_are_refused_as_such_whatever_is_installed(monkeypatch):
    """A package would not help them."""
    monkeypatch.setattr(cuda, "EMULATOR", None)
    for missing in (None, "cuda-bindings is not installed"):
        monkeypatch.setattr(cuda, "MISSING", missing)
        with pytest.raises(ValueError, match=r"on CUDA devices; got torch\.float32 on cpu: move the tensors"):
            route(*(x.cpu() for x in conv_inputs()))


def test_a_gpu_that_is_too_old_takes_the_reference(monkeypatch):
    """As where NVRTC is there: the kernels' copies would not compile for it."""
    monkeypatch.setattr(cuda, "MISSING", None)
    monkeypatch.setattr(cuda, "why_no_compiler", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5) if index == 1 else (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Old GPU")
    cuda._too_old.cache_clear()
    _warn_of_slow_routing.cache_clear()
    try:
        assert resolve_implementation("cuda:0", torch.float32) == "cuda"
        with pytest.warns(UserWarning, match=r"slow.*8\.0 or newer; Old GPU has 7\.5"):
            assert resolve_implementation("cuda:1", torch.float32) == "reference"
    finally:
        cuda._too_old.cache_clear()


def test_a_package_that_cannot_be_imported_is_a_reason_and_no_failure(monkeypatch):
    def fail(name):
        raise ImportError("libc.so: version GLIBC_9 not found")

    monkeypatch.setattr(cuda.importlib.util, "find_spec", fail)
    assert "cannot be imported (libc.so: version GLIBC_9 not found): pip install" in (cuda._find_missing() or "")


def test_an_explicit_choice_never_falls_back(monkeypatch):
    monkeypatch.setattr(cuda, "why_not", lambda device: None)
    inputs = [x.cpu() for x in conv_inputs()]
    with pytest.raises(ValueError, match=r"on CUDA devices; got torch\.float32 on cpu"):
        route(*inputs)
    vector = [*inputs[:2], torch.randn(3, 3, 3, 5, 16, 16), *inputs[3:]]
    with pytest.raises(ValueError, match="16×16 matrices for vector poses"):
        route(*vector)
    with pytest.raises(ValueError, match="never to have the votes in memory"):
        em_routing(torch.randn(2, 3, 5, 16), torch.rand(2, 3), torch.zeros(5), torch.zeros(5),
                   inverse_temperature=[1.0], implementation="cuda")  # fmt: skip


@pytest.mark.parametrize("block", [False, True])
def test_importing_matcaps_never_imports_the_compiler(block):
    code = f"""
import sys, importlib.util
import torch
names = ("cuda.bindings.nvrtc", "cuda.bindings.driver")
before = [name for name in names if name in sys.modules]
if {block}:  # as where it is not installed
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name.startswith("cuda.") else find_spec(name, *rest)
    sys.modules["cuda"] = None
import matcaps, matcaps.models, matcaps.layers
from matcaps.routing import available_implementations, conv_em_routing, require_implementation, resolve_implementation
inputs = torch.randn(1, 3, 3, 2, 4, 4), torch.rand(1, 3, 3, 2), torch.randn(3, 3, 2, 3, 4, 4), *torch.zeros(2, 3)
conv_em_routing(*inputs, inverse_temperature=[1.0])
available_implementations()
assert [name for name in names if name in sys.modules] == before
assert "matcaps.routing.cuda_program" not in sys.modules
if {block}:
    assert "cuda" not in available_implementations()
    assert resolve_implementation("cuda", torch.float32) == "reference"
    try:
        require_implementation("cuda", torch.device("cuda"), torch.float32)
    except RuntimeError as error:
        print(error)
"""
    environment = dict(os.environ, PYTHONPATH=str(Path(matcaps.__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ("implementation='cuda' is not available:" in done.stdout) == block


@needs_gpu
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream")  # torch's word on leaves made before a capture
def test_cuda_graph():
    inputs = [x.requires_grad_() for x in conv_inputs(batch=3)]

    def work():
        poses, activations = route(*inputs)
        return [poses, activations, *torch.autograd.grad(poses.square().sum() + activations.sum(), inputs)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    with torch.no_grad():
        inputs[0].mul_(1.5)
    graph.replay()
    torch.cuda.synchronize()
    for found, expected in zip(captured, work(), strict=True):
        assert torch.equal(found, expected)


@needs_gpu
def test_memory_stays_far_below_the_votes():
    inputs = conv_inputs(batch=32, height=14, width=14, children=16, parents=16)
    votes = 32 * 36 * 9 * 16 * 16 * 16 * 4
    grads_of(route, inputs)  # what is compiled and loaded has memory of its own
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    grads_of(route, inputs)
    assert torch.cuda.max_memory_allocated() - before < votes


def test_the_rest_of_the_package_can_name_it():
    assert "cuda" in matcaps.routing.choice.IMPLEMENTATIONS
    assert set(available_implementations()) <= set(matcaps.routing.choice.IMPLEMENTATIONS)


@needs_device
@pytest.mark.parametrize("kind", ["child", "window", "class"])
def test_mapped_and_differentiated_by_torch_func(kind):
    """More images of one call, whose state has images in three places; and sample by sample where gradients are."""
    inputs = conv_inputs(batch=1, height=3, width=2, children=1, parents=2, kernel=2)
    options = {"inverse_temperature": SCHEDULE[:2], "implementation": "cuda"}
    if kind == "class":
        inputs[2] = inputs[2][0, 0]
    else:
        options |= {"competition": kind}

    def loss(poses):
        door = class_em_routing if kind == "class" else conv_em_routing
        parents = door(poses, *inputs[1:], **options)
        return parents.poses.square().sum() + parents.activations.sum()

    several = torch.stack([inputs[0], 0.5 * inputs[0]])
    expected = []
    for poses in several:
        leaf = poses.clone().requires_grad_()
        expected.append(torch.autograd.grad(loss(leaf), leaf)[0])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(several), torch.stack(expected))
    summed = torch.func.grad(lambda several: torch.func.vmap(loss)(several).sum())(several)
    torch.testing.assert_close(summed, torch.stack(expected))
