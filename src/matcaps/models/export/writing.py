"""The public function: check what is asked for, make the file's content, compare it with the network, write it."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from matcaps._numbers import whole
from matcaps._paths import user_path
from matcaps._version import __version__
from matcaps.models.baseline_cnn import BaselineCNN
from matcaps.models.em_capsnet import EMCapsNet
from matcaps.models.export import onnx_file, torch_file
from matcaps.models.export.comparison import TOLERANCE, compare
from matcaps.models.export.graph import SCORES, exported_graph, meaning
from matcaps.models.export.program import INPUT, trace_program
from matcaps.models.files import whole_file
from matcaps.models.modules import Description, build_model, describe, named_tensors, unwrap

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
"""What a network can be written as, and how the file's name must end."""

PRECISIONS = ("float32", "bfloat16", "int8")
"""How the weights are held."""

_OWN_KEYS = {"matcaps", "format", "opset", "precision", "architecture", "model", "input", "outputs", "scores"}


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: where it is.
        description: what the file says of itself: classes, input, outputs, versions.
        size: bytes.
        num_nodes: of the graph of an ONNX file; None for a program of torch.
        difference: how far its outputs lie at most from those of the network in float64, on some random images;
            relative to an output's largest number where that is above 1. None where onnxruntime is missing, so that
            nothing was compared.
    """

    path: Path
    description: dict[str, Any]
    size: int
    num_nodes: int | None
    difference: float | None


def export_network(
    network: nn.Module,
    format: str,
    path: str | PathLike[str],
    *,
    dynamic_batch: bool = True,
    image_size: int | tuple[int, int] | None = None,
    trace: bool = False,
    precision: str = "float32",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _step: None,
    **metadata: object,
) -> Exported:
    """Write a network to a file that computes what the network computes in evaluation, without matcaps.

    The routing is written out in standard operations, with the plain β and λ that the network's statistics amount to.
    Before the file is put in its place, what it computes is compared with the network; with ``"onnx"`` this needs
    onnxruntime, and is left out where that is missing.

    Args:
        network: an :class:`EMCapsNet` or :class:`BaselineCNN`, or what ``torch.compile`` or data parallelism made of
            one; it stays as it is.
        format: "onnx", of opset 20; or "torch", a program of ``torch.export``.
        path: the file, whose name ends in ``.onnx`` or ``.pt2``.
        dynamic_batch: whether the file takes batches of any size; False: one image.
        image_size: side of the images in pixels, or rows and columns, which are fixed in the file. None: what a CNN was
            made for; for a capsule network 28 with one channel, else 32.
        trace: whether every iteration of each routed layer is among the outputs.
        precision: "float32"; "bfloat16": weights rounded to 8 binary digits, half the size, computing in float32;
            "int8", for ONNX alone: weights in 8 bits, those of convolutions and fully connected layers multiplied in
            whole numbers.
        overwrite: whether a file that is there may be replaced.
        progress: is called with what is done next.
        **metadata: JSON-able facts to keep in the file, such as ``classes`` (their names) and ``preprocessing``.

    Raises:
        TypeError: the network is not one of ours, or ``metadata`` cannot be written as JSON.
        ValueError: an argument is none of these; the network is changed into what no configuration makes; the images
            do not fit; or the file would compute other numbers.
        ImportError: a package is missing; the message says which.
        OSError: the file is there already, or cannot be written.

    Example:
        >>> import tempfile
        >>> from matcaps import create_model
        >>> file = tempfile.mkdtemp() + "/cnn.pt2"
        >>> exported = export_network(create_model("baseline-cnn", hidden_units=8), "torch", file)
        >>> exported.description["outputs"]["scores"]["shape"]
        ['batch', 5]
    """
    path = _check_path(format, path, overwrite=overwrite)
    _check_options(format, precision, metadata)
    described = describe(network)
    network = unwrap(network)
    assert isinstance(network, EMCapsNet | BaselineCNN)
    if trace and isinstance(network, BaselineCNN):
        raise ValueError("trace is of capsule networks, whose routing has iterations; a BaselineCNN has none")
    if trace and isinstance(network, EMCapsNet) and network.config.routing != "em":
        raise ValueError(
            f"trace is of EM routing; got a network with routing {network.config.routing!r}: export it without"
        )
    classes = metadata.get("classes")
    if isinstance(classes, list | tuple) and len(classes) != network.num_classes:
        raise ValueError(f"classes must be {network.num_classes} names, as many as the model has; got {len(classes)}")
    size = _image_size(network, image_size)
    if format == "onnx":
        onnx_file.require_packages(precision)
    own = _own_copy(network, described)
    example = torch.zeros(2 if dynamic_batch else 1, own.config.in_channels, *size)
    own(example)  # refuses what does not fit
    progress("tracing the network")
    program = trace_program(exported_graph(own, size, trace=trace), example, dynamic_batch=dynamic_batch)
    description: dict[str, Any] = {
        "matcaps": __version__,
        "format": format,
        **({"opset": onnx_file.OPSET} if format == "onnx" else {}),
        "precision": precision,
        "architecture": type(own).__name__,
        "model": asdict(described.config),
        "input": {
            "name": INPUT,
            "dtype": "float32",
            "shape": ["batch" if dynamic_batch else 1, own.config.in_channels, *size],
            "layout": "batch, channels, rows, columns",
        },
        "outputs": {
            name: {"shape": _dynamic(shape, dynamic_batch), "meaning": meaning(name)}
            for name, shape in program.outputs.items()
        },
        "scores": SCORES[type(own)],
        **metadata,
    }
    kind: Any = onnx_file if format == "onnx" else torch_file
    written = kind.write(program, json.dumps(description), precision, progress)
    progress("comparing it with the network")
    reader = kind.reader(written.content)
    compared = None if reader is None else compare(reader, own, example, trace=trace, dynamic=dynamic_batch)
    if compared is not None and precision == "float32" and not compared.is_close:
        raise ValueError(
            f"the exported network must compute what the network computes, to {TOLERANCE:g}; its outputs differ by "
            f"{compared.file:.2g} on random images: nothing was written"
        )
    with whole_file(path) as partial:
        partial.write_bytes(written.content)
    difference = None if compared is None else compared.file
    return Exported(path, description, len(written.content), written.num_nodes, difference)


def _check_path(format: str, path: str | PathLike[str], *, overwrite: bool) -> Path:
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    path = user_path(path)
    if path.suffix != FORMATS[format]:
        raise ValueError(f"the name of a file of the format {format} must end in {FORMATS[format]}; got {path.name!r}")
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into: make it, or give another path")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: give another name, or overwrite to replace it")
    return path


def _check_options(format: str, precision: str, metadata: dict[str, object]) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision == "int8" and format != "onnx":
        raise ValueError("precision int8 is of ONNX files; got the format torch: take onnx, or bfloat16")
    for name in _OWN_KEYS & metadata.keys():
        raise TypeError(f"metadata must not be called {name!r}: the file has that for itself")
    json.dumps(metadata)


def _image_size(network: EMCapsNet | BaselineCNN, image_size: object) -> tuple[int, int]:
    if image_size is None:
        if isinstance(network, BaselineCNN):
            return network.config.image_size
        return (28, 28) if network.config.in_channels == 1 else (32, 32)
    sides = (image_size, image_size) if whole(image_size) is not None else image_size
    counts = [whole(side) for side in sides] if isinstance(sides, tuple | list) else []
    if len(counts) != 2 or any(count is None or count < 1 for count in counts):
        raise ValueError(f"image_size must be pixels a side, or rows and columns; got {image_size!r}")
    return counts[0], counts[1]  # type: ignore[return-value]


def _own_copy(network: EMCapsNet | BaselineCNN, described: Description) -> Any:
    """The network on the CPU, in float32 and in evaluation mode, without hooks."""
    tensors = named_tensors(network)
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise ValueError(f"{name} must have values; it is on the meta device: load weights first")
    with torch.random.fork_rng(devices=[]):
        own = build_model(described.config, described.departures)
    own.load_state_dict(tensors)
    return own.eval().requires_grad_(False)


def _dynamic(shape: tuple[int, ...], dynamic_batch: bool) -> list[Any]:
    return ["batch" if dynamic_batch else shape[0], *shape[1:]]
