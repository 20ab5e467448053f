"""What is timed: one routed layer, and whole networks. Every case makes steps that return their seconds."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

import matcaps
from matcaps.layers.routings import base as routings
from matcaps.losses import spread_loss
from matcaps.routing import conv_em_routing

Step = Callable[[], tuple[float, ...]]
"""Does one piece of work and returns the seconds of its parts."""

LAYER_CONTENDERS = ("native", "reference", "compiled")


class Layer(NamedTuple):
    """A convolutional routing, forward and backward."""

    name: str
    children: int
    parents: int
    batch: int = 24
    size: int = 14
    kernel: int = 3
    stride: int = 2
    iterations: int = 3

    @property
    def vote_components(self) -> int:
        windows = ((self.size - self.kernel) // self.stride + 1) ** 2
        return self.batch * windows * self.kernel**2 * self.children * self.parents * 16

    @property
    def operations(self) -> tuple[int, int]:
        """Floating-point operations forward and backward, counted by the formula, whatever a kernel really does."""
        t = self.iterations
        return self.vote_components * (14 * t + 4 * (t - 1)), self.vote_components * (13 * t + 5 * (t - 1) + 39)

    def inputs(self) -> list[torch.Tensor]:
        torch.manual_seed(0)
        shape = self.batch, self.size, self.size, self.children
        inputs = [
            torch.randn(*shape, 4, 4),
            torch.rand(*shape),
            torch.randn(self.kernel, self.kernel, self.children, self.parents, 4, 4) * 0.3,
            torch.zeros(self.parents),
            torch.zeros(self.parents),
        ]
        return [x.requires_grad_() for x in inputs]

    def step(self, contender: str) -> Step:
        """A step of "native", "reference" or "compiled" (the reference); returns the seconds of both passes."""
        inputs = self.inputs()
        implementation = "native" if contender == "native" else "reference"
        schedule = [0.01 * (1 - 0.95**t) for t in range(1, self.iterations + 1)]

        def route(*inputs):
            return conv_em_routing(
                *inputs, stride=self.stride, inverse_temperature=schedule, implementation=implementation
            )

        if contender == "compiled":
            route = torch.compile(route, dynamic=False)

        def step() -> tuple[float, ...]:
            start = time.perf_counter()
            parents = route(*inputs)
            middle = time.perf_counter()
            torch.autograd.grad(parents, inputs, [torch.ones_like(x) for x in parents])
            return middle - start, time.perf_counter() - middle

        return step


class Network(NamedTuple):
    """A preset on made-up images: whole training steps (forward, spread loss, backward, Adam), or inference."""

    preset: str
    batch: int = 24

    @property
    def name(self) -> str:
        return f"{self.preset}, batch {self.batch}"

    def _images(self, network: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        config = network.config  # type: ignore[attr-defined]
        size = 28 if config.in_channels == 1 else 32
        images = torch.randn(self.batch, config.in_channels, size, size)
        return images, torch.randint(config.num_classes, (self.batch,))

    def _network(self, implementation: str) -> torch.nn.Module:
        torch.manual_seed(0)
        network = matcaps.create_model(self.preset)
        for module in network.modules():
            if hasattr(module, "implementation"):
                module.implementation = implementation  # type: ignore[assignment]
        return network

    def step(self, contender: str) -> Step:
        """A training step of "native" or "reference", or "inference" with the compiled core."""
        network = self._network("reference" if contender == "reference" else "native")
        images, labels = self._images(network)
        network.calibrate(images)  # type: ignore[operator]
        optimizer = torch.optim.Adam(network.parameters())

        def train() -> tuple[float, ...]:
            start = time.perf_counter()
            optimizer.zero_grad()
            spread_loss(network(images).activations, labels, margin=0.2).backward()
            optimizer.step()
            return (time.perf_counter() - start,)

        def infer() -> tuple[float, ...]:
            start = time.perf_counter()
            with torch.inference_mode():
                network(images)
            return (time.perf_counter() - start,)

        if contender == "inference":
            network.eval()
            return infer
        return train


ROUTING_CONTENDERS = ("at once", "in blocks", "compiled")


class Routing(NamedTuple):
    """The paper's small network with a routing by name, on made-up images: forward, spread loss, backward.

    Seconds are the processor's, of all threads, so that others on the machine count little.
    """

    routing: str
    batch: int = 24

    def step(self, contender: str) -> Step:
        """A step: all votes of the batch "at once", "in blocks" of images (as it is), or these "compiled" by torch; EM
        has its compiled core, whatever the contender.
        """
        torch.manual_seed(0)
        of_em = self.routing == "em"
        changes = {} if of_em else {"routing": self.routing}
        if contender == "compiled" and not of_em:
            changes["implementation"] = "compiled"
        network = matcaps.create_model("annealed-small", **changes)
        images, labels = torch.randn(self.batch, 2, 32, 32), torch.arange(self.batch) % 5
        network.calibrate(images[:8])

        def step() -> tuple[float, ...]:
            before = dict(routings.VOTES_AT_ONCE)
            if contender == "at once":
                routings.VOTES_AT_ONCE["cpu"] = 2**60
            start = time.process_time()
            network.zero_grad()
            loss = spread_loss(network(images).activations, labels, margin=0.2)
            middle = time.process_time()
            loss.backward()
            end = time.process_time()
            routings.VOTES_AT_ONCE.update(before)
            return middle - start, end - middle

        return step


LAYERS = [Layer("8→16", 8, 16), Layer("32→32", 32, 32)]

NETWORKS = [Network("paper-small"), Network("tutorial")]

ONE_IMAGE = [Network("paper-small", 1), Network("tutorial", 1)]

_BASE = Layer("", 8, 16)
GROWTH = {
    "batch": [_BASE._replace(name=f"batch {n}", batch=n) for n in (12, 24, 48, 96)],
    "positions": [_BASE._replace(name=f"{n}×{n}", size=n) for n in (7, 14, 28, 56)],
    "types": [
        _BASE._replace(name=f"{i}→{j}", children=i, parents=j) for i, j in ((8, 16), (16, 16), (16, 32), (32, 32))
    ],
}
"""Layers whose time should grow as their number of votes does."""
