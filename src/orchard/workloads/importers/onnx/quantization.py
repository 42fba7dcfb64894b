"""ONNX rules: quantize/dequantize pairs and integer ops."""

from __future__ import annotations

from orchard.workloads.importers.lowering import Value
from orchard.workloads.importers.onnx.contractions import conv_attributes
from orchard.workloads.importers.onnx.norms import global_pool, pool
from orchard.workloads.importers.onnx.reader import Op, Reader, rule
from orchard.workloads.importers.onnx.schema import FORMATS

# ---- quantization


def _scheme(scale: Value, bits: int, block: int = 0) -> str:
    """The number format of an integer weight with its scales."""
    if block:
        return f"int{bits}-b{block}"
    return f"int{bits}-channel" if scale.elements != 1 else f"int{bits}"


@rule("DequantizeLinear")
def _dequantize(c: Reader, op: Op) -> Value:
    x, scale = op[0], op[1]
    for extra in op.given()[1:]:
        c.auxiliary.add(id(extra))
    if x.producer is None and x.format in ("int8", "uint8", "int4", "uint4", "int2"):
        bits = int(x.format[-1])
        x.format = _scheme(scale, bits, op.number("block_size"))
        x.part = "other" if x.part == "constant" else x.part
    return c.low.one("elementwise", op.given(), x.shape, scale.format, fn="dequantize")


@rule("QuantizeLinear")
def _quantize(c: Reader, op: Op) -> Value:
    for extra in op.given()[1:]:
        c.auxiliary.add(id(extra))
    zero = op.get(2)
    format = zero.format if zero is not None else FORMATS.get(op.number("output_dtype", 2), "uint8")
    if op[0].producer is None and op[0].data is None and op[0].part and op[1].elements != 1:
        op[0].format = f"{format}-channel" if format == "int8" else op[0].format
    per_axis = op[1].ndim > 0 and op[1].elements != 1
    return c.low.one("elementwise", op.given() if not per_axis else [op[0]], op[0].shape, format, fn="quantize")


@rule("DynamicQuantizeLinear")
def _dynamic_quantize(c: Reader, op: Op) -> list[Value]:
    y = c.low.one("elementwise", [op[0]], op[0].shape, "uint8", fn="quantize_dynamic")
    scale = c.low.one("reduce", [op[0]], [], "f32", fn="max")
    return [y, scale, c.low.constant(0, "uint8")]


def _stored_int8(c: Reader, weight: Value, *auxiliary: Value | None) -> Value:
    for extra in auxiliary:
        if extra is not None:
            c.auxiliary.add(id(extra))
    if weight.producer is None and weight.part == "constant":
        weight.part = "other"
    return weight


@rule("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
def _matmul_integer(c: Reader, op: Op) -> Value:
    y = c.low.matmul(op[0], _stored_int8(c, op[1], *op.inputs[2:]))
    y.format = "int32" if op.type == "MatMulInteger" else "f32"
    return y


@rule("ConvInteger")
def _conv_integer(c: Reader, op: Op) -> Value:
    w = _stored_int8(c, op[1], *op.inputs[2:])
    stride, dilation, pads = conv_attributes(c, op, op[0], w, w.ndim - 2)
    y = c.low.conv(op[0], w, None, stride=stride, pad=pads, dilation=dilation, groups=op.number("group", 1))
    _format_of_producer(y, "int32")
    return y


def _format_of_producer(y: Value, format: str) -> None:
    y.format = format
    if y.producer is not None and y.producer.kind == "view":
        y.producer.inputs[0].format = format


@rule("QLinearMatMul", "QGemm")
def _qlinear_matmul(c: Reader, op: Op) -> Value:
    w = _stored_int8(c, op[3], op.get(4), op.get(5), op.get(1), op.get(2))
    y = c.low.matmul(op[0], w, transpose_a=bool(op.number("transA")), transpose_b=bool(op.number("transB")))
    bias = op.get(6) if op.type == "QGemm" else None
    if bias is not None:
        y = c.low.elementwise("add", y, bias, format=op[0].format)
    y.format = op[0].format
    return y


@rule("QLinearConv")
def _qlinear_conv(c: Reader, op: Op) -> Value:
    w = _stored_int8(c, op[3], op.get(4), op.get(5), op.get(1), op.get(2), op.get(6), op.get(7))
    stride, dilation, pads = conv_attributes(c, op, op[0], w, w.ndim - 2)
    bias = op.get(8)
    y = c.low.conv(op[0], w, bias, stride=stride, pad=pads, dilation=dilation, groups=op.number("group", 1))
    _format_of_producer(y, op[0].format)
    return y


@rule("QLinearAdd", "QLinearMul")
def _qlinear_binary(c: Reader, op: Op) -> Value:
    return c.low.elementwise("add" if op.type == "QLinearAdd" else "mul", op[0], op[3], format=op[0].format)


@rule("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax")
def _qlinear_unary(c: Reader, op: Op) -> Value:
    if op.type == "QLinearSoftmax":
        return c.low.softmax(op[0], op.number("axis", -1))
    return c.low.elementwise(op.type[7:].lower(), op[0])


@rule("QLinearGlobalAveragePool", "QLinearAveragePool")
def _qlinear_pool(c: Reader, op: Op) -> Value:
    return global_pool(c, op) if "Global" in op.type else pool(c, op)[0]


@rule("QLinearConcat")
def _qlinear_concat(c: Reader, op: Op) -> Value:
    return c.low.concat(op.given()[2::3], op.number("axis"))


@rule("MatMulNBits", "MatMulBnb4")
def _matmul_nbits(c: Reader, op: Op) -> Value:
    n, k, bits, block = op.number("N"), op.number("K"), op.number("bits", 4), op.number("block_size", 32)
    if n < 1 or k < 1 or bits not in (1, 2, 3, 4, 8) or block < 2:
        raise c.low.fail(f"a weight of {n} x {k} with {bits} bits in blocks of {block}")
    packed = op[1]
    for extra in op.given()[2:]:
        if extra is not op.get(5):
            c.auxiliary.add(id(extra))
    weight = c.low.weight(packed.name, [n, k], f"int{bits}-b{block}")
    weight.part = weight.part if weight.part != "conv" else "other"
    for key, (value, _) in list(c.stored.items()):
        if value is packed:
            c.stored[key] = (weight, {4: 22, 2: 25}.get(bits, 3))
    y = c.low.linear(op[0], weight)
    bias = op.get(5)
    return y if bias is None else c.low.elementwise("add", y, bias)


@rule("GatherBlockQuantized")
def _gather_quantized(c: Reader, op: Op) -> Value:
    for extra in op.given()[2:]:
        c.auxiliary.add(id(extra))
    y = c.low.take(op[0], op[1], op.number("gather_axis"))
    y.format = op[2].format
    return y
