"""MLX: a function, an nn.Module, or an exported `.mlxfn` file.

MLX streams its own primitives while a function is exported. On a CPU it has expanded its fused kernels (layer norm, rotary
embedding, attention); `canonical` recognises them again. A `.mlxfn` is read in a process of its own: the file format has
no checks, and its arrays have to be evaluated once before they trace as constants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from orchard.ir import Size, product
from orchard.workloads.importers.canonical import finish
from orchard.workloads.importers.errors import ImportError_, need
from orchard.workloads.importers.inputs import bind_inputs
from orchard.workloads.importers.isolated import run_isolated
from orchard.workloads.importers.lowering import Imported, Lowering, Value, array, is_float
from orchard.workloads.importers.weights import WeightCount, stored_bytes

_FORMATS = {
    "float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64", "int64": "int64", "int32": "int32",
    "int16": "int16", "int8": "int8", "uint64": "int64", "uint32": "int32", "uint16": "int16", "uint8": "uint8",
    "bool_": "bool", "bool": "bool", "complex64": "f64",
}  # fmt: skip

Record = Mapping[str, Any]


def import_function(
    function: Any, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """A callable over MLX arrays (an mlx.nn.Module is one). `inputs` maps argument names, in order, to shapes or arrays."""
    mx = need("mlx.core", "mlx", "an MLX function")
    name = getattr(function, "__name__", type(function).__name__)
    if not inputs:
        raise ImportError_(f"{name}: give the shape of each argument, for example inputs={{'x': (1, 16, 512)}}")
    arguments = [_argument(mx, key, given) for key, given in inputs.items()]
    parameters = getattr(function, "parameters", None)
    if callable(parameters):
        mx.eval(parameters())  # or the trace holds the random initialisation
    try:
        records = jsonable(trace(mx, lambda *a: function(*a), arguments))
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ImportError_(f"{name}: MLX cannot trace it ({str(error).splitlines()[0][:200]})") from None
    return _lower(records, name, name, list(inputs), assume_elementwise)


def import_mlxfn(
    path: str | Path, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """An `.mlxfn` file; its shapes are fixed when it is exported."""
    path = Path(path)
    records = run_isolated("orchard.workloads.importers.mlx_child", str(path), str(path))
    imported = _lower(records, path.stem, str(path), [], assume_elementwise)
    return replace(imported, graph=bind_inputs(imported.graph, inputs or {}))  # shapes it does not have are an error


def _argument(mx: Any, key: str, given: Any) -> Any:
    if isinstance(given, mx.array):
        return given
    if any(isinstance(s, str) for s in given):
        raise ImportError_(f"input {key}: MLX traces fixed shapes only, got {tuple(given)}")
    whole = key.endswith(("ids", "tokens")) or key in ("inputs", "tokens", "y", "ids")
    return mx.zeros(tuple(given), mx.int32 if whole else mx.float32)


def trace(mx: Any, function: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
    """What `mx.export_function` reports: inputs, outputs, constants, primitives."""
    records: list[Any] = []
    mx.export_function(lambda record: records.append(dict(record)), function, *arguments)
    return records


def jsonable(value: Any) -> Any:
    """Records as plain lists and numbers; arrays as shape, dtype and, when small, their contents."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        small = value.size <= 64 and "complex" not in str(value.dtype)
        return {"shape": list(value.shape), "dtype": _dtype(value.dtype), "data": value.tolist() if small else None}
    return _dtype(value)


def _dtype(value: Any) -> str:
    return str(value).rpartition(".")[2]


Rule = Callable[["_Trace", Sequence[Value], Sequence[Any], Sequence[tuple[Size, ...]]], Any]
R = TypeVar("R", bound=Rule)
_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[R], R]:
    def register(function: R) -> R:
        for name in names:
            _RULES[name] = function
        return function

    return register


