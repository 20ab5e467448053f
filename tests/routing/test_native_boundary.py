"""The registered operators, called directly with what does not fit: an exception each time, whatever the flags of
Python, and never a read or a write beyond a tensor."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import matcaps
from matcaps.routing import available_implementations, class_em_routing, conv_em_routing, native

pytestmark = pytest.mark.skipif("native" not in available_implementations(), reason="the compiled core is missing")

NAMES = ("poses", "activations", "weight", "beta_use", "beta_activation", "inverse_temperature", "coordinates")
GRADS = ("grad_poses", "grad_activations", "state")


def arguments(kind: str = "conv", device: str = "cpu") -> dict[str, torch.Tensor | None]:
    """Everything that the backward operator takes: of 2 maps of 5×4 with 3 types of children, and 2 of parents."""
    random = torch.Generator().manual_seed(0)
    shapes = {
        "poses": [2, 5, 4, 3, 4, 4],
        "activations": [2, 5, 4, 3],
        "weight": [3, 3, 3, 2, 4, 4] if kind == "conv" else [3, 2, 4, 4],
        "beta_use": [2],
        "beta_activation": [2],
        "inverse_temperature": [3],
        "coordinates": None if kind == "conv" else [5, 4, 16],
    }
    made = {name: None if shape is None else torch.rand(shape, generator=random) for name, shape in shapes.items()}
    poses, activations, state = forward(made)
    made |= {"grad_poses": torch.rand_like(poses), "grad_activations": torch.rand_like(activations), "state": state}
    return {name: None if tensor is None else tensor.to(device) for name, tensor in made.items()}


def forward(tensors: dict, stride: int = 1) -> tuple[torch.Tensor, ...]:
    return torch.ops.matcaps.native_routing(*(tensors[name] for name in NAMES), stride, True, False, 5e-4, 1.0, True)


def backward(tensors: dict, stride: int = 1) -> tuple[torch.Tensor, ...]:
    names = (*GRADS[:2], "state", *NAMES)
    return torch.ops.matcaps.native_routing_backward(*(tensors[n] for n in names), stride, True, False, 5e-4, 1.0)


def shorter(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    return tensor.narrow(dim, 0, tensor.shape[dim] - 1).clone()


SPOILT = {
    "shorter": lambda tensor: shorter(tensor, 0),
    "shorter at the end": lambda tensor: shorter(tensor, tensor.ndim - 1),
    "empty": lambda tensor: tensor[:0],
    "flat": lambda tensor: tensor.flatten()[None],
    "without dimensions": lambda tensor: tensor.flatten()[0],
    "of wider dtype": lambda tensor: tensor.double(),
    "of narrower dtype": lambda tensor: tensor.half(),
    "of whole numbers": lambda tensor: tensor.long(),
    "on the meta device": lambda tensor: tensor.to("meta"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("kind", ["conv", "class"])
def test_one_argument_that_does_not_fit_raises(kind, spoil):
    for name, tensor in arguments(kind).items():
        if tensor is None:
            continue
        spoilt = {**arguments(kind), name: spoil(tensor)}
        is_another_routing = name == "inverse_temperature" and spoilt[name].shape == (2,)
        if name not in GRADS and not is_another_routing:
            with pytest.raises((ValueError, TypeError), match=r"matcaps::native_routing: "):
                forward(spoilt)
        with pytest.raises((ValueError, TypeError), match=r"matcaps::native_routing_backward: "):
            backward(spoilt)


@pytest.mark.parametrize("kind", ["conv", "class"])
def test_everything_of_a_dtype_that_the_core_lacks_raises(kind):
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        wrong = {name: None if tensor is None else tensor.to(dtype) for name, tensor in arguments(kind).items()}
        for call in (forward, backward):
            with pytest.raises(TypeError, match=r"poses must be of torch\.float32 or torch\.float64; got"):
                call(wrong)


@pytest.mark.parametrize("rule", [-1, 3])
def test_a_rule_that_there_is_not_raises(rule):
    good = arguments()
    with pytest.raises(ValueError, match=f"activation_rule must be a place in .*; got {rule}"):
        torch.ops.matcaps.native_routing(*(good[name] for name in NAMES), 1, True, rule, 5e-4, 1.0, True)


def test_sizes_that_make_no_routing_raise():
    good = arguments()
    for stride in (0, -1):
        for call in (forward, backward):
            with pytest.raises(ValueError, match="stride, types, parents, iterations"):
                call(good, stride)
    for name, tensor in (
        ("inverse_temperature", torch.rand(0)),
        ("weight", torch.rand(6, 6, 3, 2, 4, 4)),
        ("weight", torch.rand(3, 2, 3, 2, 4, 4)),
        ("weight", torch.rand(0, 0, 3, 2, 4, 4)),
        ("weight", torch.rand(3, 3, 3, 0, 4, 4)),
        ("weight", torch.rand(3, 3, 3, 2, 16, 16)),
        ("poses", torch.rand(2, 5, 4, 0, 4, 4)),
        ("coordinates", torch.rand(5, 4, 16)),
    ):
        for call in (forward, backward):
            with pytest.raises(ValueError, match="matcaps::native_routing"):
                call({**good, name: tensor})


def test_a_state_of_another_routing_or_not_contiguous_raises():
    good = arguments()
    state = good["state"]
    assert state is not None
    unkept = torch.ops.matcaps.native_routing(*(good[n] for n in NAMES), 1, True, False, 5e-4, 1.0, False)[2]
    for other in (unkept, arguments("class")["state"], torch.cat([state, state], dim=1)):
        with pytest.raises(ValueError, match="state must have shape"):
            backward({**good, "state": other})
    with pytest.raises(ValueError, match="state must be contiguous"):
        backward({**good, "state": state.T.contiguous().T})


@pytest.mark.parametrize("kind", ["conv", "class"])
def test_inputs_and_gradients_that_are_not_contiguous_are_copied(kind):
    good = arguments(kind)

    def scattered(tensor):
        return None if tensor is None else tensor.repeat_interleave(2, dim=-1)[..., ::2]

    spread = {name: tensor if name == "state" else scattered(tensor) for name, tensor in good.items()}
    for found, expected in zip(forward(spread), forward(good), strict=True):
        assert torch.equal(found, expected)
    for found, expected in zip(backward(spread), backward(good), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["conv", "class"])
def test_on_the_meta_device_shapes_come_and_what_does_not_fit_raises(kind):
    good, meta = arguments(kind), arguments(kind, "meta")
    for call in (forward, backward):
        for found, expected in zip(call(meta), call(good), strict=True):
            assert found.device.type == "meta"
            assert found.shape == expected.shape
    for name, tensor in meta.items():
        if tensor is not None:
            with pytest.raises(ValueError, match="matcaps::native_routing_backward: "):
                backward({**meta, name: shorter(tensor, tensor.ndim - 1)})


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 1), (3, 2), (None, 1)])
@pytest.mark.parametrize("parents", [1, 7, 16, 17])
def test_the_size_of_a_state_is_the_cores_for_symbols_too(kernel, stride, parents):
    """For heights and widths that are symbols it is put together of what the core says of numbers."""
    weight = torch.empty(*([kernel, kernel] if kernel else []), 3, parents, 4, 4)
    for height, width in ((3, 3), (4, 7), (9, 3)):
        numbers = SimpleNamespace(shape=(1, height, width, 3, 4, 4))
        symbols = SimpleNamespace(shape=(1, _Symbol(height), _Symbol(width), 3, 4, 4))
        for iterations in (1, 3):
            expected = native._state_size(numbers, weight, stride, iterations)  # type: ignore[arg-type]
            assert native._state_size(symbols, weight, stride, iterations) == expected  # type: ignore[arg-type]


class _Symbol(int):
    """A number that does not look like one."""


@pytest.mark.parametrize("kind", ["conv", "class"])
def test_compiled_for_maps_of_any_size(kind):
    tensors = arguments(kind)
    inputs = [tensors[name] for name in NAMES[:5]]

    def route(poses, activations, *others):
        options = {"inverse_temperature": [0.1, 0.2], "implementation": "native"}
        if kind == "class":
            return class_em_routing(poses, activations, *others, **options)
        return conv_em_routing(poses, activations, *others, **options)

    torch._dynamo.reset()
    compiled = torch.compile(route, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, height, width in ((2, 5, 4), (3, 6, 7)):
        fresh = [torch.rand(batch, height, width, 3, 4, 4), torch.rand(batch, height, width, 3), *inputs[2:]]
        grads = []
        for function in (compiled, route):
            leaves = [tensor.clone().requires_grad_() for tensor in fresh]
            parents = function(*leaves)
            loss = parents.poses.square().sum() + parents.activations.sum()
            grads.append([*parents, *torch.autograd.grad(loss, leaves)])
        for found, expected in zip(*grads, strict=True):
            assert torch.equal(found, expected)


def test_without_asserts_it_is_refused_all_the_same():
    """Which python -O leaves out."""
    script = """
