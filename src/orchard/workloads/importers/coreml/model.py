"""A Core ML package or file as a graph."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from orchard.ir import Graph, Role
from orchard.ir.weights import weight_bytes
from orchard.workloads.importers.canonical import finish
from orchard.workloads.importers.coreml.flexible import check_inputs, flexible_inputs, note
from orchard.workloads.importers.coreml.network import Network
from orchard.workloads.importers.coreml.network_schema import NETWORK
from orchard.workloads.importers.coreml.program import Program
from orchard.workloads.importers.coreml.schema import DESCRIPTION, PROGRAM
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.files import mapped
from orchard.workloads.importers.inputs import bind_inputs
from orchard.workloads.importers.lowering import Imported, Lowering
from orchard.workloads.importers.protowire import Message, Schema, decode


def import_coreml(
    path: str | Path, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """The graph of an `.mlpackage` folder or `.mlmodel` file. `inputs` binds flexible sizes."""
    path = Path(path)
    model_path = _model_file(path)
    schema: Schema = {
        1: ("version", "int"), 2: ("description", DESCRIPTION), 500: ("network", NETWORK),
        303: ("network_regressor", NETWORK), 403: ("network_classifier", NETWORK), 502: ("program", PROGRAM),
        202: ("pipeline", {1: ("models", ["bytes"])}), 200: ("pipeline_classifier", {1: ("pipeline", "bytes")}),
        201: ("pipeline_regressor", {1: ("pipeline", "bytes")}),
    }  # fmt: skip
    with ExitStack() as stack:
        data = stack.enter_context(mapped(model_path))
        model = decode(data, schema, str(path))
        low = Lowering(path.stem, str(path), assume_elementwise=assume_elementwise)
        open_sizes = flexible_inputs(_features(model.description))
        network = model.network or model.network_classifier or model.network_regressor
        if model.program is not None:
            program = Program(model, low, path)
            outputs, weights = program.run(), program.count()
            kind = "coreml"
        elif network is not None:
            if model.description is None:
                raise ImportError_(f"{path}: a network without a description of its inputs; the file is damaged")
            walker = Network(network, model.description, low)
            outputs, weights = walker.run(), walker.weights
            kind = "coreml-neuralnetwork"
        elif any(model.has(n) for n in ("pipeline", "pipeline_classifier", "pipeline_regressor")):
            raise ImportError_(
                f"{path}: a pipeline of {_parts(model)} models, each with inputs of its own; "
                "save its parts and import them one by one: coremltools.models.MLModel(spec.pipeline.models[0]).save(PATH)"
            )
        else:
            raise ImportError_(
                f"{path}: holds neither an ML program nor a neural network (trees and the like have no graph)"
            )
        graph = finish(low, outputs)
        if kind != "coreml":  # the old format has no types: the runtime computes in 16 bit on the Neural Engine and the GPU
            wide = {t.name for t in graph.tensors.values() if t.role is not Role.WEIGHT and t.format in ("f32", "f64")}
            graph = graph.with_formats(dict.fromkeys(wide, "f16"))
    if inputs:
        check_inputs(str(path), open_sizes, inputs)
        graph = bind_inputs(graph, inputs)
    for sentence in (*note(open_sizes, inputs or {}), *_uncounted(graph, weights.info().bytes)):
        low.warn(sentence)
    return Imported(
        graph=graph, name=path.stem, source_format=kind, weights=weights.info(), warnings=tuple(low.warnings),
        metadata={"specification_version": str(model.version)},
    )  # fmt: skip


def _uncounted(graph: Graph, stored: int) -> list[str]:
    """A sentence where the file holds clearly more or less than the formats of the graph's weights say."""
    counted = weight_bytes(graph)
    if abs(stored - counted) <= max(0.05 * stored, 4096):
        return []
    return [f"the file stores {stored:,} bytes of weights, the graph counts {counted:,}: tables or blocks that no format names"]


def _features(description: Message | None) -> list[Message]:
    """Declared inputs: of the model, or of its default function where it has several."""
    if description is None:
        return []
    if description.input or not description.functions:
        return list(description.input)
    wanted = description.default_function
    chosen = next((f for f in description.functions if f.name == wanted), description.functions[0])
    return list(chosen.input)


def _model_file(path: Path) -> Path:
    """The specification inside an .mlpackage: what Manifest.json names, inside the package."""
    if not path.is_dir():
        return path
    manifest = path / "Manifest.json"
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))
        entry = listed["itemInfoEntries"][listed["rootModelIdentifier"]]["path"]
        found = path / "Data" / str(entry)
        inside = found.resolve().is_relative_to(path.resolve()) and found.is_file()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ImportError_(f"{path}: no readable Manifest.json, expected a Core ML package") from None
    if not inside:
        raise ImportError_(f"{path}: Manifest.json names {str(entry)[:80]!r}, which is not in the package")
    return found


def _parts(model: Message) -> str:
    """How many models a pipeline says it has; `several` where only its parts know."""
    return str(len(model.pipeline.models)) if model.pipeline is not None and model.pipeline.models else "several"