class _Trace:
    """The primitives of one function. A broadcast stays pending: elementwise ops broadcast by themselves."""

    def __init__(self, low: Lowering) -> None:
        self.low = low
        self.env: dict[str, Value] = {}
        self.wanted: dict[str, tuple[int, ...]] = {}
        self.formats: list[str] = []
        self.primitive = ""
        self.auxiliary: set[int] = set()  # scales and biases of packed weights
        self.packed: dict[int, Value] = {}  # packed tensor -> the weight it stands for


def _lower(records: Any, name: str, where: str, names: Sequence[str], assumed: Collection[str]) -> Imported:
    if not isinstance(records, list):
        raise ImportError_(f"{where}: not a trace of an MLX function")
    low = Lowering(name, where, assume_elementwise=assumed)
    t = _Trace(low)
    low.check_known(Counter(str(r["name"]) for r in records if r["type"] == "primitive"), _RULES)
    outputs: list[str] = []
    weights: list[Value] = []
    for record in records:
        kind = record["type"]
        if kind == "inputs":
            for index, (key, shape, dtype) in enumerate(record["inputs"]):
                label = names[index] if index < len(names) else f"input_{index}"
                t.env[key] = low.input(label, shape, _FORMATS.get(dtype, "f32"))
        elif kind == "outputs":
            outputs = [key for key, *_ in record["outputs"]]
        elif kind == "constants":
            for key, content in record["constants"]:
                t.env[key] = _constant(low, key, content)
                weights.append(t.env[key])
        elif kind == "primitive":
            _primitive(t, record)
    drawn = sum(r["type"] == "primitive" and r["name"] == "RandomBits" for r in records)
    if drawn:
        low.warn(
            f"{drawn} tensors are drawn at random each time; if these are the weights, run mx.eval(model.parameters()) "
            f"before mx.export_function"
        )
    counter = WeightCount()
    for weight in weights:
        dense, size = t.packed.get(id(weight)), stored_bytes(weight.format, weight.shape)
        if dense is not None:
            counter.add(dense, dense.format, size=size)
        else:
            counter.add(weight, weight.format, parameter=weight.part != "constant" and id(weight) not in t.auxiliary)
    made = [_full(t, key) for key in outputs]
    return Imported(
        graph=finish(low, made), name=name, source_format="mlx", weights=counter.info(), warnings=tuple(low.warnings)
    )


def _constant(low: Lowering, key: str, content: Any) -> Value:
    format = _FORMATS.get(content["dtype"], "f32")
    shape, data = content["shape"], None
    if content["data"] is not None:
        flat = _flat(content["data"])
        data = array(flat, shape)
    small = product(shape) == 1 or (not is_float(format) and content["dtype"] != "uint32" and data is not None)
    return low.weight(f"w{key}", shape, format, part="constant" if small else None, data=data)


def _flat(data: Any) -> list[Any]:
    return [x for item in data for x in _flat(item)] if isinstance(data, list) else [data]


def _full(t: _Trace, key: str) -> Value:
    value = t.env[key]
    wanted = t.wanted.get(key)
    return value if wanted is None or wanted == value.shape else t.low.expand(value, wanted)


def _primitive(t: _Trace, record: Record) -> None:
    name = str(record["name"])
    shapes = [tuple(int(s) for s in shape) for _, shape, _ in record["outputs"]]
    t.formats = [_FORMATS.get(dtype, "f32") for *_, dtype in record["outputs"]]
    t.primitive = name
    arguments = record["arguments"]
    keys = [key for key, *_ in record["inputs"]]
    with t.low.within("", name):
        missing = [k for k in keys if k not in t.env]
        if missing:
            raise t.low.fail("a primitive reads what nothing made")
        if name == "Broadcast" and t.env[keys[0]].ndim <= len(shapes[0]):
            t.env[record["outputs"][0][0]] = t.env[keys[0]]
            t.wanted[record["outputs"][0][0]] = shapes[0]
            return
        lazy = name in _ELEMENTWISE
        operands = [t.env[k] if lazy or (name == "AddMM" and i == 2) else _full(t, k) for i, k in enumerate(keys)]
        if lazy and t.low.broadcast(*(v.shape for v in operands)) != shapes[0]:
            operands[0] = _full(t, keys[0])
            if t.low.broadcast(*(v.shape for v in operands)) != shapes[0]:
                operands = [_full(t, k) for k in keys]
        handler = _RULES.get(name)
        if handler is not None:
            result = handler(t, operands, arguments, shapes)
        else:
            t.low.warn(f"{name} is assumed to be elementwise, as asked")
            result = [t.low.one("elementwise", operands, s, f, fn=name.lower()) for s, f in zip(shapes, t.formats)]
    results = result if isinstance(result, (list, tuple)) else [result]
    for (key, *_), value, shape in zip(record["outputs"], results, shapes):
        if value.shape != shape:
            raise ImportError_(f"{t.low.where}: {name}: computed shape {value.shape}, the trace says {shape}")
        t.env[key] = value


