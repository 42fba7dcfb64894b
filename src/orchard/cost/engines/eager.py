"""Eager runtimes on a CPU: every operation by itself, priced from its counts.

    t = dispatch[group] (+ recording for a backward pass) + overlapped(arithmetic, bytes) + fresh pages

* bytes: each operand at the cost per byte of its reuse distance (`read_s_per_byte.*`, `write_s_per_byte.*`, linear between
  knots in the logarithm of the distance), and `fresh_s_per_byte` for pages the allocator has just got.
* products: MACs at `macs_per_s.<dtype>`, less what is lost to edges: 1 / (1 + r0/rows + c0/columns + d0/depth), and
  `pack_s_per_byte` for what the library repacks at each call. One row streams its matrix at `gemv_share` of the reads.
* convolutions: the same with their own edges, plus the reordering of activations and weights into blocks.
* everything else: seconds per element of its group, function and type; `zero_s` more for a zero under a square root.

All terms come from the general shape of such kernels; their sizes are fitted to microbenchmarks (`orchard calibrate RUN`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from orchard.cost.eager import KNOTS_BYTES, Floats, Launch, LaunchArrays, launch_arrays
from orchard.cost.errors import CostError
from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Hardware, Terms, overlapped

Values = Mapping[str, float]


def eager_terms(k: LaunchArrays, p: Values) -> Terms:
    """Seconds of every launch [launches]. A parameter that is missing takes that of its f32 or plain sibling."""
    memory = _memory(k, p)
    compute = _compute(k, p)
    packed = _is(k, "gemm", "conv", "depthwise", "scan")
    sharpness = np.asarray(np.where(packed, max(p["packed_sharpness"], 1.0), max(p["overlap_sharpness"], 1.0)), dtype=np.float64)
    compute, memory = overlapped(compute, memory, sharpness)
    memory = memory + k.fresh_bytes * p["fresh_s_per_byte"]
    return Terms(compute, memory, _dispatch(k, p))


def _memory(k: LaunchArrays, p: Values) -> Floats:
    read = np.array([p[f"read_s_per_byte.{i}"] for i in range(len(KNOTS_BYTES))])
    write = np.array([p[f"write_s_per_byte.{i}"] for i in range(len(KNOTS_BYTES))])
    reads = k.read_at @ read
    reads = reads * np.where(_is(k, "gemv"), _column(k, "dtype", p, "gemv_stream"), 1.0)
    return np.asarray(reads + k.write_at @ write)


def _dispatch(k: LaunchArrays, p: Values) -> Floats:
    per_group = _column(k, "group.dtype", p, "dispatch_s")
    recorded = k.graded * np.where(_is(k, "view"), p["record_view_s"], p["record_s"])
    return np.asarray(per_group + recorded)


def _compute(k: LaunchArrays, p: Values) -> Floats:
    seconds = k.elements * _column(k, "group.fn.dtype", p, "element_s") * _touched(k)
    seconds = seconds + k.strided * p["strided_s"] + k.zeros * p.get("zero_s", 0.0)  # no such term in older files
    seconds = np.where(_is(k, "gemm"), _product(k, p), seconds)
    seconds = np.where(_is(k, "gemv"), k.macs / _column(k, "dtype", p, "gemv_macs_per_s"), seconds)
    seconds = np.where(_is(k, "conv"), _conv(k, p), seconds)
    seconds = np.where(_is(k, "depthwise"), _depthwise(k, p), seconds)
    seconds = np.where(_is(k, "attention"), _attention(k, p), seconds)
    seconds = np.where(_is(k, "scan"), _scan(k, p), seconds)
    seconds = seconds + np.where(_is(k, "gather", "scatter"), k.rows * p["row_s"], 0.0)
    return np.asarray(seconds)


def _touched(k: LaunchArrays) -> Floats:
    return np.where(_is(k, "pool"), k.taps, 1.0)


def _product(k: LaunchArrays, p: Values) -> Floats:
    rate = _column(k, "dtype", p, "macs_per_s")
    edges = _edges(k, p, "gemm")
    packed = k.batch * (k.rows + k.columns) * k.depth
    patches = np.where(k.fns == "conv", k.strided * p["patch_s"], 0.0)
    return np.asarray(k.macs / rate * edges + packed * p["pack_s"] + k.batch * p["matrix_s"] + patches)


def _edges(k: LaunchArrays, p: Values, prefix: str) -> Floats:
    """1 and more: how much longer a product takes than its MACs at the full rate."""
    rows, columns, depth = (np.maximum(x, 1.0) for x in (k.rows, k.columns, k.depth))
    return np.asarray(
        (1.0 + _column(k, "dtype", p, f"{prefix}_rows0") / rows)
        * (1.0 + _column(k, "dtype", p, f"{prefix}_columns0") / columns)
        * (1.0 + _column(k, "dtype", p, f"{prefix}_depth0") / depth)
    )


def _conv(k: LaunchArrays, p: Values) -> Floats:
    rate = _column(k, "dtype", p, "macs_per_s") * np.where(k.taps > 1.0, p["conv_window_share"], p["conv_point_share"])
    rate = rate * np.where(k.fns == "backward", p["conv_backward_share"], 1.0)
    passes = k.macs / np.maximum(k.batch * k.rows * k.columns * k.depth, 1.0)
    activations = k.read_at.sum(-1) + k.write_at.sum(-1) - k.weight_bytes * np.where(passes > 1.0, 2.0, 1.0)
    reorder = np.maximum(activations, 0.0) * p["reorder_s_per_byte"] + passes * k.weight_bytes * p["repack_s_per_byte"]
    return np.asarray(k.macs / rate * _edges(k, p, "conv") + reorder)


def _depthwise(k: LaunchArrays, p: Values) -> Floats:
    passes = k.macs / np.maximum(k.batch * k.rows * k.columns * k.depth, 1.0)
    per_output = passes * k.elements * np.where(k.fns == "strided", p["depthwise_strided_s"], p["depthwise_element_s"])
    return np.asarray(k.macs * p["depthwise_mac_s"] + per_output)


def _attention(k: LaunchArrays, p: Values) -> Floats:
    rate = _column(k, "dtype", p, "macs_per_s") * p["attention_share"]
    edges = (1.0 + p["attention_rows0"] / np.maximum(k.rows, 1.0)) * (
        1.0 + p["attention_depth0"] / np.maximum(k.depth, 1.0)
    )
    scores = k.elements * _column(k, "group.fn.dtype", p, "element_s")
    return np.asarray(k.macs / rate * edges + scores + k.batch * _column(k, "fn.dtype", p, "attention_head_s"))


def _scan(k: LaunchArrays, p: Values) -> Floats:
    rate = _column(k, "dtype", p, "macs_per_s")
    return np.asarray(k.macs / rate * p["scan_slowdown"] + k.steps * p["scan_step_s"])


def _is(k: LaunchArrays, *groups: str) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isin(k.groups, groups), dtype=np.bool_)


def _column(k: LaunchArrays, what: str, p: Values, prefix: str) -> Floats:
    """A parameter per launch by its labels."""
    names, place = k.positions(what)
    return np.array([parameter(p, prefix, name) for name in names])[place]


PRICED_BY_MACS = ("gemm", "gemv", "conv", "depthwise", "scan", "view")
"""Groups without a time per element: their MACs carry it, and a view does nothing."""
NARROW = ("int8", "int8w", "int4w")
"""Types whose products run as those of bf16 where no parameter of their own is fitted."""


def parameter(p: Values, prefix: str, label: str) -> float:
    """`prefix.label`, or the nearest parameter that is known: the type is dropped first, then the function. A type without a
    parameter counts as bf16 if it is narrow, else as f32. Raises CostError where none is known."""
    parts = label.split(".")
    if prefix == "element_s" and parts[0] in PRICED_BY_MACS:
        return 0.0
    tries = [parts[:end] for end in range(len(parts), 0, -1)]
    if len(parts) == 3:
        plain = parts[1].removesuffix("_backward")
        tries += [[parts[0], plain], [parts[0], "-", parts[2]], [parts[0], "-"]]
    tries += [["bf16"], ["f32"]] if label in NARROW else [["f32"], ["-"]]
    for attempt in tries:
        found = p.get(f"{prefix}.{'.'.join(attempt)}")
        if found is not None:
            return found
    raise CostError(f"the machine's runtime has no parameter {prefix}.{label}, nor one that could stand in for it")


# ---- kernels of a workload graph, which has no trace of an eager run


def kernel_times(k: KernelArrays, hw: Hardware, p: Values, rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included. The machine's own figures are in the parameters; `hw` sets only the
    shape of variants, so exploring hardware figures does not move a calibrated machine."""
    del hw, rules
    found = k._memo.get("eager")
    if found is None:
        found = k._memo["eager"] = launch_arrays(launches_of(k))
    terms = eager_terms(found, p)
    return Terms(terms.compute * k.count, terms.memory * k.count, terms.dispatch * k.launches)


