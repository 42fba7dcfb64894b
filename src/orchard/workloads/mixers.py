"""Mixers with a state of fixed size: gated DeltaNet, Mamba and Mamba-2, gated short convolution.

The recurrences are `scan` ops: `state` elements per sequence, `ops_per_step` per token and sequence. A scan reads its
state operand (the last input) and produces the new one (its last output); both stay in place in memory.
"""

from __future__ import annotations

from orchard.ir import Tensor
from orchard.workloads.blocks import Build


def gated_delta(build: Build, x: Tensor, layer: int) -> Tensor:
    """Gated DeltaNet: S = decay * S + beta * (v - S k) k^T, y = S q, per value head with a key_dim x value_dim state.

    M model dim, K key heads, H value heads, D key dim, E value dim. Per step and head: decay D*E, S k 2*D*E, rank-one
    update 2*D*E, S q 2*D*E.
    """
    b, config = build.b, build.config
    delta = config.delta
    assert delta is not None
    B, T, M = build.batch, build.tokens, config.hidden
    K, H, D, E = delta.key_heads, delta.value_heads, delta.key_dim, delta.value_dim
    channels = 2 * K * D + H * E

    qkv = build.project("b t m, m e -> b t e", x, (M, channels), name="qkv", part="attn_qkv", layer=layer)
    z = build.project("b t m, m h e -> b t h e", x, (M, H, E), name="z", part="other", layer=layer)
    beta = build.project("b t m, m h -> b t h", x, (M, H), name="beta", part="ssm", layer=layer)
    alpha = build.project("b t m, m h -> b t h", x, (M, H), name="alpha", part="ssm", layer=layer)
    beta = b.elementwise("sigmoid", beta)
    rate = b.weight("a_log", (H,), part="other", layer=layer)
    step = b.weight("dt_bias", (H,), part="bias", layer=layer)
    decay = b.elementwise("decay", alpha, step, rate)  # -exp(A) * softplus(alpha + dt_bias)

    qkv = b.elementwise("silu", causal_conv(build, qkv, channels, delta.conv_kernel, layer, bias=False))
    q, k, v = b.split(qkv, (B, T, K, D), (B, T, K, D), (B, T, H, E), name="qkv_parts")
    q, k = b.norm("l2norm", q, name="q_norm"), b.norm("l2norm", k, name="k_norm")
    state = b.state("delta_state", (B, H, D, E), format="f32", part="recurrent", layer=layer)
    y, _ = b.op(
        "scan", [q, k, v, decay, beta, state], [(B, T, H, E), state.shape], name="delta",
        formats=[b.activations, "f32"], attrs={"fn": "gated_delta", "state": H * D * E, "ops_per_step": 7 * H * D * E},
    )  # fmt: skip
    y = build.rmsnorm(y, E, layer, "y_norm")
    y = b.elementwise("mul", y, b.elementwise("silu", z), name="gate")
    return build.project("b t h e, h e m -> b t m", y, (H, E, M), name="out", part="ssm", layer=layer)


def mamba1(build: Build, x: Tensor, layer: int) -> Tensor:
    """Mamba: h = exp(dt A) h + dt B x, y = h C + D x, for every channel with a row of N state elements.

    M model dim, I inner channels, N state dim, R rank of the step size. Per step 9*I*N + I: the count of VMamba's appendix
    (arXiv:2401.10166, `9 B L D N` and the skip); runtimes scan it in order for one token and in chunks for a prompt.
    """
    b, config = build.b, build.config
    mamba = config.selective
    assert mamba is not None
    B, T, M = build.batch, build.tokens, config.hidden
    inner, N, R = mamba.inner, mamba.state, mamba.rank

    def biased(width: int) -> tuple[int, ...] | None:
        return (width,) if mamba.bias else None

    spec = "b t m, m e -> b t e"
    xz = build.project(spec, x, (M, 2 * inner), name="in", part="ssm", layer=layer, bias=biased(2 * inner))
    xs, z = b.split(xz, (B, T, inner), (B, T, inner), name="in_parts")
    xs = b.elementwise("silu", causal_conv(build, xs, inner, mamba.conv_kernel, layer, bias=mamba.conv_bias))
    dbc = build.project(spec, xs, (inner, R + 2 * N), name="select", part="ssm", layer=layer)
    rank, Bs, Cs = b.split(dbc, (B, T, R), (B, T, N), (B, T, N), name="select_parts")
    dt = build.project(spec, rank, (R, inner), name="dt", part="ssm", layer=layer, bias=(inner,))
    dt = b.elementwise("softplus", dt, name="dt_step")
    rate = b.weight("a_log", (inner, N), part="other", layer=layer)
    skip = b.weight("d", (inner,), part="other", layer=layer)
    state = b.state("ssm_state", (B, inner, N), format="f32", part="recurrent", layer=layer)
    y, _ = b.op(
        "scan", [xs, dt, Bs, Cs, rate, skip, state], [(B, T, inner), state.shape], name="ssm",
        formats=[b.activations, "f32"],
        attrs={"fn": "mamba1", "state": inner * N, "ops_per_step": 9 * inner * N + inner},
    )  # fmt: skip
    y = b.elementwise("mul", y, b.elementwise("silu", z), name="gate")
    return build.project("b t i, i m -> b t m", y, (inner, M), name="out", part="ssm", layer=layer, bias=biased(M))


