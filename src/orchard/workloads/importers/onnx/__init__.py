"""ONNX models, opsets 11 to 23, with quantize/dequantize pairs and the com.microsoft ops that transformers exports
hold.

The file is memory-mapped and read with our own wire reader: weights inside the file are never copied, external data is
never opened unless a tensor is small enough to be shape arithmetic. Shapes are inferred here, forward, with symbols
kept
as expressions over the inputs' `dim_param`s; `value_info` is only asked where a shape depends on run-time contents.
"""

from orchard.workloads.importers.onnx import (  # the modules register their rules
    attention,
    contractions,
    elementwise,
    layout,
    norms,
    quantization,
)
from orchard.workloads.importers.onnx.model import import_onnx

__all__ = ["attention", "contractions", "elementwise", "import_onnx", "layout", "norms", "quantization"]