def launches_of(k: KernelArrays) -> list[Launch]:
    """Kernels as launches. Weights and caches were last touched a whole pass ago; activations by the kernel before."""
    whole = float(((k.weight_bytes + k.state_bytes) * k.count).sum())
    return [_launch(k, i, whole) for i in range(len(k))]


def _launch(k: KernelArrays, i: int, whole: float) -> Launch:
    kernel = k.kernels[i]
    row = {name: float(column[i]) for name, column in k.counts.items()}
    stored, read, written = row["weight_bytes"] + row["state_bytes"], row["input_bytes"], row["output_bytes"]
    moved = stored + read + written
    dtype = counted_as(kernel.format)
    shape: dict[str, Any] = {"elements": written / WIDTHS[dtype], "group": "pointwise", "fn": ""}
    if kernel.kind in ("linear", "expert"):
        shape |= _product_shape(row)
    elif kernel.kind == "attention":
        pairs = row["macs"] / max(row["head_dim"], 1.0)
        shape |= {
            "group": "attention",
            "batch": row["sequences"] * row["heads"],
            "rows": row["tokens"],
            "columns": row["context"],
            "depth": row["head_dim"] / 2.0,
            "elements": pairs,
        }
    elif kernel.kind == "scan":
        gates = 4.0 if kernel.part.endswith("lstm") else 3.0
        shape |= {
            "group": "scan",
            "steps": row["tokens"],
            "rows": row["sequences"],
            "columns": gates,
            "weight_bytes": stored,
        }
    else:
        shape |= _streamed_shape(kernel.part)
    return Launch(
        op=kernel.name,
        dtype=dtype,
        macs=row["macs"],
        taps=row["taps"],
        reads=tuple(x for x in ((stored, max(whole, moved)), (read, moved)) if x[0]),
        writes=((written, moved),) if written else (),
        **shape,
    )


