"""torch rules: the kernels that decomposed and training programs name instead of the ops users write."""

from __future__ import annotations

from typing import Any

from orchard.workloads.importers.lowering import Value
from orchard.workloads.importers.torch_export.contractions import convolve
from orchard.workloads.importers.torch_export.layout import spread
from orchard.workloads.importers.torch_export.program import Args, Program, rule


@rule("aten._scaled_mm")
def _scaled_mm(p: Program, a: Args) -> Value:
    """A product of float8 matrices; the scales ride along."""
    y = p.low.matmul(a["self"], a["mat2"])
    if a.get("bias") is not None:
        y = p.low.elementwise("add", y, a["bias"])
    return p.low.cast(y, p.out_format())


@rule("aten._convolution", "aten.cudnn_convolution", "aten.convolution_overrideable", "aten._slow_conv2d_forward")
def _convolution(p: Program, a: Args) -> Value:
    return convolve(p, {"bias": None, **a, "input": a.get("input", a.get("self"))})


@rule("aten.convolution_backward")
def _convolution_backward(p: Program, a: Args) -> tuple[Value | None, ...]:
    """Gradients of input, weight and bias, each as often as the forward products but the last.

    Of the input: the transposed convolution of the output's gradient. Of the weight: each tap is the product of the
    output's gradient with the input as that tap sees it.
    """
    grad, x, w = a["grad_output"], a["input"], a["weight"]
    d = w.ndim - 2
    stride, dilation = spread(a["stride"], d) or [1] * d, spread(a["dilation"], d) or [1] * d
    pads = [(n, n) for n in (spread(a["padding"], d) or [0] * d)]
    groups, wanted = a["groups"] or 1, a["output_mask"]
    small, large = (x, grad) if a["transposed"] else (grad, x)  # the side the window slides over is the large one
    back_x = back_w = back_b = None
    if wanted[0] and a["transposed"]:
        back_x = p.low.conv(grad, w, stride=stride, pad=pads, dilation=dilation, groups=groups)
    elif wanted[0]:
        back_x = p.low.conv_transpose(
            grad, w, stride=stride, pad=pads, dilation=dilation, output_pad=_missing(x, grad, w, stride, pads, dilation),
            groups=groups,
        )  # fmt: skip
    if wanted[1]:
        back_w = _weight_gradient(p, small, large, w, stride, dilation, groups)
    if wanted[2]:
        back_b = p.low.reduce("sum", grad, [0, *range(2, d + 2)], False)
    return back_x, back_w, back_b


def _missing(x: Value, grad: Value, w: Value, stride: list[int], pads: list[Any], dilation: list[int]) -> list[int]:
    """Rows of the input that the last window did not reach, per axis; 0 where sizes are symbolic."""
    left = []
    for size, out, tap, st, pad, di in zip(x.shape[2:], grad.shape[2:], w.shape[2:], stride, pads, dilation):
        short = size - ((out - 1) * st + ((tap - 1) * di + 1) - pad[0] - pad[1])
        left.append(short if isinstance(short, int) else 0)
    return left


def _weight_gradient(
    p: Program, small: Value, large: Value, w: Value, stride: list[int], dilation: list[int], groups: int
) -> Value:
    d = w.ndim - 2
    pos, taps = "pqo"[:d], "rst"[:d]
    window = " ".join(
        f"({f'{st}*' if st > 1 else ''}{o}+{f'{di}*' if di > 1 else ''}{t})"
        for o, t, st, di in zip(pos, taps, stride, dilation)
    )
    k, c = w.shape[0], w.shape[1]
    if groups == 1:
        spec = f"n k {' '.join(pos)}, n c {window} -> k c {' '.join(taps)}"
        return p.low.einsum(spec, [small, large], w.shape)
    each = p.low.divide(k, groups)
    one = p.low.reshape(small, [small.shape[0], groups, each, *small.shape[2:]])
    other = p.low.reshape(large, [large.shape[0], groups, c, *large.shape[2:]])
    spec = f"n g k {' '.join(pos)}, n g c {window} -> g k c {' '.join(taps)}"
    return p.low.reshape(p.low.einsum(spec, [one, other], [groups, each, *w.shape[1:]]), w.shape)


# ---- attention


@rule("aten._scaled_dot_product_efficient_attention", "aten._scaled_dot_product_flash_attention",
      "aten._scaled_dot_product_cudnn_attention", "aten._scaled_dot_product_flash_attention_for_cpu",
      "aten._scaled_dot_product_fused_attention_overrideable")  # fmt: skip
def _fused(p: Program, a: Args) -> tuple[Value | None, ...]:
    y = _attention(p, a["query"], a["key"], a["value"], a.get("attn_bias", a.get("attn_mask")), a)
    return _first(p, y)


@rule("aten._flash_attention_forward", "aten._efficient_attention_forward")
def _by_token(p: Program, a: Args) -> tuple[Value | None, ...]:
    """The same on [batch, tokens, heads, width]."""
    if any(a.get(name) is not None for name in ("cum_seq_q", "cu_seqlens_q")):
        raise p.low.fail("attention over packed sequences, whose lengths only the running program knows")
    q, k, v = (p.low.swap(a[name], 1, 2) for name in ("query", "key", "value"))
    return _first(p, p.low.swap(_attention(p, q, k, v, a.get("bias"), a), 1, 2))


@rule("higher_order.flex_attention")
def _flex(p: Program, a: Args) -> tuple[Value | None, ...]:
    """flex_attention(query, key, value, score_mod, block_mask, scale, ...): a block mask that skips work is not seen."""
    q, k, v = p.get(p.node.args[:3])
    return _first(p, _attention(p, q, k, v, None, {"scale": p.node.args[5] if len(p.node.args) > 5 else None}))


def _attention(p: Program, q: Value, k: Value, v: Value, mask: Value | None, a: Args) -> Value:
    width, scale = q.shape[-1], a.get("scale")
    if scale is None and isinstance(width, int):
        scale = float(width) ** -0.5
    causal = bool(a.get("is_causal") or a.get("custom_mask_type"))
    return p.low.attention(q, k, v, mask, causal=causal, scale=scale)


def _first(p: Program, y: Value) -> tuple[Value | None, ...]:
    """The result; what a kernel keeps for its backward pass is not computed anew."""
    return (y, *[None] * (len(p.node.meta["val"]) - 1))


@rule("aten._scaled_dot_product_efficient_attention_backward", "aten._scaled_dot_product_flash_attention_backward",
      "aten._scaled_dot_product_cudnn_attention_backward")  # fmt: skip
def _fused_backward(p: Program, a: Args) -> tuple[Value | None, ...]:
    """Gradients of query, key and value: five products, the scores being computed again."""
    grad, q, k, v = a["grad_out" if "grad_out" in a else "grad_out_"], a["query"], a["key"], a["value"]
    low = p.low
    weights = low.softmax(low.matmul(q, k, transpose_b=True), -1, "softmax")
    back_v = low.matmul(weights, grad, transpose_a=True)
    back_scores = low.elementwise("softmax_backward", low.matmul(grad, v, transpose_b=True), weights)
    back_q, back_k = low.matmul(back_scores, k), low.matmul(back_scores, q, transpose_a=True)
    return (back_q, back_k, back_v, *[None] * (len(p.node.meta["val"]) - 3))
