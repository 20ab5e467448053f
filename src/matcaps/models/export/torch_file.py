"""The program of ``torch.export`` as a file, which torch alone loads."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from matcaps.models.export.comparison import Reader
from matcaps.models.export.graph import Outputs
from matcaps.models.export.program import Program, trace_program

DESCRIPTION = "matcaps.json"
"""The file within the file that has the description."""


@dataclass(frozen=True)
class Written:
    """A file's content; ``num_nodes`` as in :class:`matcaps.models.Exported`."""

    content: bytes
    num_nodes: int | None


def write(program: Program, description: str, precision: str, progress: Callable[[str], None]) -> Written:
    """The file's content."""
    if precision == "bfloat16":
        program = trace_program(_Rounded(program.graph), program.example, dynamic_batch=program.dynamic_batch)
    progress("writing the program")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program.program, file, extra_files={DESCRIPTION: description})
    return Written(file.getvalue(), None)


def reader(content: bytes) -> Reader:
    """What computes with it here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(io.BytesIO(content)).module()

    def read(images: Tensor) -> Outputs:
        with torch.no_grad():
            return module(images)

    return read


class _Rounded(nn.Module):
    """A graph whose weights are held in bfloat16; β, λ and coordinates stay as they are, and so does the computing."""

    def __init__(self, graph: nn.Module):
        super().__init__()
        self._graph = [graph]  # in a list, so that its weights are not held twice
        self._names: dict[str, str] = {}
        for name, tensor in graph.state_dict().items():
            self._names[name] = name.replace(".", "_")
            held = tensor.to(torch.bfloat16) if name.endswith("weight") else tensor
            self.register_buffer(self._names[name], held.clone())

    def forward(self, images: Tensor) -> Outputs:
        tensors = {name: getattr(self, own).float() for name, own in self._names.items()}
        return functional_call(self._graph[0], tensors, (images,))
