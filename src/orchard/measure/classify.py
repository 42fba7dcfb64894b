"""What an ATen operation counts: its group, sizes and the operands it touches.

A view touches nothing. Everything else reads each tensor operand once and writes each result once; what an operation does
besides (repacking, several passes) is a matter of the group's fitted costs. An operation without a rule of its own counts
as one pass over its operands: that is what most of ATen does, and the trace keeps its name for whoever wants to look.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchard.cost.eager import Launch
from orchard.measure.library import library

Operand = tuple[Any, float]


@dataclass(frozen=True)
class Found:
    """A launch without distances, and its operands: (tensor, bytes touched)."""

    launch: Launch
    reads: tuple[Operand, ...] = ()
    writes: tuple[Operand, ...] = ()


VIEWS = frozenset(
    [
        "view",
        "t",
        "transpose",
        "permute",
        "expand",
        "unsqueeze",
        "squeeze",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "alias",
        "detach",
        "as_strided",
        "_unsafe_view",
        "_reshape_alias",
        "lift_fresh",
        "unfold",
        "diagonal",
        "view_as_real",
        "real",
        "movedim",
        "narrow",
        "swapaxes",
        "lift",
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "resize_",
        "set_",
        "_local_scalar_dense",
        "item",
        "is_same_size",
    ]
)
"""Only a header changes, or memory is handed out that nobody has touched."""

FILLS = frozenset(
    [
        "zeros",
        "ones",
        "full",
        "fill",
        "zero",
        "zeros_like",
        "ones_like",
        "full_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "arange",
        "scalar_tensor",
        "eye",
        "tril_indices",
        "linspace",
    ]
)

HEAVY = {
    "exp": "exp",
    "tanh": "tanh",
    "sigmoid": "exp",
    "silu": "silu",
    "gelu": "gelu",
    "erf": "gelu",
    "log": "exp",
    "log1p": "exp",
    "expm1": "exp",
    "pow": "pow",
    "sin": "trig",
    "cos": "trig",
    "softplus": "silu",
    "mish": "silu",
    "gelu_backward": "gelu_backward",
    "silu_backward": "silu_backward",
    "bernoulli": "random",
    "normal": "random",
    "uniform": "random",
    "rand": "random",
    "randn": "random",
    "native_dropout": "random",
    "div": "div",
    "reciprocal": "div",
    "addcdiv": "div",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "hardswish": "hard",
    "hardsigmoid": "hard",
    "elu": "exp",
    "log_sigmoid_forward": "exp",
    "neg": "neg",
    "where": "where",
    "hardtanh": "clamp",
    "clamp": "clamp",
    "masked_fill": "where",
    "clamp_min": "clamp",
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "logical_not", "bitwise_and", "logical_and"), "compare"),
}
"""Functions whose cost per element differs from a load, an add and a store."""

SELECTS = frozenset(
    ["sort", "topk", "argmax", "argmin", "cumsum", "cumprod", "unique", "nonzero", "multinomial", "median", "kthvalue"]
)
GATHERS = frozenset(["embedding", "index_select", "index", "gather", "take", "embedding_bag"])
SCATTERS = frozenset(
    [
        "embedding_dense_backward",
        "index_add",
        "index_put",
        "index_copy",
        "scatter",
        "scatter_add",
        "_index_put_impl",
        "index_fill",
        "slice_scatter",
        "select_scatter",
        "select_backward",
        "slice_backward",
    ]
)
POOLS = frozenset(
    [
        "max_pool2d_with_indices",
        "avg_pool2d",
        "_adaptive_avg_pool2d",
        "max_pool2d",
        "avg_pool1d",
        "max_pool1d",
        "max_pool2d_with_indices_backward",
        "avg_pool2d_backward",
        "_adaptive_avg_pool2d_backward",
    ]
)
NORMS = {
    "native_layer_norm": "layernorm",
    "native_group_norm": "groupnorm",
    "native_batch_norm": "batchnorm",
    "_native_batch_norm_legit": "batchnorm",
    "_native_batch_norm_legit_no_training": "batchnorm",
    "cudnn_batch_norm": "batchnorm",
    "_batch_norm_with_update": "batchnorm",
    "_batch_norm_no_update": "batchnorm",
    "native_layer_norm_backward": "layernorm_backward",
    "native_group_norm_backward": "groupnorm_backward",
    "native_batch_norm_backward": "batchnorm_backward",
    "_fused_rms_norm": "layernorm",
}
SOFTMAXES = frozenset(
    ["_softmax", "_log_softmax", "_safe_softmax", "_softmax_backward_data", "_log_softmax_backward_data"]
)
REDUCES = frozenset(
    [
        "sum",
        "mean",
        "amax",
        "amin",
        "max",
        "min",
        "prod",
        "var",
        "var_mean",
        "std",
        "norm",
        "linalg_vector_norm",
        "any",
        "all",
        "logsumexp",
        "nll_loss_forward",
        "count_nonzero",
    ]
)
IGNORED = frozenset(("prim.device", "prim.layout", "profiler", "aten.sym_size", "aten.is_same_size"))

DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}


def classify(func: Any, args: Any, kwargs: Any, result: Any) -> Found | None:
    """What a call counts; None for calls that reach no kernel at all."""
    schema = func._schema.name
    namespace, _, raw = schema.partition("::")
    full = f"{namespace}.{raw}"
    if full in IGNORED or namespace not in ("aten", "quantized", "orchard", "mkldnn"):
        return None
    name = raw[:-1] if raw.endswith("_") and not raw.endswith("__") else raw
    inputs, outputs = _tensors((args, kwargs)), _tensors(result)
    if name in VIEWS or raw in VIEWS or (not inputs and not outputs):
        return Found(Launch(op=full, group="view"))
    rule = RULES.get(name)
    if rule is not None:
        return rule(full, args, kwargs, inputs, outputs)
    return _streamed(full, name, kwargs, inputs, outputs)


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in _tensors(item)]
    if isinstance(value, dict):
        return [t for item in value.values() for t in _tensors(item)]
    return [value] if hasattr(value, "untyped_storage") else []


def _bytes(tensor: Any) -> float:
    """Bytes of distinct elements: an expanded axis (stride 0) counts once."""
    elements = math.prod(n for n, s in zip(tensor.shape, tensor.stride()) if s != 0 or n == 0)
    return float(elements * tensor.element_size())


def _all(tensors: list[Any]) -> tuple[Operand, ...]:
    return tuple((t, _bytes(t)) for t in tensors)


def dtype_of(tensors: list[Any]) -> str:
    """The arithmetic's type: that of the first floating operand, `int` without one."""
    for tensor in tensors:
        found = DTYPES.get(str(tensor.dtype).removeprefix("torch."))
        if found:
            return found
    return "int"


