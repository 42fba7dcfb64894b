"""Rows of the suite `kernels` as cases: one synchronised call of an array library each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

from orchard.cost.lower import lower
from orchard.cost.profile import Profile, load_profile
from orchard.ir import Builder, Graph, Tensor
from orchard.studies.cases import Case
from orchard.studies.runtimes import choose_profile
from orchard.studies.suite_case import Record, suite_case


def without_repeats(records: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rates that repeat a time of the same run are dropped."""

    def run(r: Record) -> tuple[str, ...]:
        return r["source"], r["chip"], r["engine"], r["library"], r["op"], r["shape"], r["dtype"]

    timed = {run(r) for r in records if r["metric"] == "ms"}
    return [r for r in records if r["metric"] == "ms" or run(r) not in timed]


FORMATS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


def kernel_case(record: Record) -> Case | str:
    if record["metric"] not in ("ms", "gflops"):
        return f"metric {record['metric']}"
    if record["dtype"] not in FORMATS or (record["engine"] == "cpu" and record["dtype"] != "fp32"):
        return "number format of a kernel without a rule"
    if record["notes"].startswith(("trust=C", "trust=D")):
        return "trust C or D"
    library = record["library"]
    if "not stated" in library:
        return "library not stated"
    if record["engine"] == "gpu" and library.startswith("MLX"):
        runtime = "mlx"
    elif record["engine"] == "gpu" and (library == "MPS" or library.startswith("PyTorch MPS")):
        runtime = "mps"
    elif record["engine"] == "cpu" and library == "numpy/torch CPU":
        return "numpy or torch on a CPU, BLAS not stated: runs at the rate of the SIMD units"
    elif record["engine"] == "cpu" and library in ("Accelerate", "numpy BLAS", "PyTorch CPU", "ggml + Accelerate BLAS"):
        runtime = "accelerate"
    elif record["engine"] == "cpu" and library.startswith("MLX CPU"):
        runtime = "mlx-cpu"
    else:
        return f"{record['engine']} through {library.split(' 0')[0]}: no profile of single operations"
    builder = OPS.get(record["op"])
    if builder is None or (record["engine"] == "cpu" and record["op"] not in ("gemm", "gemm_bias")):
        return f"op {record['op']} has no rule"
    built = builder(record["shape"], FORMATS[record["dtype"]])
    if built is None:
        return "shape not stated in full"
    graph, macs = built
    if record["metric"] == "gflops" and not macs:
        return "rate of an op without products"
    value = float(record["value"])
    seconds = value / 1e3 if record["metric"] == "ms" else 2.0 * macs / (value * 1e9)
    engine = record["engine"]
    date = "" if runtime == "accelerate" else build_of(library, record["notes"])
    profile = choose_profile(f"{runtime}@{date}" if date else runtime, engine, serves="ops")
    made = suite_case(
        record, profile, graph, {}, seconds, stratum=kernel_stratum(engine, record["op"], seconds), family=record["op"]
    )
    if isinstance(made, Case) and library.endswith("unfused"):
        profile = unfused(made.profile.name)
        return replace(made, profile=profile, table=lower(graph, profile.lowering))
    return made


BUILDS = ((0.29, "2025-09"), (0.2, "2024-11"), (0.12, "2024-05"), (0.05, "2024-03"), (0.0, "2024-02"))
"""MLX versions (0.20.0 as 0.20) and when they appeared."""

LIBRARY_DATES = {"MLX fused": "2024-11", "MLX unfused": "2024-11", "MLX (before fused Winograd)": "2025-01"}
"""Rows of pull requests 1610 and 1803 of MLX."""


def build_of(library: str, notes: str) -> str:
    """The date of the build that a row timed, empty where nothing says it (the newest profile answers then).

    Rows of one benchmark run share a machine and a day, so a PyTorch row takes the date of the MLX version named beside it. The
    runs that name no version are the first ones of that benchmark, before MLX 0.2.
    """
    if library in LIBRARY_DATES:
        return LIBRARY_DATES[library]
    version = re.search(r"mlx:? 0\.(\d+)", notes) or re.search(r"MLX 0\.(\d+)", library)
    if version is None:
        return "2024-01" if library.endswith("n/a") else ""
    minor = int(version.group(1))
    return next(date for least, date in BUILDS if minor >= round(least * 100))


@lru_cache(maxsize=4)
def unfused(name: str) -> Profile:
    """The profile with attention as separate kernels."""
    profile = load_profile(name)
    return replace(profile, lowering=replace(profile.lowering, fused_attention=False))