# ---- rules

_ELEMENTWISE = {
    "Abs": "abs", "Add": "add", "ArcCos": "acos", "ArcSin": "asin", "ArcTan": "atan", "ArcTan2": "atan2", "Ceil": "ceil",
    "Cos": "cos", "Cosh": "cosh", "Divide": "div", "Remainder": "mod", "Equal": "equal", "Erf": "erf", "ErfInv": "erfinv",
    "Exp": "exp", "Expm1": "expm1", "Floor": "floor", "Greater": "greater", "GreaterEqual": "greater_equal",
    "Less": "less", "LessEqual": "less_equal", "Log": "log", "Log1p": "log1p", "LogicalAnd": "and", "LogicalNot": "not",
    "LogicalOr": "or", "Maximum": "max", "Minimum": "min", "Multiply": "mul", "Negative": "neg", "NotEqual": "not_equal",
    "Power": "pow", "Round": "round", "Select": "where", "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin",
    "Sinh": "sinh", "Square": "square", "Subtract": "sub", "Tan": "tan", "Tanh": "tanh", "LogAddExp": "logaddexp",
    "BitwiseBinary": "and", "BitwiseInvert": "not", "Gelu": "gelu",
}  # fmt: skip


def _elementwise_rule(fn: str) -> Rule:
    return lambda t, x, a, s: t.low.elementwise(fn, *x, format=t.formats[0])


for _name, _fn in _ELEMENTWISE.items():
    _RULES[_name] = _elementwise_rule(_fn)


