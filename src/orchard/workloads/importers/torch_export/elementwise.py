"""torch rules: elementwise ops and constants."""

from __future__ import annotations

from orchard.ir import Expr, product
from orchard.workloads.importers.lowering import Value, array
from orchard.workloads.importers.torch_export.program import RULES, Args, Program, Rule, rule

# ---- rules: elementwise

_UNARY = {
    "relu": "relu", "relu6": "relu6", "gelu": "gelu", "silu": "silu", "sigmoid": "sigmoid", "tanh": "tanh",
    "exp": "exp",
    "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "neg": "neg", "abs": "abs", "erf": "erf", "sin": "sin",
    "cos": "cos",
    "reciprocal": "reciprocal", "square": "square", "floor": "floor", "ceil": "ceil", "round": "round", "sign": "sign",
    "logical_not": "not", "bitwise_not": "not", "hardswish": "hardswish", "hardsigmoid": "hardsigmoid", "mish": "mish",
    "leaky_relu": "leaky_relu", "elu": "elu", "softplus": "softplus", "log_sigmoid": "log_sigmoid", "isnan": "isnan",
    "isinf": "isinf", "expm1": "expm1", "log1p": "log1p", "log2": "log", "exp2": "exp", "selu": "selu", "atan": "atan",
    "trunc": "floor", "logsigmoid": "log_sigmoid", "softsign": "softsign", "hardshrink": "hardshrink", "celu": "elu",
    "tan": "tan", "acos": "acos", "asin": "asin", "sinh": "sinh", "cosh": "cosh", "isfinite": "isinf", "sgn": "sign",
    "glu_backward": "glu", "frac": "floor", "nan_to_num": "identity", "prelu_kernel": "prelu", "bernoulli": "random",
    "log10": "log", "erfc": "erf", "erfinv": "erfinv", "digamma": "log", "logit": "log", "tril": "tril", "triu": "triu",
}  # fmt: skip
_BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "pow": "pow", "maximum": "max", "minimum": "min",
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
    "logical_and": "and", "logical_or": "or", "logical_xor": "xor", "bitwise_and": "and", "bitwise_or": "or",
    "bitwise_xor": "xor", "__and__": "and", "__or__": "or", "__xor__": "xor", "true_divide": "div",
    "floor_divide": "floordiv",
    "remainder": "mod", "fmod": "mod", "atan2": "atan2", "prelu": "prelu", "__lshift__": "shift", "__rshift__": "shift",
    "bitwise_left_shift": "shift", "bitwise_right_shift": "shift", "multiply": "mul", "divide": "div",
    "subtract": "sub",
    "masked_fill": "where", "xlogy": "mul", "greater": "greater", "less": "less", "not_equal": "not_equal",
}  # fmt: skip


def _unary_rule(fn: str) -> Rule:
    def apply(p: Program, a: Args) -> Value:
        x = p.value(next(iter(a.values())))
        name = "gelu_tanh" if fn == "gelu" and a.get("approximate") == "tanh" else fn
        return p.low.elementwise(name, x, format=p.out_format())

    return apply


def _binary_rule(fn: str) -> Rule:
    def apply(p: Program, a: Args) -> Value:
        keys = list(a)
        x, y = p.value(a[keys[0]]), p.value(a[keys[1]])
        alpha = a.get("alpha", 1)
        if alpha not in (1, None):
            y = p.low.elementwise("mul", y, p.value(alpha), format=y.format)
        name = "floordiv" if fn == "div" and a.get("rounding_mode") in ("floor", "trunc") else fn
        return p.low.elementwise(name, x, y, format=p.out_format())

    return apply


for _name, _fn in _UNARY.items():
    RULES[f"aten.{_name}"] = _unary_rule(_fn)
for _name, _fn in _BINARY.items():
    RULES[f"aten.{_name}"] = _binary_rule(_fn)


@rule("aten.masked_fill")
def _masked_fill(p: Program, a: Args) -> Value:
    return p.low.elementwise(
        "where", p.value(a["mask"]), p.value(a["value"]), p.value(a["self"]), format=p.out_format()
    )


@rule("aten.rsub")
def _rsub(p: Program, a: Args) -> Value:
    return p.low.elementwise("sub", p.value(a["other"]), p.value(a["self"]), format=p.out_format())


