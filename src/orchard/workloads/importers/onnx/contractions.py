"""ONNX rules: matrix products and convolutions."""

from __future__ import annotations

from orchard.ir import Size
from orchard.workloads.importers.lowering import Value, show
from orchard.workloads.importers.lowering.contract import contract
from orchard.workloads.importers.onnx.elementwise import UNARY
from orchard.workloads.importers.onnx.reader import Op, Reader, rule

# ---- contractions


@rule("MatMul", "FusedMatMul", "TransposeMatMul")
def _matmul(c: Reader, op: Op) -> Value:
    y = c.low.matmul(op[0], op[1], transpose_a=bool(op.number("transA")), transpose_b=bool(op.number("transB")))
    alpha = op.real("alpha", 1.0)
    return y if alpha == 1.0 else c.low.elementwise("mul", y, c.low.constant(alpha, "f32"))


@rule("Gemm", "FusedGemm")
def _gemm(c: Reader, op: Op) -> Value:
    x = c.low.swap(op[0], 0, 1) if op.number("transA") else op[0]
    y = c.low.linear(x, op[1], out_first=bool(op.number("transB")))
    bias = op.get(2)
    y = y if bias is None or op.real("beta", 1.0) == 0 else c.low.elementwise("add", y, bias)
    return _activated(c, op, y)


def _activated(c: Reader, op: Op, y: Value) -> Value:
    fn = op.text("activation")
    return c.low.elementwise(UNARY.get(fn, fn.lower()), y) if fn else y


@rule("Einsum")
def _einsum(c: Reader, op: Op) -> Value:
    equation = op.text("equation").replace(" ", "")
    operands = op.given()
    sizes = {
        k: s for t, v in zip(equation.split("->")[0].split(","), operands) for k, s in zip(t, v.shape) if "..." not in t
    }
    shape = c.declared_shape(op)
    right = equation.split("->")[1] if "->" in equation else ""
    known = all(k in sizes for k in right)
    if shape is None and not known:
        raise c.low.fail(f"einsum {equation!r}, whose result has letters that no operand has")
    if known:
        shape = tuple(sizes[k] for k in right)
    return contract(c.low, equation, operands, shape or ())


@rule("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv")
def _conv(c: Reader, op: Op) -> Value:
    x, w = op[0], op[1]
    nhwc = op.type.startswith("Nhwc")
    if nhwc:
        x = c.low.transpose(x, [0, x.ndim - 1, *range(1, x.ndim - 1)])
    d = w.ndim - 2
    stride, dilation, pads = conv_attributes(c, op, x, w, d)
    y = c.low.conv(x, w, op.get(2), stride=stride, pad=pads, dilation=dilation, groups=op.number("group", 1))
    if op.get(3) is not None and op.type == "FusedConv":
        y = c.low.elementwise("add", y, op[3])
    y = _activated(c, op, y)
    return c.low.transpose(y, [0, *range(2, y.ndim), 1]) if nhwc else y


def conv_attributes(
    c: Reader, op: Op, x: Value, w: Value, d: int
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    if d < 1:
        raise c.low.fail(f"a convolution with weight {show(w.shape)}")
    stride, dilation = op.ints("strides") or [1] * d, op.ints("dilations") or [1] * d
    listed = op.ints("pads") or [0] * (2 * d)
    pads = [(listed[i], listed[i + d]) for i in range(d)] if len(listed) == 2 * d else []
    auto = op.text("auto_pad", "NOTSET")
    if auto.startswith("SAME") and x.ndim == d + 2 and len(stride) == len(dilation) == d:
        pads = [same_padding(s, t, st, di) for s, t, st, di in zip(x.shape[2:], w.shape[2:], stride, dilation)]
    return stride, dilation, pads


def same_padding(size: Size, tap: Size, stride: int, dilation: int) -> tuple[int, int]:
    if not isinstance(tap, int):
        return (0, 0)
    span = (tap - 1) * dilation + 1
    total = max(span - 1, 0) if not isinstance(size, int) else max((-(-size // stride) - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


@rule("ConvTranspose")
def _conv_transpose(c: Reader, op: Op) -> Value:
    d = op[1].ndim - 2
    stride, dilation, pads = conv_attributes(c, op, op[0], op[1], d)
    extra = op.ints("output_padding") or [0] * d
    wanted: list[Size] | None = list(op.ints("output_shape") or []) or None
    if wanted is None and op.text("auto_pad").startswith("SAME"):
        wanted = [s * st for s, st in zip(op[0].shape[2:], stride)]
    if wanted is not None and len(wanted) == d:
        full = [
            (s - 1) * st + (t - 1) * di + 1 + e
            for s, st, t, di, e in zip(op[0].shape[2:], stride, op[1].shape[2:], dilation, extra)
        ]
        cut = [f - w for f, w in zip(full, wanted)]
        pads = [(x // 2, x - x // 2) if isinstance(x, int) else (0, 0) for x in cut]
    return c.low.conv_transpose(
        op[0],
        op[1],
        op.get(2),
        stride=stride,
        pad=pads,
        dilation=dilation,
        output_pad=extra,
        groups=op.number("group", 1),
    )
