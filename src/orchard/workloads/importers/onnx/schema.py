"""The parts of onnx.proto that a graph needs."""

from __future__ import annotations

from typing import Any

from orchard.workloads.importers.protowire import Schema

# ---- the parts of onnx.proto that a graph needs

_PAIR: Schema = {1: ("key", "str"), 2: ("value", "str")}
_TENSOR: Schema = {
    1: ("dims", ["int"]), 2: ("data_type", "int"), 4: ("float_data", ["float"]), 5: ("int32_data", ["int"]),
    7: ("int64_data", ["int"]), 8: ("name", "str"), 9: ("raw_data", "bytes"), 10: ("double_data", ["double"]),
    11: ("uint64_data", ["int"]), 13: ("external_data", [_PAIR]), 14: ("data_location", "int"),
}  # fmt: skip
_DIM: Schema = {1: ("dim_value", "int"), 2: ("dim_param", "str")}
_SHAPE: Schema = {1: ("dim", [_DIM])}
_TENSOR_TYPE: Schema = {1: ("elem_type", "int"), 2: ("shape", _SHAPE)}
_TYPE: Schema = {1: ("tensor_type", _TENSOR_TYPE)}
_VALUE_INFO: Schema = {1: ("name", "str"), 2: ("type", _TYPE)}
_ATTRIBUTE: dict[int, tuple[str, Any]] = {
    1: ("name", "str"), 2: ("f", "float"), 3: ("i", "int"), 4: ("s", "bytes"), 5: ("t", _TENSOR),
    7: ("floats", ["float"]), 8: ("ints", ["int"]), 9: ("strings", ["bytes"]), 20: ("type", "int"),
    21: ("ref_attr_name", "str"),
}  # fmt: skip
_NODE: Schema = {
    1: ("input", ["str"]), 2: ("output", ["str"]), 3: ("name", "str"), 4: ("op_type", "str"),
    5: ("attribute", [_ATTRIBUTE]), 7: ("domain", "str"), 9: ("metadata_props", [_PAIR]),
}  # fmt: skip
_GRAPH: Schema = {
    1: ("node", [_NODE]), 2: ("name", "str"), 5: ("initializer", [_TENSOR]), 11: ("input", [_VALUE_INFO]),
    12: ("output", [_VALUE_INFO]), 13: ("value_info", [_VALUE_INFO]),
}  # fmt: skip
_ATTRIBUTE[6] = ("g", _GRAPH)
_OPSET: Schema = {1: ("domain", "str"), 2: ("version", "int")}
_FUNCTION: Schema = {
    1: ("name", "str"), 4: ("input", ["str"]), 5: ("output", ["str"]), 6: ("attribute", ["str"]), 7: ("node", [_NODE]),
    10: ("domain", "str"), 11: ("attribute_proto", [_ATTRIBUTE]),
}  # fmt: skip
MODEL: Schema = {
    1: ("ir_version", "int"), 2: ("producer_name", "str"), 7: ("graph", _GRAPH), 8: ("opset_import", [_OPSET]),
    25: ("functions", [_FUNCTION]),
}  # fmt: skip

FORMATS = {
    1: "f32", 2: "uint8", 3: "int8", 4: "int16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "f16", 11: "f64",
    12: "int32", 13: "int64", 16: "bf16", 17: "f8_e4m3", 18: "f8_e4m3", 19: "f8_e5m2", 20: "f8_e5m2", 21: "uint4",
    22: "int4", 23: "f4", 24: "uint8", 25: "int2", 26: "int2",
}  # fmt: skip
NUMPY = {
    1: "<f4",
    2: "u1",
    3: "i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "?",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
}
