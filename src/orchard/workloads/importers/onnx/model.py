"""An ONNX file as a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from orchard.workloads.importers.canonical import finish
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.files import mapped
from orchard.workloads.importers.inputs import bind_inputs
from orchard.workloads.importers.lowering import Imported, Lowering
from orchard.workloads.importers.onnx.reader import Reader
from orchard.workloads.importers.onnx.schema import MODEL
from orchard.workloads.importers.protowire import Message, decode


def import_onnx(
    path: str | Path, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """The graph of an `.onnx` file. `inputs` binds symbolic sizes: {"input_ids": (1, 128)}."""
    path = Path(path)
    with mapped(path) as data:
        model = decode(data, MODEL, str(path))
        return import_model_proto(model, path, inputs=inputs, assume_elementwise=assume_elementwise)


def import_model_proto(
    model: Message, path: Path, *, inputs: Mapping[str, Any] | None, assume_elementwise: Collection[str]
) -> Imported:
    if model.graph is None or not (model.graph.node or model.graph.output):
        raise ImportError_(f"{path}: no ONNX graph in this file")
    low = Lowering(path.stem, str(path), assume_elementwise=assume_elementwise)
    reader = Reader(model, low, path)
    outputs = reader.run(inputs)
    graph = finish(low, outputs)
    if inputs:
        graph = bind_inputs(graph, inputs)
    return Imported(
        graph=graph, name=path.stem, source_format="onnx", weights=reader.count().info(), warnings=tuple(low.warnings),
        metadata={"producer": model.producer_name, "opset": str(reader.opset)},
    )  # fmt: skip
