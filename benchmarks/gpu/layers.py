"""The routed layers of ``paper`` and ``paper-small`` on a GPU: shapes, tensors, and what a pass launches."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import Layer
from matcaps.routing import RoutingInputs, RoutingSpec, class_em_routing, conv_em_routing, cuda, cuda_launch
from matcaps.routing.cuda_launch import Arguments, Launch, Plan
from matcaps.routing.operators import operator_options

VARIANCE_FLOOR = 5e-4


class RoutedLayer(NamedTuple):
    """A routing of 4×4 poses in float32 with child competition; class capsules have kernel 0."""

    name: str
    size: int
    types: int
    parents: int
    kernel: int
    stride: int = 1
    batch: int = 128
    iterations: int = 3

    @property
    def as_layer(self) -> Layer:
        """What ``cpu/bench.py`` times: a layer's operations, counted by the formula."""
        kernel = self.kernel or self.size
        return Layer(self.name, self.types, self.parents, self.batch, self.size, kernel, self.stride, self.iterations)

    def inputs(self, device: torch.device | str) -> dict[str, Tensor | None]:
        """Random tensors by the operator's names; the same numbers on every device."""
        random = torch.Generator().manual_seed(0)

        def make(*shape: int, scale: float = 1.0) -> Tensor:
            if str(device) == "meta":
                return torch.empty(shape, device="meta")
            return (torch.randn(*shape, generator=random) * scale).to(device)

        kernel = [self.kernel] * 2 if self.kernel else []
        schedule = [0.01 * (1 - 0.95**t) for t in range(1, self.iterations + 1)]
        made: dict[str, Tensor | None] = {
            "poses": make(self.batch, self.size, self.size, self.types, 4, 4),
            "activations": make(self.batch, self.size, self.size, self.types).sigmoid(),
            "weight": make(*kernel, self.types, self.parents, 4, 4, scale=0.3),
            "beta_use": make(self.parents, scale=0.0),
            "beta_activation": make(self.parents, scale=0.0),
            "inverse_temperature": torch.tensor(schedule, device=device),
            "coordinates": None if self.kernel else make(self.size, self.size, 16),
        }
        return made

    def plan(self, limit: int = cuda_launch.SHARED_LIMIT, **changes: Any) -> Plan:
        """What the product does on a GPU whose blocks can have so many bytes of shared memory, or the same work cut in
        another way."""
        inputs = RoutingInputs(**self.inputs("meta"))  # type: ignore[arg-type]
        options = operator_options(RoutingSpec(self.stride, variance_floor=VARIANCE_FLOOR))
        plan = cuda_launch.plan_for(inputs, options, limit)
        return replace(plan, cut=replace(plan.cut, **changes))

    def route(self, inputs: dict[str, Tensor | None], implementation: str) -> tuple[Tensor, Tensor]:
        """The operator through its public door."""
        inputs = dict(inputs)
        coordinates = inputs.pop("coordinates")
        temperature = inputs.pop("inverse_temperature")
        options: dict[str, Any] = {"inverse_temperature": temperature, "implementation": implementation}
        if self.kernel:
            return tuple(conv_em_routing(**inputs, stride=self.stride, **options))  # type: ignore[arg-type, return-value]
        return tuple(class_em_routing(**inputs, coordinates=coordinates, **options))  # type: ignore[arg-type, return-value]


def layers_of(preset: str, types: int, middle: int, last: int) -> list[RoutedLayer]:
    return [
        RoutedLayer(f"{preset} ConvCaps1", 14, types, middle, 3, 2),
        RoutedLayer(f"{preset} ConvCaps2", 6, middle, last, 3),
        RoutedLayer(f"{preset} ClassCaps", 4, last, 5, 0),
    ]


LAYERS = {layer.name: layer for layer in layers_of("paper-small", 8, 16, 16) + layers_of("paper", 32, 32, 32)}

GOALS_MS = {"paper ConvCaps1": (2.04, 3.59)}
"""What the project wants of an H100: forward, backward."""


def plan_on(layer: RoutedLayer, device: torch.device) -> Plan:
    """What the product does on this device; in a rehearsal on the CPU, as on an H100."""
    if device.type != "cuda":
        return layer.plan()
    from matcaps.routing.cuda_program import shared_limit

    return layer.plan(shared_limit(device))


def both_passes(plan: Plan, inputs: dict[str, Tensor | None], launch: Launch) -> list[Tensor]:
    """Launch a forward and a backward pass; the gradients."""
    results = cuda._empty_results(RoutingInputs(**inputs), plan.options, True, True)  # type: ignore[arg-type]
    names = ("out_poses", "out_activations", *cuda._STATE)
    buffers = inputs | dict(zip(names, results, strict=True))
    cuda_launch.forward(plan, buffers, launch)
    buffers |= {"grad_out_poses": torch.ones_like(results[0]), "grad_out_activations": torch.ones_like(results[1])}
    return cuda_launch.backward(plan, buffers, launch)


class Launched(NamedTuple):
    """A kernel's start."""

    kernel: str
    iteration: int
    grid: tuple[int, int, int]
    threads: int
    shared: int
    """Bytes of dynamic shared memory of a block."""

    @property
    def name(self) -> str:
        """Kernel and iteration, where a kernel is started once an iteration."""
        is_of_iteration = self.kernel.startswith(("iterate", "compete"))
        return f"{self.kernel} {self.iteration}" if is_of_iteration else self.kernel

    @property
    def is_forward(self) -> bool:
        return not self.kernel.endswith("back") and self.kernel not in ("sweep", "gather")


def recorder(found: list[Launched], launch: Launch | None = None) -> Launch:
    """Notes what is launched, and launches it, if there is something that does."""

    def record(name: str, arguments: Arguments, grid: tuple[int, int, int], threads: int, shared: int) -> None:
        found.append(Launched(name, int(arguments.iteration), grid, threads, shared))
        if launch is not None:
            launch(name, arguments, grid, threads, shared)

    return record


def launches_of(layer: RoutedLayer, limit: int = cuda_launch.SHARED_LIMIT) -> list[Launched]:
    """What both passes launch, in order, without a GPU or memory."""
    found: list[Launched] = []
    both_passes(layer.plan(limit), layer.inputs("meta"), recorder(found))
    return found


def kernels_of(layer: RoutedLayer, limit: int = cuda_launch.SHARED_LIMIT) -> list[Launched]:
    """Each kernel once, as it is first started."""
    found = launches_of(layer, limit)
    return [one for number, one in enumerate(found) if one.kernel not in {other.kernel for other in found[:number]}]


Work = Callable[[], Any]


def public_passes(layer: RoutedLayer, implementation: str, device: torch.device | str) -> tuple[Work, Work]:
    """The forward pass as in training, and both, by the operator; "compiled" is torch.compile of the reference."""
    inputs = layer.inputs(device)
    wanted = [one.requires_grad_() for name, one in inputs.items() if one is not None and name != "coordinates"]

    def route(inputs: dict[str, Tensor | None]) -> tuple[Tensor, Tensor]:
        return layer.route(inputs, "reference" if implementation == "compiled" else implementation)

    if implementation == "compiled":
        route = torch.compile(route, dynamic=False)

    def forward() -> Any:
        return route(inputs)

    def both() -> Any:
        parents = route(inputs)
        return torch.autograd.grad(parents, wanted, [torch.ones_like(part) for part in parents])

    return forward, both
