"""ML program rules: elementwise ops, shapes, constants."""

from __future__ import annotations

from orchard.workloads.importers.coreml.program import RULES, Op, Program, Rule, rule
from orchard.workloads.importers.coreml.schema import CASTS
from orchard.workloads.importers.lowering import Value, array

# ---- elementwise

_UNARY = {
    "abs": "abs", "acos": "acos", "asin": "asin", "atan": "atan", "atanh": "atan", "ceil": "ceil", "cos": "cos",
    "cosh": "cosh", "erf": "erf", "exp": "exp", "exp2": "exp", "floor": "floor", "log": "log", "logical_not": "not",
    "round": "round", "rsqrt": "rsqrt", "inverse": "reciprocal", "sigmoid": "sigmoid", "sign": "sign", "silu": "silu",
    "sin": "sin", "sinh": "sinh", "sqrt": "sqrt", "square": "square", "tan": "tan", "tanh": "tanh", "relu": "relu",
    "relu6": "relu6", "softplus": "softplus", "softsign": "softsign", "leaky_relu": "leaky_relu", "elu": "elu",
    "sigmoid_hard": "hardsigmoid", "scaled_tanh": "tanh", "threshold": "clamp",
    "linear_activation": "scale", "clamped_relu": "clamp", "prelu": "prelu", "softplus_parametric": "softplus",
}  # fmt: skip
_BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "real_div": "div", "floor_div": "floordiv", "pow": "pow", "mod": "mod",
    "maximum": "max", "minimum": "min", "equal": "equal", "not_equal": "not_equal", "less": "less",
    "less_equal": "less_equal", "greater": "greater", "greater_equal": "greater_equal", "logical_and": "and",
    "logical_or": "or", "logical_xor": "xor",
}  # fmt: skip


def _unary_rule(fn: str) -> Rule:
    return lambda c, op: c.low.elementwise(fn, op["x"])


def _binary_rule(fn: str) -> Rule:
    return lambda c, op: c.low.elementwise(fn, op["x"], op["y"])


for _name, _fn in _UNARY.items():
    RULES[_name] = _unary_rule(_fn)
for _name, _fn in _BINARY.items():
    RULES[_name] = _binary_rule(_fn)


@rule("gelu")
def _gelu(c: Program, op: Op) -> Value:
    fn = "gelu_tanh" if op.text("mode") == "TANH_APPROXIMATION" else "gelu"
    return c.low.elementwise("quick_gelu" if op.text("mode") == "SIGMOID_APPROXIMATION" else fn, op["x"])


@rule("thresholded_relu")
def _thresholded_relu(c: Program, op: Op) -> Value:
    """x where x >= alpha, else 0; coremltools writes a hard swish with it."""
    return c.low.elementwise("relu", op["x"], threshold=op.real("alpha", 1.0))


@rule("clip")
def _clip(c: Program, op: Op) -> Value:
    high = op.real("beta", float("inf"))
    return c.low.clamp(op["x"], op.real("alpha", float("-inf")), None if high > 1e30 else high)


@rule("select")
def _select(c: Program, op: Op) -> Value:
    return c.low.elementwise("where", op["cond"], op["a"], op["b"])


@rule("cast")
def _cast(c: Program, op: Op) -> Value:
    return c.low.cast(op["x"], CASTS.get(op.text("dtype"), "f32"))


@rule("identity")
def _identity(c: Program, op: Op) -> Value:
    return op["x"]


@rule("quantize", "dequantize")
def _quantize(c: Program, op: Op) -> Value:
    x = op["input"]
    format = c.type_of(op.outputs[0].type, "y")[1]
    return c.low.one("elementwise", [x], x.shape, format, fn=op.type)


# ---- shapes and constants


@rule("shape")
def _shape(c: Program, op: Op) -> Value:
    return c.low.constant(array(list(op["x"].shape)), "int32")


@rule("fill", "fill_like", "random_normal", "random_uniform", "random_bernoulli", "random_categorical")
def _fill(c: Program, op: Op) -> Value:
    shape = c.declared(op)
    if shape is None:
        sizes = op.literal("shape")
        shape = tuple(sizes) if sizes is not None else c.need_shape(op, "the shape")
    fn = "random" if op.type.startswith("random") else "constant"
    return c.low.emit("fill", [], [shape], [c.type_of(op.outputs[0].type, "fill")[1]], fn=fn)[0]


@rule("range_1d")
def _range(c: Program, op: Op) -> Value:
    bounds = [op.literal(n) for n in ("start", "end", "step")]
    if all(b is not None for b in bounds):
        start, end, step = (b[0] for b in bounds if b is not None)
        if all(isinstance(v, (int, float)) for v in (start, end, step)) and step:
            count = max(int(-(-(end - start) // step)), 0)
            if count <= 4096:
                return c.low.constant(array([start + step * i for i in range(count)]), "int32")
        length = end - start
        return c.low.emit("fill", [], [[length]], ["int32"], fn="arange")[0]
    return c.low.emit("fill", [], [c.need_shape(op, "the range")], ["int32"], fn="arange")[0]
