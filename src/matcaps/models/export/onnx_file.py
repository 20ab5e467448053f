"""The program in ONNX: standard operators of one opset, our description among the metadata."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from matcaps._version import __version__
from matcaps.models.export.comparison import Reader
from matcaps.models.export.graph import Outputs
from matcaps.models.export.program import INPUT, Program
from matcaps.models.export.torch_file import Written

OPSET = 20
"""The version of ONNX's standard operators that files are written in."""

DESCRIPTION = "matcaps"
"""The key of the description in the file's metadata."""


def require_packages(precision: str) -> None:
    """Refuse where a package is missing.

    Raises:
        ImportError: the message says which, and what to install.
    """
    for package in ("onnx", "onnxscript"):
        if not is_there(package):
            raise ImportError(f'export to ONNX needs {package}: pip install "matcaps[export]"')
    if precision == "int8" and not is_there("onnxruntime"):
        raise ImportError("export to ONNX in int8 needs onnxruntime: pip install onnxruntime")


def is_there(package: str) -> bool:
    """Whether a package can be imported; it is not imported for that."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def write(program: Program, description: str, precision: str, progress: Callable[[str], None]) -> Written:
    """The file's content."""
    progress("translating it to ONNX")
    with _quiet():
        translated = torch.onnx.export(
            program.program,
            (),
            output_names=list(program.outputs),
            opset_version=OPSET,
            verbose=False,
            optimize=True,
            custom_translation_table=_exact_logistic(),
        )
    assert translated is not None
    model = translated.model_proto
    if precision != "float32":
        from matcaps.models.export.onnx_weights import with_bfloat16_weights, with_int8_weights

        progress(f"rounding the weights to {precision}")
        model = with_bfloat16_weights(model) if precision == "bfloat16" else with_int8_weights(model)
    _describe(model, description)
    return Written(model.SerializeToString(), len(model.graph.node))


def _exact_logistic() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The logistic function and its logarithm, written out: 1 / (1 + exp(−x)) and min(x, 0) − ln(1 + exp(−|x|)).

    onnxruntime's own goes no further down than −18. A parent that is out of the question would get data, and a window
    whose children are all but absent would see them all alike.
    """
    from onnxscript import opset20

    op: Any = opset20

    def sigmoid(x: Any) -> Any:
        return op.Reciprocal(op.Add(op.Exp(op.Neg(x)), op.CastLike(1.0, x)))

    def log_sigmoid(x: Any) -> Any:
        zero, one = op.CastLike(0.0, x), op.CastLike(1.0, x)
        return op.Sub(op.Min(x, zero), op.Log(op.Add(one, op.Exp(op.Neg(op.Abs(x))))))

    return {torch.ops.aten.sigmoid.default: sigmoid, torch.ops.aten.log_sigmoid.default: log_sigmoid}


def reader(content: bytes) -> Reader | None:
    """What computes with it here; None without onnxruntime."""
    if not is_there("onnxruntime"):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def read(images: Tensor) -> Outputs:
        values: list[Any] = list(session.run(names, {INPUT: images.numpy()}))
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return read


def _describe(model: Any, description: str) -> None:
    """Keep our description, and nothing that the exporter says of this machine's files."""
    model.producer_name, model.producer_version = "matcaps", __version__
    model.doc_string = "A network of matcaps; what it takes and gives is described in the metadata, in JSON."
    graph = model.graph
    for described in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del described.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    batch = _batch_names(graph)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in batch:
                dimension.dim_param = "batch"
    graph.name, graph.doc_string = "matcaps", ""
    entry = model.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, description


def _batch_names(graph: Any) -> set[str]:
    """What the exporter calls the number of images, "s34" or the like."""
    [images] = graph.input
    first = images.type.tensor_type.shape.dim[0]
    return {first.dim_param} - {""}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that are not needed, and of its own age."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
