"""ONNX rules: attention of opset 23 and of com.microsoft."""

from __future__ import annotations

from orchard.ir import Size
from orchard.workloads.importers.lowering import Value, is_float
from orchard.workloads.importers.onnx.reader import Op, Reader, rule

# ---- attention


def _heads(c: Reader, x: Value, count: int) -> Value:
    """[b, s, h*d] to [b, h, s, d]; four axes stay."""
    if x.ndim == 4:
        return x
    if count < 1:
        raise c.low.fail("attention without a number of heads")
    b, s, m = x.shape
    return c.low.transpose(c.low.reshape(x, [b, s, count, c.low.divide(m, count)]), [0, 2, 1, 3])


def _merge(c: Reader, y: Value) -> Value:
    b, h, s, d = y.shape
    return c.low.reshape(c.low.transpose(y, [0, 2, 1, 3]), [b, s, h * d])


def _scale(op: Op, q: Value) -> float | None:
    scale = op.real("scale", 0.0)
    if scale:
        return scale
    width = q.shape[-1]
    return float(width) ** -0.5 if isinstance(width, int) else None


def _with_past(c: Reader, k: Value, past: Value | None) -> Value:
    return k if past is None or past.shape[2] == 0 else c.low.concat([past, k], 2)


@rule("Attention")
def _attention(c: Reader, op: Op) -> list[Value | None]:
    if "q_num_heads" in op.attributes or (op.domain in ("", "ai.onnx") and op.get(2) is not None and op[1].ndim >= 3):
        return _attention_23(c, op)
    x, weights, bias = op[0], op[1], op.get(2)
    heads = op.number("num_heads", 1)
    qkv = c.low.linear(x, weights, out_first=False)
    if bias is not None:
        qkv = c.low.elementwise("add", qkv, bias)
    widths: list[Size] = list(op.ints("qkv_hidden_sizes") or []) or [c.low.divide(qkv.shape[-1], 3)] * 3
    q, k, v = (_heads(c, part, heads) for part in c.low.split(qkv, 2, widths))
    mask = next((m for m in (op.get(5), op.get(3)) if m is not None), None)
    y = c.low.attention(q, k, v, mask, causal=bool(op.number("unidirectional")), scale=_scale(op, q))
    return [_merge(c, y), None]


def _attention_23(c: Reader, op: Op) -> list[Value | None]:
    flat = op[0].ndim == 3
    q = _heads(c, op[0], op.number("q_num_heads"))
    k, v = (_heads(c, op[i], op.number("kv_num_heads")) for i in (1, 2))
    k, v = _with_past(c, k, op.get(4)), _with_past(c, v, op.get(5))
    y = c.low.attention(q, k, v, op.get(3), causal=bool(op.number("is_causal")), scale=_scale(op, q))
    scores = [_scores(c, op, q, k)] if len(op.outputs) > 3 and op.outputs[3] else []
    return [_merge(c, y) if flat else y, k, v, *scores]


def _scores(c: Reader, op: Op, q: Value, k: Value) -> Value:
    """The optional fourth result: what goes into the softmax, or with mode 3 what comes out of it."""
    softmax = next(n for n in reversed(c.low.nodes) if n.kind == "softmax")
    found = softmax.out if op.number("qk_matmul_output_mode") == 3 else softmax.inputs[0]
    return c.low.reshape(found, [*q.shape[:-1], k.shape[-2]])


@rule("MultiHeadAttention", "DecoderMaskedMultiHeadAttention")
def _multi_head(c: Reader, op: Op) -> list[Value | None]:
    heads = op.number("num_heads", 1)
    q, k, v, bias = op[0], op.get(1), op.get(2), op.get(3)
    if q.ndim == 5:  # [b, s, h, 3, d]
        b, s, h, _, d = q.shape
        q, k, v = (c.low.transpose(c.low.reshape(p, [b, s, h, d]), [0, 2, 1, 3]) for p in c.low.split(q, 3, [1, 1, 1]))
    elif k is None:
        raise c.low.fail("attention without keys")
    elif k.ndim == 5:  # [b, s, h, 2, d]
        b, s, h, _, d = k.shape
        k, v = (c.low.transpose(c.low.reshape(p, [b, s, h, d]), [0, 2, 1, 3]) for p in c.low.split(k, 3, [1, 1]))
        q = _heads(c, q, heads)
    else:
        if v is None:
            raise c.low.fail("attention without values")
        parts = [q, k, v]
        if bias is not None:
            sizes = [p.shape[-1] if p.ndim == 3 else p.shape[1] * p.shape[3] for p in parts]
            pieces = c.low.split(bias, 0, sizes)
            parts = [c.low.elementwise("add", p, b) if p.ndim == 3 else p for p, b in zip(parts, pieces)]
        q, k, v = (_heads(c, p, heads) for p in parts)
    assert k is not None
    assert v is not None
    k, v = _with_past(c, k, op.get(6)), _with_past(c, v, op.get(7))
    mask = next((m for m in (op.get(5), op.get(4)) if m is not None), None)
    y = c.low.attention(q, k, v, mask, causal=bool(op.number("unidirectional")), scale=_scale(op, q))
    return [_merge(c, y), k, v]


@rule("GroupQueryAttention")
def _group_query(c: Reader, op: Op) -> list[Value | None]:
    heads, groups = op.number("num_heads", 1), op.number("kv_num_heads", 1)
    q, k, v = op[0], op.get(1), op.get(2)
    if k is None or v is None:  # packed
        width = c.low.divide(q.shape[-1], heads + 2 * groups)
        q, k, v = c.low.split(q, 2, [width * heads, width * groups, width * groups])
    q, k, v = _heads(c, q, heads), _heads(c, k, groups), _heads(c, v, groups)
    if op.number("do_rotary"):
        tables = [t for t in (op.get(7), op.get(8)) if t is not None]
        q, k = (c.low.one("rope", [x, *tables], x.shape) for x in (q, k))
    k, v = _with_past(c, k, op.get(3)), _with_past(c, v, op.get(4))
    return [_merge(c, c.low.attention(q, k, v, None, causal=True, scale=_scale(op, q))), k, v]


@rule("RotaryEmbedding")
def _rotary(c: Reader, op: Op) -> Value:
    x = op[0]
    extra = [v for v in op.given()[1:] if is_float(v.format)]
    heads = op.number("num_heads")
    if x.ndim == 3 and heads:
        b, s, m = x.shape
        split = c.low.reshape(x, [b, s, heads, c.low.divide(m, heads)])
        return c.low.reshape(c.low.one("rope", [split, *extra], split.shape), x.shape)
    return c.low.one("rope", [x, *extra], x.shape)


@rule("BiasSplitGelu", "BiasAdd")
def _bias_split(c: Reader, op: Op) -> Value:
    x = c.low.elementwise("add", op[0], op[1])
    if op.type == "BiasAdd":
        return c.low.elementwise("add", x, op[2]) if op.get(2) is not None else x
    half = c.low.divide(x.shape[-1], 2)
    left, right = c.low.split(x, x.ndim - 1, [half, half])
    return c.low.elementwise("mul", left, c.low.elementwise("gelu", right))


@rule("STFT", "DFT", "MelWeightMatrix", "HannWindow", "HammingWindow")
def _signal(c: Reader, op: Op) -> Value:
    shape = c.declared_shape(op)
    if shape is None:
        raise c.low.fail("a spectrum whose shape is not declared; run shape inference first")
    return c.low.one("move", op.given(), shape, fn=op.type.lower())
