"""torch rules: matrix products, convolutions, attention, experts."""

from __future__ import annotations

from typing import Any

from orchard.ir import product
from orchard.workloads.importers.lowering import Value
from orchard.workloads.importers.lowering.contract import contract
from orchard.workloads.importers.torch_export.layout import spread
from orchard.workloads.importers.torch_export.program import Args, Program, rule

# ---- rules: contractions


@rule("aten.linear")
def _linear(p: Program, a: Args) -> Value:
    return p.low.linear(a["input"], a["weight"], a["bias"])


@rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.linalg_matmul")
def _matmul(p: Program, a: Args) -> Value:
    x, y = list(a.values())[:2]
    return p.low.matmul(x, y)


@rule("aten.addmm", "aten.baddbmm", "aten.addbmm", "aten.addmv")
def _addmm(p: Program, a: Args) -> Value:
    x, y = [v for k, v in a.items() if k not in ("self", "beta", "alpha")][:2]
    z = p.low.matmul(x, y)
    if a.get("alpha") not in (1, None):
        z = p.low.elementwise("mul", z, p.value(a["alpha"]))
    if a.get("beta") == 0:
        return z
    return p.low.elementwise("add", z, a["self"], format=p.out_format())


@rule("aten.einsum")
def _einsum(p: Program, a: Args) -> Value:
    return contract(p.low, a["equation"], a["tensors"], p.out_shape())


@rule("aten.outer", "aten.ger")
def _outer(p: Program, a: Args) -> Value:
    x, y = list(a.values())[:2]
    return p.low.elementwise("mul", p.low.unsqueeze(x, [1]), p.low.unsqueeze(y, [0]), format=p.out_format())


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")
def convolve(p: Program, a: Args) -> Value:
    x, w = a["input"], a["weight"]
    d = w.ndim - 2
    single = x.ndim == d + 1
    if single:
        x = p.low.unsqueeze(x, [0])
    stride, dilation = spread(a.get("stride"), d) or [1] * d, spread(a.get("dilation"), d) or [1] * d
    padding = a.get("padding")
    if isinstance(padding, str):
        taps = [int(s) for s in w.shape[2:] if isinstance(s, int)]
        total = [(t - 1) * di if padding == "same" else 0 for t, di in zip(taps, dilation)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(n, n) for n in (spread(padding, d) or [0] * d)]
    groups = a.get("groups") or 1
    if a.get("transposed"):
        y = p.low.conv_transpose(
            x, w, a["bias"], stride=stride, pad=pads, dilation=dilation,
            output_pad=spread(a.get("output_padding"), d) or [0] * d, groups=groups,
        )  # fmt: skip
    else:
        y = p.low.conv(x, w, a["bias"], stride=stride, pad=pads, dilation=dilation, groups=groups)
    return p.low.squeeze(y, [0]) if single else y


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def _conv_transpose(p: Program, a: Args) -> Value:
    return convolve(p, {**a, "transposed": True})


@rule("aten.scaled_dot_product_attention")
def _sdpa(p: Program, a: Args) -> Value:
    q, k, v, mask = a["query"], a["key"], a["value"], a["attn_mask"]
    scale = a.get("scale")
    if scale is None:
        width = q.shape[-1]
        scale = float(width) ** -0.5 if isinstance(width, int) else None
    return p.low.attention(q, k, v, mask, causal=bool(a["is_causal"]), scale=scale)


@rule("orchard.experts")
def _experts(p: Program, a: Args) -> Value:
    """Routed feed-forward: each token through `active` of `routed` experts, then the weighted sum of the results."""
    x, index, weights, parameters = a["x"], a["index"], a["weights"], a["parameters"]
    matrices = [w for w in parameters if w.ndim == 3]
    up, down = matrices[0], matrices[-1]
    biases = [w for w in parameters if w.ndim == 2]
    transposed = a["transposed"]  # [experts, in, out]
    experts, k = up.shape[0], index.shape[-1]
    if not isinstance(experts, int) or not isinstance(k, int):
        raise p.low.fail("experts with a symbolic count")
    m = x.shape[-1]
    width, inner = (up.shape[2], down.shape[1]) if transposed else (up.shape[1], down.shape[2])
    rows = product(x.shape[:-1])
    flat, chosen = p.low.reshape(x, [rows, m]), p.low.reshape(index, [rows, k])
    gated = width != inner
    up.part = "expert_gate_up" if gated else "expert_up"
    down.part = "expert_down"
    routing: dict[str, Any] = {"routed": experts, "active": k}
    spec = "t m, m f, t k -> t k f" if transposed else "t m, f m, t k -> t k f"
    h = p.low.einsum(spec, [flat, up, chosen], [rows, k, width], **routing)
    if biases:
        h = p.low.elementwise("add", h, p.low.take(biases[0], chosen, 0))
    if gated:
        gate, value = p.low.split(h, 2, [inner, inner])
        h = p.low.elementwise("mul", p.low.elementwise("silu", gate), value)
    else:
        h = p.low.elementwise("gelu", h)
    spec = "t k f, f m -> t k m" if transposed else "t k f, m f -> t k m"
    y = p.low.einsum(spec, [h, down], [rows, k, m], **routing)
    if len(biases) > 1:
        y = p.low.elementwise("add", y, p.low.take(biases[1], chosen, 0))
    if weights.shape[-1] != k:  # scores over all experts: pick the chosen ones
        weights = p.low.one("move", [weights, index], index.shape, fn="gather")
    y = p.low.einsum("t k m, t k -> t m", [y, p.low.reshape(weights, [rows, k])], [rows, m])
    return p.low.reshape(y, x.shape)