import torch, matcaps.routing
inputs = [torch.rand(1, 3, 3, 2, 4, 4), torch.rand(1, 3, 3, 2), torch.rand(3, 3, 2, 3, 4, 4), *torch.zeros(2, 3)]
inputs += [torch.ones(2), None]
options = 1, True, False, 5e-4, 1.0
poses, activations, state = torch.ops.matcaps.native_routing(*inputs, *options, True)
refused = 0
for index, tensor in enumerate([poses, activations, state, *inputs[:-1]]):
    for spoilt in (tensor[..., :-1].clone(), tensor.double(), tensor.to("meta")):
        given = [poses, activations, state, *inputs]
        given[index] = spoilt
        try:
            torch.ops.matcaps.native_routing_backward(*given, *options)
        except (ValueError, TypeError):
            refused += 1
print(__debug__, refused)
"""
    environment = dict(os.environ, PYTHONPATH=str(Path(matcaps.__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-O", "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "27"]


def test_the_cores_own_functions_refuse_what_they_cannot_read():
    assert native.LIBRARY is not None
    x = torch.rand(4, 6)
    torch.testing.assert_close(native.LIBRARY.elementwise("exp", x.T), x.T.exp())
    for wrong in (x.half(), x.long(), x.to("meta")):
        with pytest.raises(ValueError, match="float32 and float64 on the CPU"):
            native.LIBRARY.elementwise("exp", wrong)
