"""Feed-forward parts: dense MLPs and mixtures of experts.

B batch, T tokens, M model dim, F inner width, E experts, K experts per token. Routed weights are stored [E, in, out];
their Einsums are over one expert's slice and carry routed=E and active=K.
"""

from __future__ import annotations

from orchard.ir import Tensor
from orchard.workloads.blocks import Build
from orchard.workloads.config import GATED_MLPS, Experts


def dense(build: Build, x: Tensor, width: int, layer: int, *, prefix: str = "ffn", name: str = "") -> Tensor:
    """x [B, T, M] through one MLP of `width`. `prefix` is ffn or shared: it names the roles of the weights."""
    b, config = build.b, build.config
    M, F = config.hidden, width
    shape, bias = (M, F), (F,) if config.mlp_bias else None
    up_spec = "b t m, m f -> b t f"
    if config.mlp in GATED_MLPS:
        act = GATED_MLPS[config.mlp]
        if config.fused_gate_up:
            both = build.project(
                up_spec, x, (M, 2 * F), name=f"{name}gate_up", part=f"{prefix}_gate_up", layer=layer
            )  # fmt: skip
            half = (*x.shape[:-1], F)
            gate, up = b.split(both, half, half, name=f"{name}gate_up_parts")
        else:
            gate = build.project(up_spec, x, shape, name=f"{name}gate", part=f"{prefix}_gate", layer=layer, bias=bias)
            up = build.project(up_spec, x, shape, name=f"{name}up", part=f"{prefix}_up", layer=layer, bias=bias)
        h = b.elementwise("mul", b.elementwise(act, gate, name=f"{name}act"), up, name=f"{name}mul")
    else:
        up = build.project(up_spec, x, shape, name=f"{name}up", part=f"{prefix}_up", layer=layer, bias=bias)
        h = b.elementwise(config.mlp, up, name=f"{name}act")
    return build.project(
        "b t f, f m -> b t m", h, (F, M), name=f"{name}down", part=f"{prefix}_down", layer=layer,
        bias=(M,) if config.mlp_bias else None,
    )  # fmt: skip


def mixture(build: Build, x: Tensor, layer: int, *, router_input: Tensor | None = None) -> Tensor:
    """x [B, T, M] through the chosen experts, plus the shared expert if there is one.

    `router_input` is what the router looks at where that is not x.
    """
    b, moe = build.b, build.config.moe
    assert moe is not None
    weights, chosen = _route(build, router_input or x, layer, moe)
    y = _experts(build, x, chosen, layer, moe)
    y = b.einsum("b t k m, b t k -> b t m", y, weights, name="combine")
    if not moe.shared_ffn or moe.parallel_dense:
        return y
    shared = dense(build, x, moe.shared_ffn, layer, prefix="shared", name="shared_")
    if moe.shared_gate:
        gate = build.project(
            "b t m, m o -> b t o", x, (build.config.hidden, 1),
            name="shared_score", part="router", layer=layer, format="f32",
        )  # fmt: skip
        gate = b.elementwise("sigmoid", gate, name="shared_sigmoid")
        shared = b.elementwise("mul", shared, gate, name="shared_gated")
    return b.elementwise("add", y, shared, name="shared_add")


def _route(build: Build, x: Tensor, layer: int, moe: Experts) -> tuple[Tensor, Tensor]:
    """Weights [B, T, K] and indices [B, T, K] of the chosen experts."""
    b, M, E, K = build.b, build.config.hidden, moe.experts, moe.active
    if moe.parallel_dense:  # Gemma 4: the router norms and scales its own input
        x = b.norm("rmsnorm", x, b.weight("w_router_norm", (M,), part="norm", layer=layer), name="router_norm")
    scores = build.project(
        "b t m, m e -> b t e", x, (M, E), name="router", part="router", layer=layer,
        bias=(E,) if moe.router_bias else None, format="f32",
    )  # fmt: skip
    if moe.score == "softmax":
        scores = b.softmax(scores, name="router_softmax")
    elif moe.score != "topk_softmax":
        scores = b.elementwise(moe.score, scores, name=f"router_{moe.score}")
    choice = scores
    if moe.correction_bias:
        correction = b.weight("router_correction", (E,), part="bias", layer=layer, format="f32")
        choice = b.elementwise("add", scores, correction, name="router_choice")
    top = (*scores.shape[:-1], K)
    weights, chosen = b.op("topk", [choice], [top, top], name="topk", formats=[b.activations, "i32"], attrs={"k": K})
    if moe.correction_bias:
        (weights,) = b.op("move", [scores, chosen], [top], name="router_pick", attrs={"fn": "gather"})
    if moe.score == "topk_softmax":
        weights = b.softmax(weights, name="router_softmax")
    elif moe.normalize:
        weights = b.elementwise("normalize", weights, name="router_normalize")
    if moe.parallel_dense:
        scale = b.weight("expert_scale", (E,), part="other", layer=layer)
        weights = b.elementwise("mul", weights, b.gather(scale, chosen, name="scale_pick"), name="router_scale")
    return weights, chosen


def _experts(build: Build, x: Tensor, chosen: Tensor, layer: int, moe: Experts) -> Tensor:
    """x [B, T, M] through each token's K experts: [B, T, K, M]."""
    b, M, F, E = build.b, build.config.hidden, moe.ffn, moe.experts
    routing = {"routed": E, "active": moe.active}
    up_spec = "b t m, m f, b t k -> b t k f"

    def up_projection(name: str) -> Tensor:
        w = b.weight(f"w_expert_{name}", (E, M, F), part=f"expert_{name}", layer=layer)
        y = b.einsum(up_spec, x, w, chosen, name=f"expert_{name}", **routing)
        return with_bias(name, y, F)

    def with_bias(name: str, y: Tensor, width: int) -> Tensor:
        if not moe.bias:
            return y
        table = b.weight(f"b_expert_{name}", (E, width), part="bias", layer=layer)
        rows = b.gather(table, chosen, name=f"expert_{name}_bias")
        return b.elementwise("add", y, rows, name=f"expert_{name}_add")

    mlp = build.config.mlp
    if mlp in GATED_MLPS:
        gate = b.elementwise(GATED_MLPS[mlp], up_projection("gate"), name="expert_act")
        h = b.elementwise("mul", gate, up_projection("up"), name="expert_mul")
    else:
        h = b.elementwise(mlp, up_projection("up"), name="expert_act")
    w_down = b.weight("w_expert_down", (E, F, M), part="expert_down", layer=layer)
    y = b.einsum("b t k f, f m -> b t k m", h, w_down, name="expert_down", **routing)
    return with_bias("down", y, M)