def _elements(tensors: list[Any]) -> float:
    return float(max((t.numel() for t in tensors), default=0))


def _strided(inputs: list[Any], outputs: list[Any]) -> float:
    """Elements that an operation reads or writes with a stride in the innermost axis of its result."""
    found = 0.0
    for out in outputs[:1]:
        if out.dim() == 0 or out.numel() == 0:
            return 0.0
        inner = min(range(out.dim()), key=lambda a: (out.stride()[a] if out.shape[a] > 1 else 1 << 60, -a))
        for tensor in inputs:
            if tensor.shape == out.shape and tensor.shape[inner] > 1 and tensor.stride()[inner] > 1:
                found += tensor.numel()
    return found


def _streamed(full: str, name: str, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    """One pass over all operands."""
    elements = max(_elements(outputs), _elements(inputs) if name in REDUCES else 0.0)
    group, fn = "pointwise", HEAVY.get(name, "")
    if "gelu" in name and kwargs.get("approximate") == "tanh":
        fn = fn.replace("gelu", "gelu_tanh")
    sources = inputs
    if name in FILLS:
        group, sources = "fill", []
    elif name in (
        "copy",
        "clone",
        "_to_copy",
        "contiguous",
        "cat",
        "stack",
        "constant_pad_nd",
        "roll",
        "flip",
        "repeat",
        "split_copy",
        "im2col",
        "pixel_shuffle",
        "pixel_unshuffle",
    ):
        group = "copy"
        if name == "copy" and len(inputs) > 1:
            sources = inputs[1:]
        fn = {"cat": "cat", "stack": "cat", "constant_pad_nd": "pad"}.get(name, "")
        fn = "cast" if outputs and any(t.dtype != outputs[0].dtype for t in sources) else fn
    elif name in NORMS:
        group, fn, outputs = "norm", NORMS[name], outputs[:3]
        if fn.startswith("batchnorm"):
            elements = float(inputs[0].numel())
    elif name in SOFTMAXES:
        group, fn = "softmax", ("log" if "log" in name else "") + ("backward" if "backward" in name else "")
    elif name in REDUCES:
        group = "reduce"
        fn = _reduced(inputs, outputs)
    elif name in SELECTS:
        group, elements, fn = "select", _elements(inputs), name
    elif name in POOLS:
        group = "pool"
    elif name.startswith("upsample"):
        group, fn = "resize", "nearest" if "nearest" in name else ""
    strided = _strided(sources, outputs) if group in ("pointwise", "copy") else 0.0
    written = [t for t in outputs if t.numel()]
    launch = Launch(op=full, group=group, fn=fn, dtype=dtype_of(outputs + inputs), elements=elements, strided=strided)
    return Found(launch, _all(sources), _all(written))


def _reduced(inputs: list[Any], outputs: list[Any]) -> str:
    """`outer` where the innermost axis of memory survives the reduction: it then runs along rows of partial results."""
    x = inputs[0]
    out = outputs[0]
    if out.numel() <= 1 or x.dim() == 0:
        return ""
    inner = x.shape[-1]
    return "outer" if out.dim() and out.shape[-1] == inner and inner > 1 and out.numel() < x.numel() else ""


# ---- rules with shapes

Rule = Callable[[str, Any, Any, list[Any], list[Any]], Found]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


@_rule("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_scaled_mm", "dot")
def _product(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    del args, kwargs
    left, right = inputs[-2], inputs[-1]
    out = outputs[0]
    batch = float(left.shape[0]) if left.dim() == 3 else 1.0
    rows = float(left.shape[-2]) if left.dim() >= 2 else 1.0
    depth = float(left.shape[-1])
    columns = float(right.shape[-1]) if right.dim() >= 2 else 1.0
    if right.dim() == 1:
        rows, columns = columns, rows  # a matrix-vector product, seen as one row
    group = "gemv" if min(rows, columns) == 1.0 else "gemm"
    launch = Launch(
        op=full,
        group=group,
        dtype=dtype_of(inputs),
        batch=batch,
        rows=rows,
        columns=columns,
        depth=depth,
        macs=batch * rows * columns * depth,
        elements=float(out.numel()),
    )
    return Found(launch, _all(inputs), _all(outputs))


@_rule("_weight_int8pack_mm", "_weight_int4pack_mm_for_cpu", "_int_mm", "_weight_int4pack_mm")
def _narrow(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    """Weights of 8 or 4 bits; the product's size follows from its result."""
    del args, kwargs
    x, out = inputs[0], outputs[0]
    rows, depth, columns = float(x.shape[0]), float(x.shape[1]), float(out.shape[-1])
    dtype = "int4w" if "int4" in full else "int8w" if "int8" in full else "int8"
    launch = Launch(
        op=full,
        group="gemv" if rows == 1.0 else "gemm",
        dtype=dtype,
        rows=rows,
        columns=columns,
        depth=depth,
        macs=rows * columns * depth,
        elements=float(out.numel()),
    )
    return Found(launch, _all(inputs), _all(outputs))


@_rule("convolution", "mkldnn_convolution", "_convolution", "conv2d", "conv1d", "thnn_conv2d", "_slow_conv2d_forward")
def _conv(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    del kwargs
    transposed = bool(args[6]) if full.endswith(".convolution") else False
    groups = int(args[8]) if full.endswith(".convolution") else 1
    if full.endswith(".convolution") and not transposed and _as_product(args, inputs[0], inputs[1], groups):
        return _lowered_conv(full, inputs, outputs)
    return _window(full, inputs[0], inputs[1], outputs[0], groups, transposed, 1.0, inputs, outputs)


def _as_product(args: Any, x: Any, w: Any, groups: int) -> bool:
    """Whether PyTorch runs a convolution in f32 as a matrix product (ATen, use_mkldnn in Convolution.cpp): points without a
    stride on one thread, and small inputs of one image."""
    if groups != 1 or str(x.dtype) != "torch.float32" or x.dim() != 4:
        return False
    strided = any(s != 1 for s in args[3]) or any(d != 1 for d in args[5])
    point = all(n == 1 for n in w.shape[2:])
    if point and not strided and x.shape[0] < 16 and library("torch").get_num_threads() == 1:
        return True
    return all(n <= 3 for n in w.shape[2:]) and x.shape[0] == 1 and x.numel() <= 20480


def _lowered_conv(full: str, inputs: list[Any], outputs: list[Any]) -> Found:
    """Weights [out, in x taps] times patches [in x taps, places]; with more than one tap the patches are written first."""
    x, w, out = inputs[0], inputs[1], outputs[0]
    taps = float(math.prod(w.shape[2:]))
    places, depth = float(math.prod(out.shape[2:])), taps * w.shape[1]
    patches = places * depth * x.shape[0] if taps > 1 else 0.0
    launch = Launch(
        op=full,
        group="gemm",
        fn="conv",
        dtype="f32",
        batch=float(x.shape[0]),
        rows=float(w.shape[0]),
        columns=places,
        depth=depth,
        taps=taps,
        macs=x.shape[0] * w.shape[0] * places * depth,
        elements=float(out.numel()),
        strided=patches,
    )
    return Found(launch, _all(inputs), _all(outputs))


@_rule("convolution_backward")
def _conv_backward(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    """The gradients of input and weight: two convolutions of the same size."""
    del kwargs
    grad, x, w = inputs[:3]
    passes = float(sum(bool(m) for m in args[10][:2]))
    return _window(full, x, w, grad, int(args[9]), bool(args[7]), passes, inputs, outputs)


def _window(
    full: str,
    x: Any,
    w: Any,
    out: Any,
    groups: int,
    transposed: bool,
    passes: float,
    inputs: list[Any],
    outputs: list[Any],
) -> Found:
    taps = float(math.prod(w.shape[2:]))
    channels_out, channels_in = (w.shape[1] * groups, w.shape[0]) if transposed else (w.shape[0], w.shape[1] * groups)
    spatial = float(math.prod((x if transposed else out).shape[2:])) * x.shape[0]
    depthwise = groups > 1 and channels_in == groups
    launch = Launch(
        op=full,
        group="depthwise" if depthwise else "conv",
        fn="backward" if passes > 1 else "strided" if depthwise and 4 * spatial <= x.numel() / x.shape[1] + 4 else "",
        dtype=dtype_of(inputs),
        batch=float(groups),
        rows=spatial,
        columns=channels_out / groups,
        depth=taps * channels_in / groups,
        taps=taps,
        macs=passes * spatial * taps * channels_in * channels_out / groups,
        elements=float(out.numel()),
        weight_bytes=_bytes(w),
    )
    return Found(launch, _all(inputs), _all([t for t in outputs if t.numel()]))


@_rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
)
def _attention(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    backward = full.endswith("backward")
    q, k, v = inputs[1:4] if backward else inputs[:3]
    causal = bool(kwargs.get("is_causal", False)) or any(a is True for a in args)
    sequences, heads, tokens, dim = q.shape
    context = k.shape[-2]
    scores = float(sequences * heads * tokens * context)
    if causal and tokens == context:
        scores = sequences * heads * tokens * (context + 1) / 2.0
    launch = Launch(
        op=full,
        group="attention",
        fn="backward" if backward else "causal" if causal else "",
        dtype=dtype_of(inputs),
        batch=float(sequences * heads),
        rows=float(tokens),
        columns=float(context),
        depth=float(dim),
        macs=scores * (dim + v.shape[-1]) * (2.5 if backward else 1.0),
        elements=scores,
    )
    return Found(launch, _all(inputs), _all([t for t in outputs if t.numel()]))


@_rule("mkldnn_rnn_layer", "mkldnn_rnn_layer_backward")
def _recurrent(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    """One layer: the input's product for all steps at once, then a product and the gates step by step."""
    del args, kwargs
    x, w_input, w_hidden = inputs[:3]
    steps, sequences = float(x.shape[0]), float(x.shape[1])
    gates = float(w_hidden.shape[0])
    passes = 3.0 if full.endswith("backward") else 1.0
    launch = Launch(
        op=full,
        group="scan",
        dtype=dtype_of(inputs),
        rows=sequences,
        columns=gates,
        depth=float(w_hidden.shape[1]),
        steps=steps,
        macs=passes * steps * sequences * (w_input.numel() + w_hidden.numel()),
        elements=steps * sequences * gates,
        fn="backward" if passes > 1 else "",
        weight_bytes=_bytes(w_hidden),
        reads=((steps * _bytes(w_hidden), _bytes(w_hidden)),),  # read again in every step
    )
    return Found(launch, _all(inputs), _all([t for t in outputs if t.numel()]))


def _gathered(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    """Rows are looked up: the table is touched where indices point."""
    del args, kwargs
    out = outputs[0]
    touched = float(out.numel() * out.element_size())
    rows = float(out.numel() / max(1, out.shape[-1] if out.dim() else 1))
    launch = Launch(op=full, group="gather", dtype=dtype_of(outputs), rows=rows, elements=float(out.numel()))
    return Found(launch, ((inputs[0], min(touched, _bytes(inputs[0]))), *_all(inputs[1:])), _all(outputs))


def _scattered(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    """Rows are written or added where indices point; a call that is not in place makes the whole result first."""
    del args, kwargs
    out = outputs[0]
    in_place = full.endswith("_")
    index = [t for t in inputs if dtype_of([t]) == "int"]
    source = max((t for t in inputs if t is not inputs[0] or len(inputs) < 3), key=lambda t: t.numel(), default=out)
    rows = float(sum(t.numel() for t in index[:1])) or 1.0
    touched = min(_bytes(source), _bytes(out))
    whole = 0.0 if in_place else _bytes(out)
    launch = Launch(op=full, group="scatter", dtype=dtype_of(outputs), rows=rows, elements=float(source.numel()))
    return Found(launch, (*_all([t for t in inputs if t is not out]), (out, touched)), ((out, touched + whole),))


for _name in GATHERS:
    RULES[_name] = _gathered
for _name in SCATTERS:
    RULES[_name] = _scattered


@_rule("max_pool2d_with_indices", "avg_pool2d", "max_pool2d", "max_pool2d_with_indices_backward", "avg_pool2d_backward")
def _pool(full: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> Found:
    del kwargs
    kernel = args[2] if full.endswith("backward") else args[1]
    taps = float(math.prod(kernel)) if isinstance(kernel, (list, tuple)) else 1.0
    taps = taps**2 if isinstance(kernel, (list, tuple)) and len(kernel) == 1 else taps
    launch = Launch(
        op=full,
        group="pool",
        fn="avg" if "avg" in full else "max",
        dtype=dtype_of(inputs),
        taps=taps,
        elements=float(outputs[0].numel()),
    )
    return Found(launch, _all(inputs), _all(outputs))
