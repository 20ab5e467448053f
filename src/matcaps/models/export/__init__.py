"""Write a network to a file that computes without matcaps: ONNX, or a program of ``torch.export``."""

from matcaps.models.export.door import FORMATS, PRECISIONS, Exported, export_network
from matcaps.models.export.onnx_file import OPSET

__all__ = ["FORMATS", "OPSET", "PRECISIONS", "Exported", "export_network"]