def kernel_stratum(engine: str, op: str, seconds: float) -> str:
    if engine == "cpu":
        return "CPU GEMM"
    if op in ("gemm", "gemm_bias", "conv2d", "attention"):
        return "GPU products above 0.3 ms" if seconds > 0.3e-3 else "GPU products below 0.3 ms"
    return "GPU streams"


def _named(shape: str) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r"([a-z_]+)=(\d+)", shape)}


def _gemm(shape: str, fmt: str) -> tuple[Graph, int] | None:
    s = _named(shape)
    if not {"m", "n", "k"} <= set(s):
        return None
    b = Builder("gemm", activations=fmt)
    batch = s.get("b", 1)
    x = b.input("x", (batch, s["m"], s["k"]))
    if batch > 1 and "shared" not in shape:
        y = b.einsum("b m k, b k n -> b m n", x, b.input("w", (batch, s["k"], s["n"])))
    else:
        y = b.linear(x, b.weight("w", (s["k"], s["n"]), part="other", format=fmt))
    if "bias" in shape:
        y = b.elementwise("add", y, b.weight("bias", (s["n"],), part="other", format=fmt))
    return b.build([y]), batch * s["m"] * s["n"] * s["k"]


def _conv(shape: str, fmt: str) -> tuple[Graph, int] | None:
    s = _named(shape)
    if not {"n", "h", "w", "c", "out", "kh", "kw"} <= set(s):
        return None
    b = Builder("conv2d", activations=fmt)
    stride = s.get("stride", 1)
    same = s.get("pad", s.get("padding", 0)) > 0
    p, q = ((n if same else n - k) // stride + (0 if same else 1) for n, k in ((s["h"], s["kh"]), (s["w"], s["kw"])))
    x = b.input("x", (s["n"], s["c"], s["h"], s["w"]))
    w = b.weight("w", (s["out"], s["c"], s["kh"], s["kw"]), part="conv", format=fmt)
    spec = f"b c ({stride}*p+r) ({stride}*q+s), m c r s -> b m p q"
    (y,) = b.op("einsum", [x, w], [(s["n"], s["out"], p, q)], attrs={"spec": spec})
    return b.build([y]), s["n"] * s["out"] * p * q * s["c"] * s["kh"] * s["kw"]


def _attention(shape: str, fmt: str) -> tuple[Graph, int] | None:
    s = _named(shape)
    if not {"q", "kv", "d"} <= set(s):
        return None
    batch, heads = s.get("b", 1), s.get("heads", s.get("h", 1))
    b = Builder("attention", activations=fmt)
    q = b.input("q", (batch, s["q"], heads, 1, s["d"]))
    k, v = (b.input(n, (batch, s["kv"], heads, s["d"])) for n in "kv")
    pairs = s["q"] * s["kv"]
    scores = b.einsum("b t g r d, b s g d -> b g r t s", q, k, pairs=pairs)
    y = b.einsum("b g r t s, b s g d -> b t g r d", b.softmax(scores, pairs=pairs), v, pairs=pairs)
    return b.build([y]), 2 * batch * heads * s["q"] * s["kv"] * s["d"]


def _stream(build: Callable[[Builder, Tensor, str], Tensor]) -> Callable[[str, str], tuple[Graph, int] | None]:
    def made(shape: str, fmt: str) -> tuple[Graph, int] | None:
        sizes = re.match(r"\d+(x\d+)+", shape)
        if sizes is None:
            return None
        b = Builder("stream", activations=fmt)
        x = b.input("x", tuple(int(n) for n in sizes.group(0).split("x")))
        return b.build([build(b, x, shape)]), 0

    return made


def _reduced(b: Builder, x: Tensor, shape: str) -> Tensor:
    axis = re.search(r"axis=(-?\d)", shape)
    kept = [n for i, n in enumerate(x.shape) if axis and i != int(axis.group(1)) % len(x.shape)]
    return b.op("reduce", [x], [tuple(kept) or (1,)], attrs={"fn": "sum"})[0]


OPS: Mapping[str, Callable[[str, str], tuple[Graph, int] | None]] = {
    "gemm": _gemm, "gemm_bias": _gemm, "conv2d": _conv, "attention": _attention,
    "softmax": _stream(lambda b, x, _: b.softmax(x)), "relu": _stream(lambda b, x, _: b.elementwise("relu", x)),
    "sigmoid": _stream(lambda b, x, _: b.elementwise("sigmoid", x)), "reduce_sum": _stream(_reduced),
    "reduce_sum_axis": _stream(_reduced), "layernorm": _stream(lambda b, x, _: b.norm("layernorm", x)),
}  # fmt: skip