@rule("Sqrt")
def _sqrt(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return t.low.elementwise("rsqrt" if a and a[0] else "sqrt", x[0], format=t.formats[0])


@rule("AsType", "View")
def _cast(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return t.low.cast(x[0], t.formats[0]) if t.primitive == "AsType" else t.low.one("view", [x[0]], s[0], t.formats[0])


@rule("Copy", "Contiguous", "StopGradient", "Depends", "NumberOfElements")
def _same(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return x[0]


@rule("Arange", "Full", "RandomBits", "Eye")
def _fill(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> Value:
    if t.primitive == "Arange" and len(a) == 3 and isinstance(s[0][0], int) and s[0][0] <= 4096:
        return t.low.constant(array([a[0] + a[2] * i for i in range(s[0][0])]), t.formats[0])
    if x and t.primitive == "Full":
        return t.low.expand(x[0], s[0])
    return t.low.emit("fill", [], [s[0]], [t.formats[0]], fn="random" if t.primitive == "RandomBits" else "constant")[0]


@rule("Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze")
def _reshape(t: _Trace, x: Sequence[Value], a: Any, s: Sequence[tuple[Size, ...]]) -> Value:
    return t.low.reshape(x[0], s[0])


@rule("Broadcast")
def _broadcast(t: _Trace, x: Sequence[Value], a: Any, s: Sequence[tuple[Size, ...]]) -> Value:
    return t.low.expand(x[0], s[0])


@rule("Transpose")
def _transpose(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return t.low.transpose(x[0], a[0])


@rule("Concatenate")
def _concat(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return t.low.concat(x, int(a[0]))


@rule("Split")
def _split(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> tuple[Value, ...]:
    axis = int(a[1])
    return t.low.split(x[0], axis, [shape[axis] for shape in s])


@rule("Slice")
def _slice(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> Value:
    begin, end, step = a[0], a[1], a[2]
    if any(int(st) < 1 for st in step):
        return t.low.one("move", [x[0]], s[0], fn="flip")
    y = x[0]
    for axis, (start, stop, st) in enumerate(zip(begin, end, step)):
        y = t.low.slice(y, axis, int(start), int(stop), int(st))
    return y


@rule("Pad", "Gather", "GatherAxis", "ScatterAxis", "Scatter", "SliceUpdate", "DynamicSlice", "DynamicSliceUpdate", "Sort",
      "ArgSort", "Partition", "ArgPartition", "AsStrided", "MaskedScatter", "FFT", "Hadamard")  # fmt: skip
def _move(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> Value:
    if t.primitive == "Gather" and a and list(a[0]) == [0] and len(x) == 2 and list(a[1])[1:] == list(x[0].shape[1:]):
        rows = t.low.take(x[0], x[1], 0)  # rows of a table; MLX keeps the sliced axis as size 1
        return t.low.reshape(rows, s[0])
    if t.primitive == "Pad" and len(a) == 3 and x[0].data is None:
        before, after = [0] * x[0].ndim, [0] * x[0].ndim
        for axis, low, high in zip(a[0], a[1], a[2]):
            before[int(axis)], after[int(axis)] = int(low), int(high)
        return t.low.pad(x[0], before, after)
    fn = {"Gather": "gather", "GatherAxis": "gather", "Pad": "pad", "AsStrided": "strided"}.get(
        t.primitive, t.primitive.lower()
    )
    return t.low.one("move", list(x), s[0], t.formats[0], fn=fn)


@rule("Reduce")
def _reduce(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> Value:
    fn = ("all", "any", "sum", "prod", "min", "max")[int(a[0])] if int(a[0]) < 6 else "sum"
    y = t.low.reduce(fn, x[0], [int(i) for i in a[1]], True, t.formats[0])
    return t.low.reshape(y, s[0])


@rule("ArgReduce", "LogSumExp")
def _arg_reduce(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> Value:
    fn = "logsumexp" if t.primitive == "LogSumExp" else "argmax"
    return t.low.one("reduce", [x[0]], s[0], t.formats[0], fn=fn)


@rule("Scan")
def _scan(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> Value:
    return t.low.one("reduce", [x[0]], s[0], t.formats[0], fn="cumsum")


@rule("Softmax")
def _softmax(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return t.low.softmax(x[0])


@rule("Matmul", "BlockMaskedMM", "SegmentedMM")
def _matmul(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return t.low.matmul(x[0], x[1])


@rule("AddMM")
def _addmm(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    y = t.low.matmul(x[0], x[1])
    return t.low.elementwise("add", y, x[2])  # a broadcast of x[2] is still pending: the addition broadcasts


@rule("QuantizedMatmul", "QQMatmul")
def _quantized(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    group, bits = int(a[0]), int(a[1])
    out_first = bool(a[3]) if len(a) > 3 else True
    weight = _packed(t, x[1], bits, group, out_first, x[2:])
    return t.low.linear(x[0], weight, out_first=out_first)


def _packed(t: _Trace, packed: Value, bits: int, group: int, out_first: bool, auxiliary: Sequence[Value]) -> Value:
    """The dense shape of a packed weight: each uint32 holds 32/bits elements of the last axis."""
    for value in auxiliary:
        t.auxiliary.add(id(value))
    last = packed.shape[-1]
    if bits not in (2, 3, 4, 5, 6, 8) or group < 16 or not isinstance(last, int):
        raise t.low.fail(f"a weight of {bits} bits in groups of {group}")
    format = f"int{bits}-g{group}" if len(auxiliary) > 1 else ("mxfp4" if bits == 4 else "mxfp8")
    weight = t.low.weight(packed.name, [*packed.shape[:-1], last * 32 // bits], format)
    weight.part = "other"
    t.packed[id(packed)] = weight
    return weight


@rule("GatherMM", "GatherQMM")
def _gather_mm(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> Value:
    """Routed product: row i meets matrix rhs_indices[i] of a stack [experts, ...]."""
    w = x[1]
    transposed = False
    if t.primitive == "GatherQMM":
        transposed = bool(a[3]) if len(a) > 3 else True
        w = _packed(t, x[1], int(a[1]), int(a[0]), transposed, x[2:4])
    elif w.producer is not None and w.producer.is_("move", "transpose"):
        w, transposed = w.producer.inputs[0], True
    experts = w.shape[0]
    n = s[0][-1]
    lead = product(s[0][:-1])
    k = x[0].shape[-1]
    w.part = "expert_down" if w.part == "expert_down" else "expert_up"
    rows = (
        t.low.one("move", [x[0]], [lead, k], fn="gather")
        if x[0].elements != lead * k
        else t.low.reshape(x[0], [lead, k])
    )
    active: Size = s[0][-3] if len(s[0]) >= 3 else 1
    spec = "t k, n k -> t n" if transposed else "t k, k n -> t n"
    y = t.low.einsum(spec, [rows, w], [lead, n], routed=experts, active=active)
    return t.low.reshape(y, s[0])


@rule("Convolution")
def _conv(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> Value:
    """MLX keeps channels last: x[n, spatial..., c], w[k, taps..., c]."""
    stride, low, high, dilation, input_dilation = ([int(v) for v in part] for part in a[:5])
    groups, flip = int(a[5]), bool(a[6])
    d = x[0].ndim - 2
    first = [0, d + 1, *range(1, d + 1)]
    image, weight = t.low.transpose(x[0], first), t.low.transpose(x[1], first)
    back = [0, *range(2, d + 2), 1]
    if any(i > 1 for i in input_dilation):
        taps = [int(v) for v in weight.shape[2:] if isinstance(v, int)]
        pads = [((tap - 1) * di - p, 0) for tap, di, p in zip(taps, dilation, low)]
        kernel = t.low.swap(weight, 0, 1) if groups == 1 else weight
        grown = [
            (size - 1) * st + (tap - 1) * di + 1 - p[0]
            for size, st, tap, di, p in zip(image.shape[2:], input_dilation, taps, dilation, pads)
        ]
        extra = [o - g if isinstance(o, int) and isinstance(g, int) else 0 for o, g in zip(s[0][1:-1], grown)]
        pads = [(p[0], -e) for p, e in zip(pads, extra)]
        y = t.low.conv_transpose(
            image, kernel, stride=input_dilation, pad=pads, dilation=dilation, output_pad=[0] * d, groups=groups
        )
        return t.low.transpose(y, back)
    del flip
    y = t.low.conv(image, weight, stride=stride, pad=list(zip(low, high)), dilation=dilation, groups=groups)
    return t.low.transpose(y, back)


@rule("RMSNorm", "LayerNorm")
def _norm(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return t.low.norm("rmsnorm" if t.primitive == "RMSNorm" else "layernorm", *x)


@rule("RoPE")
def _rope(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    return t.low.one("rope", [x[0]], x[0].shape)


@rule("ScaledDotProductAttention")
def _sdpa(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Any) -> Value:
    scale = float(a[0]) if a and isinstance(a[0], (int, float)) else None
    return t.low.attention(x[0], x[1], x[2], x[3] if len(x) > 3 else None, scale=scale)


@rule("Quantize", "AffineQuantize")
def _dequantize(t: _Trace, x: Sequence[Value], a: Sequence[Any], s: Sequence[tuple[Size, ...]]) -> list[Value]:
    for value in x[1:]:
        t.auxiliary.add(id(value))
    return [t.low.one("elementwise", list(x), s[0], t.formats[0], fn="dequantize")] if len(s) == 1 else [
        t.low.one("move", list(x), shape, f, fn="quantize") for shape, f in zip(s, t.formats)
    ]  # fmt: skip