def _product_shape(row: Mapping[str, float]) -> dict[str, Any]:
    shape = {name: row[name] for name in ("batch", "rows", "columns", "depth")}
    if row["columns"] <= 1.0 < row["batch"] and row["taps"] > 1.0:
        return {**shape, "group": "depthwise", "fn": "strided" if row["stride"] > 1.0 else ""}
    if row["taps"] > 1.0 or row["stride"] > 1.0:
        return {**shape, "group": "conv", "weight_bytes": row["weight_bytes"]}
    return {**shape, "group": "gemv" if min(row["rows"], row["columns"]) <= 1.0 else "gemm"}


def _streamed_shape(token: str) -> dict[str, Any]:
    kind, _, fn = token.partition(".")
    if kind == "elementwise":
        return {"group": "pointwise", "fn": FUNCTIONS.get(fn, "")}
    if kind == "norm":
        return {"group": "norm", "fn": fn if fn in ("groupnorm", "batchnorm") else "layernorm"}
    group, fn = KINDS.get(kind, ("pointwise", ""))
    return {"group": group, "fn": ("avg" if "avg" in token else "max") if group == "pool" else fn}


DTYPES = {"f32": "f32", "bf16": "bf16", "f16": "bf16", "int8": "int8w", "int4": "int4w"}
"""Stored formats by the arithmetic they run in; half precision of the other kind counts as bfloat16."""


def counted_as(stored: str) -> str:
    """The arithmetic that a stored format runs in here; f32 for formats an eager runtime has no kernels for."""
    return DTYPES.get(stored, "f32")


WIDTHS = {"f32": 4.0, "bf16": 2.0, "int8w": 1.0, "int4w": 0.5}
FUNCTIONS = {
    "exp": "exp",
    "sigmoid": "exp",
    "tanh": "tanh",
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "erf": "gelu",
    "pow": "pow",
    "div": "div",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "sin": "trig",
    "cos": "trig",
    "where": "where",
    "neg": "neg",
    "clamp": "clamp",
    "relu6": "clamp",
    "hardswish": "hard",
}
KINDS = {
    "softmax": ("softmax", ""),
    "reduce": ("reduce", ""),
    "gather": ("gather", ""),
    "update": ("copy", ""),
    "move": ("copy", ""),
    "pool": ("pool", "max"),
    "resize": ("resize", ""),
    "fill": ("fill", ""),
    "topk": ("select", "topk"),
    "rope": ("pointwise", ""),
    "einsum": ("reduce", ""),
}
