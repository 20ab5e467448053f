"""The GPU path's registered operators, called directly with what does not fit: refused before a kernel runs, so that
this needs neither NVIDIA's compiler nor a GPU."""

import pytest
import torch

from matcaps.routing import RoutingInputs, RoutingSpec, cuda
from matcaps.routing.operators import operator_options

NAMES = ("poses", "activations", "weight", "beta_use", "beta_activation", "inverse_temperature", "coordinates")
STATE = ("records", "logits", "partitions")


def arguments(kind: str, device: str = "cpu") -> dict[str, torch.Tensor | None]:
    shapes = {
        "poses": [2, 5, 4, 3, 4, 4],
        "activations": [2, 5, 4, 3],
        "weight": [3, 3, 3, 2, 4, 4] if kind == "conv" else [3, 2, 4, 4],
        "beta_use": [2],
        "beta_activation": [2],
        "inverse_temperature": [3],
        "coordinates": None if kind == "conv" else [5, 4, 16],
    }
    made = {name: None if shape is None else torch.rand(shape, device="meta") for name, shape in shapes.items()}
    made |= dict(zip(("grad_poses", "grad_activations", *STATE), forward(made), strict=True))
    return {name: None if tensor is None else torch.zeros(tensor.shape, device=device) for name, tensor in made.items()}


def forward(tensors: dict, stride: int = 1) -> tuple[torch.Tensor, ...]:
    return torch.ops.matcaps.cuda_routing(*(tensors[name] for name in NAMES), stride, True, False, 5e-4, 1.0, True)


def backward(tensors: dict, stride: int = 1) -> tuple[torch.Tensor, ...]:
    names = ("grad_poses", "grad_activations", *STATE, *NAMES)
    return torch.ops.matcaps.cuda_routing_backward(*(tensors[n] for n in names), stride, True, False, 5e-4, 1.0)


@pytest.mark.parametrize("kind", ["conv", "class"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensor: tensor[..., :-1].clone(),
        lambda tensor: tensor[:0],
        lambda tensor: tensor.flatten()[None],
        lambda tensor: tensor.double(),
        lambda tensor: tensor.long(),
        lambda tensor: tensor.to("meta"),
    ],
    ids=["shorter", "empty", "flat", "float64", "whole numbers", "on the meta device"],
)
def test_one_argument_that_does_not_fit_raises(kind, spoil):
    good = arguments(kind)
    for name, tensor in good.items():
        if tensor is None:
            continue
        spoilt = {**good, name: spoil(tensor)}
        if name in NAMES and name != "inverse_temperature":
            with pytest.raises((ValueError, TypeError), match="matcaps::cuda_routing: "):
                forward(spoilt)
        with pytest.raises((ValueError, TypeError), match="matcaps::cuda_routing_backward: "):
            backward(spoilt)


@pytest.mark.parametrize("kind", ["conv", "class"])
def test_a_state_that_is_not_contiguous_and_sizes_that_make_no_routing_raise(kind):
    good = arguments(kind)
    for name in STATE:
        state = good[name]
        assert state is not None
        with pytest.raises(ValueError, match=f"{name} must be contiguous"):
            backward({**good, name: state.transpose(0, -1).contiguous().transpose(0, -1)})
    for call in (forward, backward):
        with pytest.raises(ValueError, match="must be at least 1"):
            call(good, 0)
    with pytest.raises(TypeError, match=r"of torch\.float32 or torch\.float64; got torch\.float16"):
        forward({name: None if tensor is None else tensor.half() for name, tensor in good.items()})


@pytest.mark.parametrize("kind", ["conv", "class"])
def test_on_the_meta_device_gradients_have_the_shapes_of_the_inputs(kind):
    meta = arguments(kind, "meta")
    for name, grad in zip(NAMES, backward(meta), strict=True):
        tensor = meta[name]
        assert grad.shape == ((0,) if tensor is None else tensor.shape)


def test_the_state_is_what_the_shapes_say():
    poses, weight = torch.empty(2, 5, 4, 3, 4, 4), torch.empty(3, 3, 3, 2, 4, 4)
    schedule = torch.empty(3)
    for child in (True, False):
        inputs = RoutingInputs(poses, poses[..., 0, 0], weight, schedule, schedule, schedule)
        options = operator_options(RoutingSpec(competition="child" if child else "window"))
        results = cuda._empty_results(inputs, options, False, True)
        assert [part.shape for part in results[2:]] == list(cuda._state_shapes(inputs, options))