@rule("aten.where")
def _where(p: Program, a: Args) -> Value:
    return p.low.elementwise(
        "where", p.value(a["condition"]), p.value(a["self"]), p.value(a["other"]), format=p.out_format()
    )


@rule("aten.clamp", "aten.hardtanh", "aten.clip", "aten.clamp_min", "aten.clamp_max")
def _clamp(p: Program, a: Args) -> Value:
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    if not any(isinstance(v, Value) for v in (low, high)):
        return p.low.clamp(a["self"], low, high)
    tensors = [v for v in (low, high) if isinstance(v, Value)]
    return p.low.elementwise("clamp", a["self"], *tensors, format=p.out_format())


@rule("aten.addcmul", "aten.addcdiv", "aten.lerp")
def _ternary(p: Program, a: Args) -> Value:
    tensors = [v for v in a.values() if isinstance(v, Value)]
    return p.low.elementwise("fma", *tensors, format=p.out_format())


@rule(
    "aten.dropout", "aten.alpha_dropout", "aten.feature_dropout", "aten.contiguous", "aten.clone", "aten.detach",
    "aten.alias",
    "aten.lift_fresh", "aten.lift_fresh_copy", "aten.resolve_conj", "aten.resolve_neg", "aten.conj", "aten.positive",
    "aten.view_as_real_copy", "aten.requires_grad", "aten.set", "aten.native_dropout", "aten.real",
)  # fmt: skip
def _same(p: Program, a: Args) -> Value:
    return p.value(next(iter(a.values())))


@rule("aten.copy")
def _copy(p: Program, a: Args) -> Value:
    return p.low.cast(p.low.expand(p.value(a["src"]), a["self"].shape), a["self"].format)


@rule("aten.to", "aten._to_copy", "aten.type_as", "aten.float", "aten.half", "aten.bool", "aten.int", "aten.long")
def _to(p: Program, a: Args) -> Value:
    return p.low.cast(p.value(next(iter(a.values()))), p.out_format())


@rule(
    "aten._assert_tensor_metadata", "aten._assert_async", "aten.sym_constrain_range_for_size",
    "aten.sym_constrain_range",
    "aten._assert_scalar", "aten.record_stream", "aten.is_nonzero",
)  # fmt: skip
def _nothing(p: Program, a: Args) -> None:
    return None


# ---- rules: constants


@rule(
    "aten.zeros", "aten.ones", "aten.full", "aten.empty", "aten.zeros_like", "aten.ones_like", "aten.full_like",
    "aten.empty_like", "aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty", "aten.eye", "aten.fill",
    "aten.scalar_tensor", "aten.empty_permuted", "aten.zero", "aten.tril_indices", "aten.triu_indices",
    "aten.hann_window", "aten.hamming_window",
)  # fmt: skip
def _fill(p: Program, a: Args) -> Value:
    shape, format = p.out_shape(), p.out_format()
    kind = p.kind(p.node)
    fill = a.get("fill_value", a.get("value", a.get("s", 1 if "ones" in kind else 0)))
    if all(isinstance(s, int) for s in shape) and not isinstance(fill, Value):
        count = product(shape)
        if isinstance(count, int) and 0 < count <= 64 and isinstance(fill, (int, float, bool, Expr)):
            return p.low.constant(array([fill] * count, [int(s) for s in shape if isinstance(s, int)]), format)
    return p.low.emit("fill", [], [shape], [format], fn="constant")[0]


@rule("aten.arange", "aten.linspace", "aten.logspace")
def _arange(p: Program, a: Args) -> Value:
    shape, format = p.out_shape(), p.out_format()
    start, step = a.get("start", 0), a.get("step", 1)
    count = shape[0]
    whole = isinstance(start, int) and isinstance(step, int) and p.kind(p.node) == "aten.arange"
    if isinstance(count, int) and count <= 4096 and whole:
        return p.low.constant(array([start + step * i for i in range(count)]), format, name="arange")
    return p.low.emit("fill", [], [shape], [format], fn="arange")[0]


@rule(
    "aten.rand",
    "aten.randn",
    "aten.randint",
    "aten.rand_like",
    "aten.randn_like",
    "aten.normal_functional",
    "aten.randperm",
)
def _random(p: Program, a: Args) -> Value:
    return p.low.emit("fill", [], [p.out_shape()], [p.out_format()], fn="random")[0]
