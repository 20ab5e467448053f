"""A network as a program of ``torch.export``, with the names and shapes of its outputs."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree

INPUT = "images"
"""The name of the input."""


@dataclass(frozen=True)
class Program:
    """What was traced.

    Attributes:
        graph: the module that was traced.
        program: what ``torch.export`` made of it.
        example: images that it was traced with, ``[B, C, H, W]``.
        outputs: shape of each output for the example, by name, in the order of the program's.
        dynamic_batch: whether it takes any number of images.
    """

    graph: nn.Module
    program: ExportedProgram
    example: Tensor
    outputs: dict[str, tuple[int, ...]]
    dynamic_batch: bool


@torch.no_grad()
def trace_program(graph: nn.Module, example: Tensor, *, dynamic_batch: bool) -> Program:
    """Trace a module that maps images to named outputs."""
    shapes = ({0: Dim("batch")},) if dynamic_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, (example,), dynamic_shapes=shapes)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            for private in ("stack_trace", "nn_module_stack", "source_fn_stack"):  # has paths of this machine
                node.meta.pop(private, None)
    made = graph(example)
    spec = program.call_spec.out_spec
    assert spec is not None
    order: dict[str, int] = _pytree.tree_unflatten(range(len(made)), spec)
    names = sorted(order, key=lambda name: order[name])
    return Program(graph, program, example, {name: tuple(made[name].shape) for name in names}, dynamic_batch)
