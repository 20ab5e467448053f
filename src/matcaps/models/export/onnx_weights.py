"""The weights of an ONNX file in fewer bits."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_FEWEST = 64
"""Weights with fewer numbers stay as they are."""


def with_bfloat16_weights(model: Any) -> Any:
    """Hold weights in bfloat16; a node casts each to float32, once, when the file is read."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in _weights(model):
        name, values = tensor.name, numpy_helper.to_array(tensor)
        short = onnx.TensorProto()
        short.name, short.data_type = f"{name}.bfloat16", TensorProto.BFLOAT16
        short.dims.extend(values.shape)
        short.raw_data = _bfloat16(values).tobytes()
        tensor.CopyFrom(short)
        casts.append(helper.make_node("Cast", [short.name], [name], to=TensorProto.FLOAT, name=f"{name}.cast"))
    _put_first(model, casts)
    return model


def with_int8_weights(model: Any) -> Any:
    """Convolutions and fully connected layers in whole numbers, with inputs rounded as they come; other weights in 8
    bits, with one scale each parent or row."""
    from onnx import helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)
        try:
            quantize_dynamic(model, path, op_types_to_quantize=["Conv", "MatMul", "Gemm"], weight_type=QuantType.QInt8)
        finally:
            logging.root.setLevel(level)
        import onnx

        model = onnx.load(path)
    nodes = []
    for tensor in _weights(model):
        name, values = tensor.name, numpy_helper.to_array(tensor)
        scale = np.abs(values).max() / 127
        whole = np.round(values / (scale or 1)).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(whole, f"{name}.int8"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}.scale"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], name=f"{name}.dequantize")
        )
    _put_first(model, nodes)
    return model


def _weights(model: Any) -> list[Any]:
    """Initialisers that are weights: neither β, λ, biases nor coordinates."""
    from onnx import TensorProto

    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and tensor.name.endswith("weight") and np.prod(tensor.dims) >= _FEWEST
    ]


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest, to even where two are as near: the upper half of a float32, as uint16."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _put_first(model: Any, nodes: list[Any]) -> None:
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])
