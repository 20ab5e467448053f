"""The compiled CPU core as operators of torch: opcheck, compile, export, threads, failures, and doing without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import matcaps
from matcaps.routing import (
    available_implementations,
    class_em_routing,
    conv_em_routing,
    em_routing,
    native,
    resolve_implementation,
    trace_conv_em_routing,
)

needs_core = pytest.mark.skipif("native" not in available_implementations(), reason="the compiled core is missing")

SCHEDULE = [0.02, 0.03, 0.04]


def conv_inputs(batch=2, height=6, width=5, children=3, parents=5, kernel=3, dtype=torch.float32):
    random = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, height, width, children, 4, 4, generator=random, dtype=dtype),
        torch.rand(batch, height, width, children, generator=random, dtype=dtype),
        torch.randn(kernel, kernel, children, parents, 4, 4, generator=random, dtype=dtype) * 0.5,
        torch.randn(parents, generator=random, dtype=dtype) * 0.1,
        torch.randn(parents, generator=random, dtype=dtype),
    ]


def grads_of(function, inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    poses, activations = function(*inputs)
    return [poses, activations, *torch.autograd.grad(poses.square().sum() + activations.sum(), inputs)]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@needs_core
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["child", "window", "class"])
def test_opcheck(kind, dtype):
    inputs = conv_inputs(dtype=dtype)
    coordinates = None
    if kind == "class":
        inputs[2] = inputs[2][0, 0]
        coordinates = torch.rand(6, 5, 16, dtype=dtype)
    schedule = torch.tensor(SCHEDULE, dtype=dtype)
    arguments = [x.requires_grad_() for x in (*inputs, schedule)]
    options = (2 if kind != "class" else 1, kind == "child", kind == "window", 5e-4, 1 / 16)
    torch.library.opcheck(native._forward, (*arguments, coordinates, *options, True))

    parents = native._forward(*arguments, coordinates, *options, True)
    detached = [x.detach() for x in arguments]
    grads = [torch.rand_like(x) for x in parents[:2]]
    torch.library.opcheck(native._backward, (*grads, parents[2].detach(), *detached, coordinates, *options))


@needs_core
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["conv", "class"])
def test_compile_and_export(kind):
    inputs = conv_inputs()
    if kind == "class":
        inputs[2] = inputs[2][0, 0]

    def route(*inputs):
        if kind == "class":
            return class_em_routing(*inputs, inverse_temperature=SCHEDULE)
        return conv_em_routing(*inputs, inverse_temperature=SCHEDULE, stride=2)

    compiled = torch.compile(route, fullgraph=True, backend="aot_eager")
    for found, expected in zip(grads_of(compiled, inputs), grads_of(route, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)

    class Route(torch.nn.Module):
        def forward(self, *inputs):
            return tuple(route(*inputs))

    exported = torch.export.export(Route(), tuple(inputs))
    assert "native_routing" in exported.graph_module.print_readable(print_output=False)
    torch.testing.assert_close(exported.module()(*inputs), tuple(route(*inputs)), rtol=0, atol=0)


@needs_core
@pytest.mark.parametrize("batch", [1, 2, 3, 8, 41])
@pytest.mark.parametrize("competition", ["child", "window"])
def test_same_results_from_run_to_run_and_close_across_threads(batch, competition, threads):
    inputs = conv_inputs(batch=batch, parents=17)

    def route(*inputs):
        return conv_em_routing(
            *inputs, inverse_temperature=SCHEDULE, competition=competition, stride=2, implementation="native"
        )

    results = {}
    for count in (1, 2, 5):
        threads(count)
        results[count] = grads_of(route, inputs)
        for found, expected in zip(grads_of(route, inputs), results[count], strict=True):
            assert torch.equal(found, expected)
    for count in (2, 5):
        for index, (found, expected) in enumerate(zip(results[count], results[1], strict=True)):
            # the results are the same bits; sums over windows and images add up in another order
            exact = index < 2
            torch.testing.assert_close(found, expected, rtol=0, atol=0 if exact else 2e-5 * expected.abs().max().item())


@needs_core
def test_uninitialised_memory_is_not_read(monkeypatch):
    inputs = conv_inputs(parents=5)
    expected = grads_of(lambda *x: conv_em_routing(*x, inverse_temperature=SCHEDULE, implementation="native"), inputs)
    empty = torch.Tensor.new_empty

    def poisoned(self, *arguments, **options):
        return empty(self, *arguments, **options).fill_(torch.nan)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    found = grads_of(lambda *x: conv_em_routing(*x, inverse_temperature=SCHEDULE, implementation="native"), inputs)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@needs_core
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_failure_in_a_thread_becomes_an_exception(count, share):
    native.LIBRARY.share_threads(share)
    try:
        with pytest.raises(RuntimeError, match="task 7 failed as asked"):
            native.LIBRARY.fail_in_task(count)
    finally:
        native.LIBRARY.share_threads(True)


@needs_core
def test_own_threads_give_the_same_results(threads):
    threads(2)
    inputs = conv_inputs(batch=4)

    def route(*inputs):
        return conv_em_routing(*inputs, inverse_temperature=SCHEDULE, implementation="native")

    expected = grads_of(route, inputs)
    native.LIBRARY.share_threads(False)
    try:
        for _ in range(20):
            for a, b in zip(grads_of(route, inputs), expected, strict=True):
                assert torch.equal(a, b)
    finally:
        native.LIBRARY.share_threads(True)


@needs_core
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_routes_with_threads_of_its_own():
    """Those of its parent, OpenMP's too, are not there any more: it would wait for ever."""
    script = """
import os, signal, torch
from matcaps.routing import class_em_routing
torch.manual_seed(0)
torch.set_num_threads(2)
inputs = [torch.randn(8, 6, 6, 4, 4, 4), torch.rand(8, 6, 6, 4), torch.randn(4, 5, 4, 4), torch.zeros(5)]
inputs.append(torch.zeros(5))
before = class_em_routing(*inputs, inverse_temperature=[1.0, 2.0], implementation="native").poses
child = os.fork()
if not child:
    signal.alarm(60)
    poses = class_em_routing(*inputs, inverse_temperature=[1.0, 2.0], implementation="native").poses
    os._exit(0 if poses.numpy().tobytes() == before.numpy().tobytes() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@needs_core
def test_second_order_gradients_are_refused():
    inputs = [x.requires_grad_() for x in conv_inputs()]
    parents = conv_em_routing(*inputs, inverse_temperature=SCHEDULE, implementation="native")
    (grad,) = torch.autograd.grad(parents.poses.square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="use implementation='reference'"):
        grad.sum().backward()


@needs_core
@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        ("conv", "poses"),
        ("conv", "weight"),
        ("conv", "inverse_temperature"),
        ("class", "activations"),
        ("class", "coordinates"),
    ],
)
def test_forward_mode_takes_the_reference_or_is_refused(kind, argument):
    """Torch gives an operator without a forward-mode rule a derivative of 0, and says nothing."""
    inputs = conv_inputs(batch=1, height=4, width=4, dtype=torch.float64)
    options = {"inverse_temperature": torch.tensor(SCHEDULE, dtype=torch.float64)}
    route = conv_em_routing
    if kind == "class":
        route, inputs[2] = class_em_routing, inputs[2][0, 0]
        options["coordinates"] = torch.rand(4, 4, 16, dtype=torch.float64)
    names = ["poses", "activations", "weight", "beta_use", "beta_activation"]
    at = (dict(zip(names, inputs, strict=True)) | options)[argument]
    direction = torch.rand(at.shape, dtype=at.dtype, generator=torch.Generator().manual_seed(2))

    def call(value, implementation="auto"):
        arguments = dict(zip(names, inputs, strict=True)) | options | {argument: value}
        return route(**arguments, annealing=1 / 16, implementation=implementation).poses

    step = 1e-6 * direction
    expected = (call(at + step) - call(at - step)) / 2e-6
    assert expected.abs().max() > 1e-6
    value, slope = torch.func.jvp(call, (at,), (direction,))
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(value, call(at))
    with pytest.raises(NotImplementedError, match="'native' does not support forward-mode derivatives"):
        torch.func.jvp(lambda value: call(value, "native"), (at,), (direction,))


def test_a_trace_in_forward_mode_is_the_references():
    inputs = conv_inputs(batch=1, height=4, width=4, dtype=torch.float64)

    def last(poses):
        states = trace_conv_em_routing(poses, *inputs[1:], inverse_temperature=SCHEDULE)
        return states[-1].mean

    def routed(poses):
        return conv_em_routing(poses, *inputs[1:], inverse_temperature=SCHEDULE).poses.flatten(-2)

    tangent = torch.ones_like(inputs[0])
    one, two = (torch.func.jvp(function, (inputs[0],), (tangent,))[1] for function in (last, routed))
    assert two.abs().max() > 0
    torch.testing.assert_close(one.reshape(two.shape), two)


@needs_core
def test_activation_checkpointing_changes_no_gradient():
    """Which unpacks what was saved for the backward pass, once."""

    def route(*inputs):
        return conv_em_routing(*inputs, inverse_temperature=SCHEDULE)

    def checkpointed(*inputs):
        return checkpoint(route, *inputs, use_reentrant=False)

    for one, two in zip(grads_of(route, conv_inputs()), grads_of(checkpointed, conv_inputs()), strict=True):
        assert torch.equal(one, two)


@needs_core
def test_gradients_of_one_result_alone():
    inputs = conv_inputs()
    for pick in (0, 1):
        grads = []
        for implementation in ("native", "reference"):
            leaves = [x.clone().requires_grad_() for x in inputs]
            parents = conv_em_routing(*leaves, inverse_temperature=SCHEDULE, implementation=implementation)
            grads.append(torch.autograd.grad(parents[pick].sum(), leaves))
        for found, expected in zip(*grads, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@needs_core
def test_auto_takes_the_core_on_the_cpu():
    assert resolve_implementation("cpu", torch.float32) == "native"
    assert resolve_implementation("cpu", torch.bfloat16) == "native"
    auto, chosen = (
        conv_em_routing(*conv_inputs(), inverse_temperature=SCHEDULE, implementation=name)
        for name in ("auto", "native")
    )
    assert torch.equal(auto.poses, chosen.poses)


@needs_core
def test_an_explicit_choice_never_falls_back():
    votes, activations = torch.randn(2, 3, 5, 16), torch.rand(2, 3)
    with pytest.raises(ValueError, match="because its votes are in memory"):
        em_routing(
            votes, activations, torch.zeros(5), torch.zeros(5), inverse_temperature=[1.0], implementation="native"
        )
    inputs = [x.to("meta") for x in conv_inputs()]
    with pytest.raises(ValueError, match=r"on the CPU; got torch\.float32 on meta"):
        conv_em_routing(*inputs, inverse_temperature=SCHEDULE, implementation="native")


@pytest.mark.parametrize("block", ["off", "broken"])
def test_without_the_library_everything_else_works(block, tmp_path):
    if block == "broken":
        (tmp_path / "library.so").write_bytes(b"not a library")
        block = str(tmp_path / "library.so")
    code = """
import torch
from matcaps.routing import available_implementations, conv_em_routing, native
assert "native" not in available_implementations()
inputs = torch.randn(1, 3, 3, 2, 4, 4), torch.rand(1, 3, 3, 2), torch.randn(3, 3, 2, 3, 4, 4), *torch.zeros(2, 3)
conv_em_routing(*inputs, inverse_temperature=[1.0])
try:
    conv_em_routing(*inputs, inverse_temperature=[1.0], implementation="native")
except RuntimeError as error:
    print(error)
print(native.describe())
"""
    environment = dict(os.environ, MATCAPS_NATIVE_LIBRARY=block, PYTHONPATH=str(Path(matcaps.__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "implementation='native' is not available:" in done.stdout
