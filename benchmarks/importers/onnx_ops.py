"""Import every operator model of ONNX's own test set and compare the shapes of the results.

Run: python benchmarks/importers/onnx_ops.py. Recorded: onnx_ops.out.

Each model is one op (or its expansion into others) with reference inputs and outputs. A model counts as right when it imports and
the shape of every output agrees; small integer inputs (axes, shapes, pads) become initializers, as exporters write them.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from orchard.workloads.importers import ImportError_, UnsupportedOps, import_model


def with_constants(case) -> ModelProto:
    """The model with its small integer operands as initializers."""
    model = ModelProto()
    model.CopyFrom(case.model)
    inputs = list(model.graph.input)
    values = case.data_sets[0][0] if case.data_sets else []
    skip = 1 if len(inputs) > 1 else 0
    for info, value in zip(inputs[skip:], values[skip:]):
        data = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else None
        if data is not None and data.dtype.kind in "iub" and data.size <= 24:
            model.graph.initializer.append(numpy_helper.from_array(data, info.name))
    return model


def outcome(case, path: Path) -> str:
    """`right`, or what happened instead."""
    path.write_bytes(with_constants(case).SerializeToString())
    try:
        graph = import_model(path).graph
    except UnsupportedOps as error:
        return f"no rule: {', '.join(error.ops)}"
    except ImportError_ as error:
        return f"refused: {str(error).split('.onnx: ')[-1][:90]}"
    expected = [getattr(v, "shape", None) for v in case.data_sets[0][1]] if case.data_sets else []
    for name, shape in zip(graph.outputs, expected):
        found = graph.tensors[name].shape
        if shape is not None and not (
            len(found) == len(shape) and all(not isinstance(a, int) or a == b for a, b in zip(found, shape))
        ):
            return f"wrong shape: {found} for {shape}"
    return "right"


def main() -> None:
    warnings.filterwarnings("ignore")
    cases = collect_testcases(None)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            found[outcome(case, Path(folder) / "m.onnx")] += 1
    print(f"{found['right']} of {len(cases)} right")
    for what, count in found.most_common():
        if what != "right":
            print(f"{count:5} {what}")


if __name__ == "__main__":
    main()