def mamba2(build: Build, x: Tensor, layer: int) -> Tensor:
    """Mamba-2: h = exp(dt A) h + dt x B^T, y = h C + D x, per head with a P x N state; B and C shared by groups of
    heads.

    M model dim, H heads, P head dim, N state dim, U groups, I = H*P inner dim. Per step and head: decay and input
    3*P*N, output 2*P*N, skip 2*P.
    """
    b, config = build.b, build.config
    mamba = config.mamba
    assert mamba is not None
    B, T, M = build.batch, build.tokens, config.hidden
    H, P, N, U = mamba.heads, mamba.head_dim, mamba.state, mamba.groups
    inner = H * P
    channels = inner + 2 * U * N

    zxdt = build.project(
        "b t m, m e -> b t e", x, (M, inner + channels + H), name="in", part="ssm", layer=layer
    )  # fmt: skip
    z, xbc, dt = b.split(zxdt, (B, T, inner), (B, T, channels), (B, T, H), name="in_parts")
    xbc = b.elementwise("silu", causal_conv(build, xbc, channels, mamba.conv_kernel, layer, bias=mamba.conv_bias))
    xs, Bs, Cs = b.split(xbc, (B, T, H, P), (B, T, U, N), (B, T, U, N), name="xbc_parts")
    dt = b.elementwise("softplus", dt, b.weight("dt_bias", (H,), part="bias", layer=layer), name="dt")
    rate = b.weight("a_log", (H,), part="other", layer=layer)
    skip = b.weight("d", (H,), part="other", layer=layer)
    state = b.state("ssm_state", (B, H, P, N), format="f32", part="recurrent", layer=layer)
    y, _ = b.op(
        "scan", [xs, dt, Bs, Cs, rate, skip, state], [(B, T, inner), state.shape], name="ssm",
        formats=[b.activations, "f32"],
        attrs={"fn": "mamba2", "state": H * P * N, "ops_per_step": H * (5 * P * N + 2 * P)},
    )  # fmt: skip
    y = b.elementwise("mul", y, b.elementwise("silu", z), name="gate")
    y = build.rmsnorm(y, inner, layer, "y_norm")
    return build.project("b t i, i m -> b t m", y, (inner, M), name="out", part="ssm", layer=layer)


def short_conv(build: Build, x: Tensor, layer: int) -> Tensor:
    """LFM2's gated short convolution: (B, C, x) = in(x); y = out(C * conv(B * x))."""
    b, config = build.b, build.config
    kernel, M = config.conv_kernel, config.hidden
    assert kernel is not None
    shape = (build.batch, build.tokens, M)
    bcx = build.project(
        "b t m, m e -> b t e", x, (M, 3 * M),
        name="in", part="other", layer=layer, bias=(3 * M,) if config.conv_bias else None,
    )  # fmt: skip
    gate_in, gate_out, value = b.split(bcx, shape, shape, shape, name="in_parts")
    y = causal_conv(build, b.elementwise("mul", gate_in, value, name="gate_in"), M, kernel, layer, config.conv_bias)
    y = b.elementwise("mul", gate_out, y, name="gate_out")
    return build.project(
        "b t m, m n -> b t n", y, (M, M),
        name="out", part="other", layer=layer, bias=(M,) if config.conv_bias else None,
    )  # fmt: skip


def causal_conv(build: Build, x: Tensor, channels: int, kernel: int, layer: int, bias: bool) -> Tensor:
    """Depthwise causal convolution over x [B, T, channels]; its state holds the last kernel - 1 tokens."""
    b = build.b
    operands = [x, b.weight("w_conv", (channels, kernel), part="conv", layer=layer)]
    if bias:
        operands.append(b.weight("b_conv", (channels,), part="bias", layer=layer))
    state = b.state(
        "conv_state", (build.batch, kernel - 1, channels), format=b.activations, part="recurrent", layer=layer
    )  # fmt: skip
    y, _ = b.op(
        "scan", [*operands, state], [x.shape, state.shape], name="conv",
        attrs={"fn": "causal_conv", "state": (kernel - 1) * channels, "ops_per_step": 2 * kernel * channels},
    )  # fmt: skip
    return y
