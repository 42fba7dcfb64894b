"""The parts of Model.proto and MIL.proto that a graph needs."""

from __future__ import annotations

from typing import Any

from orchard.workloads.importers.protowire import Schema

# ---- the parts of Model.proto and MIL.proto that a graph needs

_DIMENSION: Schema = {1: ("constant", {1: ("size", "int")}), 2: ("unknown", {1: ("variadic", "bool")})}
_TENSOR_TYPE: Schema = {1: ("data_type", "int"), 2: ("rank", "int"), 3: ("dimensions", [_DIMENSION])}
_VALUE_TYPE: dict[int, tuple[str, Any]] = {1: ("tensor", _TENSOR_TYPE)}
_VALUE_TYPE[5] = ("state", {1: ("wrapped", _VALUE_TYPE)})
_VALUE_TYPE[2] = ("list", {1: ("type", _VALUE_TYPE)})
_NAMED: Schema = {1: ("name", "str"), 2: ("type", _VALUE_TYPE)}
_TENSOR_VALUE: Schema = {
    1: ("floats", {1: ("values", ["float"])}), 2: ("ints", {1: ("values", ["int"])}),
    3: ("bools", {1: ("values", ["bool"])}), 4: ("strings", {1: ("values", ["str"])}),
    5: ("longs", {1: ("values", ["int"])}), 6: ("doubles", {1: ("values", ["double"])}),
    7: ("bytes", {1: ("values", "bytes")}),
}  # fmt: skip
_IMMEDIATE: dict[int, tuple[str, Any]] = {1: ("tensor", _TENSOR_VALUE)}
_VALUE: Schema = {
    2: ("type", _VALUE_TYPE), 3: ("immediate", _IMMEDIATE),
    5: ("blob", {1: ("file", "str"), 2: ("offset", "int")}),
}  # fmt: skip
_IMMEDIATE[3] = ("list", {1: ("values", [_VALUE])})
_BINDING: Schema = {1: ("name", "str"), 2: ("value", _VALUE)}
_ARGUMENT: Schema = {1: ("arguments", [_BINDING])}
_BLOCK: dict[int, tuple[str, Any]] = {1: ("inputs", [_NAMED]), 2: ("outputs", ["str"])}
_OPERATION: Schema = {
    1: ("type", "str"), 2: ("inputs", ("map", _ARGUMENT)), 3: ("outputs", [_NAMED]), 4: ("blocks", [_BLOCK]),
    5: ("attributes", ("map", _VALUE)),
}  # fmt: skip
_BLOCK[3] = ("operations", [_OPERATION])
_FUNCTION: Schema = {1: ("inputs", [_NAMED]), 2: ("opset", "str"), 3: ("blocks", ("map", _BLOCK))}
PROGRAM: Schema = {1: ("version", "int"), 2: ("functions", ("map", _FUNCTION))}

_SIZES: Schema = {1: ("shape", ["int"])}
_RANGE: Schema = {1: ("lower", "int"), 2: ("upper", "int")}
_ARRAY: Schema = {
    1: ("shape", ["int"]), 2: ("data_type", "int"), 21: ("enumerated", {1: ("shapes", [_SIZES])}),
    31: ("range", {1: ("sizes", [_RANGE])}),
}  # fmt: skip
_PIXELS: Schema = {1: ("width", "int"), 2: ("height", "int")}
_IMAGE: Schema = {
    1: ("width", "int"), 2: ("height", "int"), 3: ("color", "int"), 21: ("enumerated", {1: ("sizes", [_PIXELS])}),
    31: ("range", {1: ("width", _RANGE), 2: ("height", _RANGE)}),
}  # fmt: skip
_FEATURE: Schema = {
    1: ("name", "str"),
    3: ("type", {4: ("image", _IMAGE), 5: ("array", _ARRAY), 1000: ("optional", "bool")}),
}
_FUNCTION_DESCRIPTION: Schema = {1: ("name", "str"), 2: ("input", [_FEATURE]), 3: ("output", [_FEATURE])}
DESCRIPTION: Schema = {
    1: ("input", [_FEATURE]), 10: ("output", [_FEATURE]), 20: ("functions", [_FUNCTION_DESCRIPTION]),
    21: ("default_function", "str"),
}  # fmt: skip

TYPES = {
    1: "bool", 10: "f16", 11: "f32", 12: "f64", 13: "bf16", 21: "int8", 22: "int16", 23: "int32", 24: "int64", 25: "int4",
    31: "uint8", 32: "int16", 33: "int32", 34: "int64", 35: "uint4", 36: "int2", 37: "int1", 38: "int6", 39: "int3",
    40: "f8_e4m3", 41: "f8_e5m2",
}  # fmt: skip
BITS = {1: 8, 21: 8, 25: 4, 31: 8, 35: 4, 36: 2, 37: 1, 38: 6, 39: 3}
CASTS = {"fp16": "f16", "fp32": "f32", "fp64": "f64", "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "int16",
          "int32": "int32", "int64": "int64", "bool": "bool", "string": "int32"}  # fmt: skip
