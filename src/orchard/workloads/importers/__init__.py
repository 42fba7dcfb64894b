"""Models in: PyTorch, ONNX, Core ML, Core AI, GGUF, MLX and safetensors become graphs.

imported = import_model("model.onnx", inputs={"input_ids": (1, 128)})
print(imported.graph, imported.weights.parameters, imported.warnings)
"""

from orchard.workloads.importers.errors import ImportError_, MissingExtra, UnsupportedOps
from orchard.workloads.importers.front import import_model, source_format_of
from orchard.workloads.importers.lowering import Imported, WeightInfo

__all__ = [
    "ImportError_",
    "Imported",
    "MissingExtra",
    "UnsupportedOps",
    "WeightInfo",
    "import_model",
    "source_format_of",
]
