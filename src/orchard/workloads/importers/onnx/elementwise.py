"""ONNX rules: elementwise ops."""

from __future__ import annotations

from orchard.workloads.importers.lowering import Value, is_float
from orchard.workloads.importers.onnx.reader import RULES, Op, Reader, Rule, rule
from orchard.workloads.importers.onnx.schema import FORMATS

# ---- elementwise

UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Neg": "neg",
    "Abs": "abs", "Erf": "erf", "Sin": "sin", "Cos": "cos", "Reciprocal": "reciprocal", "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round", "Sign": "sign", "Not": "not", "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid",
    "Mish": "mish",
    "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu", "Softplus": "softplus", "IsNaN": "isnan", "IsInf": "isinf",
    "QuickGelu": "quick_gelu", "FastGelu": "gelu_tanh", "Softsign": "softsign", "Celu": "elu",
    "ThresholdedRelu": "relu",
    "Tan": "tan", "Atan": "atan", "Acos": "acos", "Asin": "asin", "Sinh": "sinh", "Cosh": "cosh", "Swish": "silu",
    "Asinh": "asin", "Acosh": "acos", "Atanh": "atan", "BitwiseNot": "not", "Shrink": "hardshrink", "Rsqrt": "rsqrt",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Mod": "mod", "And": "and", "Or": "or",
    "Xor": "xor",
    "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "PRelu": "prelu", "BitwiseAnd": "and", "BitwiseOr": "or", "BitShift": "shift", "BitwiseXor": "xor",
}  # fmt: skip


def _unary_rule(fn: str) -> Rule:
    def apply(c: Reader, op: Op) -> Value:
        y = c.low.elementwise(fn, op[0])
        return c.low.elementwise("gelu_tanh", c.low.elementwise("add", op[0], op[1])) if op.get(1) is not None else y

    return apply


def _binary_rule(fn: str) -> Rule:
    def apply(c: Reader, op: Op) -> Value:
        if fn == "div" and op[0].data is not None and not is_float(op[0].format):
            return c.low.elementwise("floordiv", op[0], op[1], format=op[0].format)
        if op.domain == "com.microsoft" or fn in ("pow", "shift"):
            return c.low.elementwise(fn, op[0], op[1], format=op[0].format)
        return c.low.elementwise(fn, op[0], op[1])

    return apply


for _name, _fn in UNARY.items():
    RULES[_name] = _unary_rule(_fn)
for _name, _fn in _BINARY.items():
    RULES[_name] = _binary_rule(_fn)


@rule("Gelu", "BiasGelu")
def _gelu(c: Reader, op: Op) -> Value:
    x = c.low.elementwise("add", op[0], op[1]) if op.type == "BiasGelu" else op[0]
    return c.low.elementwise("gelu_tanh" if op.text("approximate") == "tanh" else "gelu", x)


@rule("Max", "Min", "Sum", "Mean")
def _variadic(c: Reader, op: Op) -> Value:
    fn = {"Max": "max", "Min": "min"}.get(op.type, "add")
    result = op[0]
    for value in op.given()[1:]:
        result = c.low.elementwise(fn, result, value)
    return result


@rule("Clip")
def _clip(c: Reader, op: Op) -> Value:
    bounds: list[float | None] = []
    for index, name in ((1, "min"), (2, "max")):
        value = op.get(index)
        if value is not None:
            bounds.append(value.scalar)
        else:
            bounds.append(op.real(name) if name in op.attributes else None)
    low, high = bounds
    return c.low.clamp(op[0], low, None if high is not None and high > 1e30 else high)


@rule("Where")
def _where(c: Reader, op: Op) -> Value:
    return c.low.elementwise("where", op[0], op[1], op[2])


@rule("Cast", "CastLike")
def _cast(c: Reader, op: Op) -> Value:
    format = op[1].format if op.type == "CastLike" else FORMATS.get(op.number("to"), "f32")
    return c.low.cast(op[0], format)


@rule("Identity", "Dropout", "StopGradient", "OptionalGetElement")
def _identity(c: Reader, op: Op) -> list[Value]:
    mask = [c.low.one("elementwise", [op[0]], op[0].shape, "bool", fn="dropout")] if len(op.outputs) > 1 else []
    return [op[0], *mask]


@rule("CumSum", "CumProd")
def _cumulative(c: Reader, op: Op) -> Value:
    return c.low.one("reduce", [op[0]], op[0].shape, fn="cumsum")
