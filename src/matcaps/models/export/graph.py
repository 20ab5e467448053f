"""What an exported network computes: named tensors from images, with plain numbers for all that is fixed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from matcaps.capsules import POSE_SIZE, Capsules, RoutingIteration
from matcaps.layers.transformation import transform_poses
from matcaps.models.baseline_cnn import BaselineCNN
from matcaps.models.config import ROUTED_LAYERS
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.statistics import folded
from matcaps.routing import RoutingInputs, trace_class, trace_conv

Outputs = dict[str, Tensor]

CHILDREN = "primary_capsules.activations"
VOTES = "class_capsules.votes"

SCORES = {EMCapsNet: "activations", BaselineCNN: "scores"}
"""By kind of network, the output that has the class scores."""

MEANINGS = {
    "activations": "how active each class capsule is, 0 to 1: the class scores",
    "poses": "each class capsule's pose matrix",
    "scores": "the class scores: the logits' softmax",
    "logits": "the last layer's output",
    CHILDREN: "how active each primary capsule is, by row, column and type",
    VOTES: "each child's vote for each class's pose, 16 numbers; children by row, column and type",
    "activation": "by iteration: how active each parent is",
    "mean": "by iteration: each parent's mean vote, 16 numbers",
    "variance": "by iteration: the votes' variance about that mean",
    "mass": "by iteration: each parent's data, children's activations times what it was assigned of them",
    "cost": "by iteration: the cost of describing a parent's data, in nats",
    "assignment": "by iteration: what share of each child went to each parent; children by row, column and type",
}
"""What each output is; what a layer's trace has, by its name behind the layer's."""


def exported_graph(network: nn.Module, size: tuple[int, int], *, trace: bool) -> nn.Module:
    """A module from images ``[B, C, H, W]`` to named outputs, which shares no memory with the network.

    Args:
        network: an :class:`EMCapsNet` or :class:`BaselineCNN` on the CPU, in evaluation mode, in float32.
        size: rows and columns of the images.
        trace: whether every iteration's state is among the outputs.
    """
    if isinstance(network, EMCapsNet):
        return _CapsNetGraph(network, size, trace=trace).eval().requires_grad_(False)
    assert isinstance(network, BaselineCNN)
    return _CNNGraph(network).eval().requires_grad_(False)


@torch.no_grad()
def expected_outputs(network: nn.Module, images: Tensor, *, trace: bool) -> Outputs:
    """The same outputs as the network itself computes them, by whichever implementation it routes."""
    output = network(images)
    if not isinstance(network, EMCapsNet):
        return {"scores": BaselineCNN.class_scores(output), "logits": output}
    outputs = {"activations": output.activations, "poses": output.poses}
    if trace:
        outputs[CHILDREN] = network.layer_outputs(images)["primary_capsules"].activations
        for name, states in network.trace(images).items():
            outputs |= _named_states(name, states)
        outputs[VOTES] = network.votes(images, "class_capsules")
    return outputs


def meaning(output: str) -> str:
    """What an output is, in words."""
    return MEANINGS.get(output) or MEANINGS[output.rpartition(".")[2]]


class _CNNGraph(nn.Module):
    def __init__(self, network: BaselineCNN):
        super().__init__()
        twin = BaselineCNN(network.config)
        twin.load_state_dict(network.state_dict())
        self.network = twin

    def forward(self, images: Tensor) -> Outputs:
        logits = self.network(images)
        return {"scores": self.network.class_scores(logits), "logits": logits}


class _CapsNetGraph(nn.Module):
    """The network of plain numbers that the given one amounts to; see :func:`matcaps.models.folded`."""

    def __init__(self, network: EMCapsNet, size: tuple[int, int], *, trace: bool):
        super().__init__()
        plain = folded(network).eval()
        with torch.no_grad():
            inputs = plain._layer_inputs(torch.zeros(1, plain.config.in_channels, *size))
            for name in ROUTED_LAYERS:
                if getattr(plain, name).routing.kind == "em":
                    setattr(plain, name, _Routing(getattr(plain, name), *inputs[name]))
        self.network, self.trace = plain, trace

    def forward(self, images: Tensor) -> Outputs:
        traces: Outputs = {}

        def route(name: str, routing: Any, capsules: Capsules, *coordinates: Tensor | None) -> Capsules:
            if not isinstance(routing, _Routing):  # a routing other than EM, whose layer is as it is
                return routing(capsules, *coordinates)
            states = routing(capsules)
            if self.trace:
                traces.setdefault(CHILDREN, capsules.activations)
                traces.update(_named_states(name, states))
                if name == "class_capsules":
                    traces[VOTES] = routing.votes(capsules)
            last = states[-1]
            return Capsules(last.mean.unflatten(-1, (POSE_SIZE, POSE_SIZE)), last.activation)

        classes = self.network._walk(images, route)
        return {"activations": classes.activations, "poses": classes.poses, **traces}


class _Routing(nn.Module):
    """A routed layer whose β, λ and coordinates are constants, in standard operations of torch."""

    weight: Tensor
    beta_use: Tensor
    beta_activation: Tensor
    inverse_temperature: Tensor
    coordinates: Tensor | None

    def __init__(self, layer: Any, capsules: Capsules, coordinates: Tensor | None = None):
        super().__init__()
        is_class = layer.weight.ndim == 4
        offset = layer.vote_offset(capsules, coordinates) if is_class else None
        self.spec = replace(layer.routing.spec, implementation="reference")
        self._trace = trace_class if is_class else trace_conv
        self.stride = self.spec.stride
        constants = layer.routing.inputs(capsules, layer.weight, offset)
        for name in ("weight", "beta_use", "beta_activation", "inverse_temperature", "coordinates"):
            value = getattr(constants, name)
            self.register_buffer(name, None if value is None else value.detach().clone())

    def forward(self, capsules: Capsules) -> list[RoutingIteration]:
        beta = self.beta_use, self.beta_activation
        inputs = RoutingInputs(*capsules, self.weight, *beta, self.inverse_temperature, self.coordinates)
        return self._trace(inputs, self.spec)

    def votes(self, capsules: Capsules) -> Tensor:
        """The class capsules' votes, ``[B, H·W·I, J, 16]``, as :meth:`matcaps.layers.ClassCapsules.votes` has them."""
        votes = transform_poses(capsules.poses, self.weight)
        if self.coordinates is not None:
            votes = votes + self.coordinates[:, :, None, None, :]
        return votes.flatten(1, 3)


def _named_states(layer: str, states: Sequence[RoutingIteration]) -> Outputs:
    """A layer's iterations by name, ``[B, T, ...]``."""
    return {
        f"{layer}.{name}": torch.stack([getattr(state, name) for state in states], dim=1)
        for name in ("activation", "mean", "variance", "mass", "cost", "assignment")
    }
