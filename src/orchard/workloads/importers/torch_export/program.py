"""Walks an exported program: placeholders, nodes, symbolic sizes."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from orchard.ir import Expr, Size, ceildiv, floordiv, maximum, minimum, product, symbol
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.lowering import Lowering, Value, array, clean_symbol, show
from orchard.workloads.importers.weights import WeightCount

FORMATS = {
    "torch.float64": "f64", "torch.float32": "f32", "torch.float16": "f16", "torch.bfloat16": "bf16",
    "torch.float8_e4m3fn": "f8_e4m3", "torch.float8_e5m2": "f8_e5m2", "torch.int64": "int64", "torch.int32": "int32",
    "torch.int16": "int16", "torch.int8": "int8", "torch.uint8": "uint8", "torch.bool": "bool",
    "torch.complex64": "f64", "torch.uint16": "int16", "torch.uint32": "int32",
}  # fmt: skip

Args = dict[str, Any]
Rule = Callable[["Program", Args], Any]
RULES: dict[str, Rule] = {}
_CONTROL_FLOW = ("cond", "while_loop", "scan", "map_impl", "associative_scan")
LARGE_INDEX = 2**62


R = TypeVar("R", bound=Rule)


def rule(*names: str) -> Callable[[R], R]:
    def register(function: R) -> R:
        for name in names:
            RULES[name] = function
        return function

    return register


def refuse_control_flow(where: str, types: Counter[str]) -> None:
    flow = [t for t in types if t.split(".")[-1] in _CONTROL_FLOW and t.startswith("higher_order")]
    if flow:
        raise ImportError_(
            f"{where}: the program holds data-dependent control flow ({', '.join(sorted(flow))}); its work depends on "
            f"tensor contents, so there is no one graph. Export the branch or loop body by itself"
        )


class Program:
    """One exported program on its way down. `env` maps fx nodes to values, sizes, or tuples of them."""

    def __init__(self, torch: Any, program: Any, low: Lowering, names: Mapping[str, list[Any]]) -> None:
        self.torch = torch
        self.program = program
        self.low = low
        self.names = names
        self.env: dict[Any, Any] = {}
        self.base: dict[Any, Any] = {}  # fx node of a view -> fx node it looks at, for in-place writes
        self.symbols: dict[str, Expr] = {}
        self.node: Any = None
        self.weights = WeightCount()

    # -- walking

    def op_types(self, module: Any) -> Counter[str]:
        types: Counter[str] = Counter()
        skipped = _block_masks(module.graph)
        for node in module.graph.nodes:
            if node.op != "call_function" or node in skipped:
                continue
            kind = self.kind(node)
            if kind in _INLINED:
                sub = node.args[_INLINED[kind]]
                types += self.op_types(getattr(module, sub.target))
            elif (isinstance(node.target, self.torch._ops.OpOverload) and not self.is_size(node)) or kind.startswith(
                "higher_order"
            ):
                types[kind] += 1
        return types

    def kind(self, node: Any) -> str:
        """`aten.add` for aten.add.Tensor and aten.add_.Tensor."""
        target = node.target
        if isinstance(target, self.torch._ops.OpOverload):
            base = f"{target.namespace}.{target._schema.name.split('::')[-1]}"
            return base[:-1] if base.endswith("_") and not base.endswith("__") else base
        if isinstance(target, self.torch._ops.HigherOrderOperator):
            return f"higher_order.{target.name()}"
        return str(getattr(target, "__name__", target))

    def is_size(self, node: Any) -> bool:
        value = node.meta.get("val")
        return isinstance(value, (int, float, bool, self.torch.SymInt, self.torch.SymFloat, self.torch.SymBool))

    def run(self) -> list[Value]:
        self._placeholders()
        outputs = self.walk(self.program.graph_module)
        specs = self.program.graph_signature.output_specs
        return [
            v
            for v, spec in zip(outputs, specs)
            if spec.kind.name in ("USER_OUTPUT", "BUFFER_MUTATION") and isinstance(v, Value)
        ]

    def _placeholders(self) -> None:
        signature = self.program.graph_signature
        specs = {s.arg.name: s for s in signature.input_specs if hasattr(s.arg, "name")}
        state, constants = self.program.state_dict, self.program.constants
        nodes = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        mutated = set(signature.buffers_to_mutate.values()) | set(
            getattr(signature, "user_inputs_to_mutate", {}).values()
        )
        for node in nodes:
            spec = specs.get(node.name)
            if spec is not None and spec.kind.name == "USER_INPUT":
                self._name_symbols(node)
        for node in nodes:
            value = node.meta.get("val")
            if not isinstance(value, self.torch.Tensor):
                self.env[node] = self.size(value) if self.is_size(node) else value
                continue
            spec = specs.get(node.name)
            kind = spec.kind.name if spec is not None else "USER_INPUT"
            shape, format = self.shape(value), self.format(value)
            if kind == "USER_INPUT":
                self.env[node] = self.low.input(node.name, shape, format)
                continue
            target = str(spec.target) if spec is not None else node.name
            if kind == "BUFFER" and target in mutated:
                self.env[node] = self.low.state(target, shape, format)
                continue
            stored = state.get(target, constants.get(target))
            self.env[node] = self._stored(target, shape, format, stored, parameter=kind == "PARAMETER")

    def _stored(self, name: str, shape: Sequence[Size], format: str, stored: Any, *, parameter: bool) -> Value:
        data = None
        if not parameter and stored is not None and not stored.is_meta and 0 < stored.numel() <= 64:
            with contextlib.suppress(Exception):
                data = array(stored.detach().reshape(-1).tolist(), [int(s) for s in shape if isinstance(s, int)])
        value = self.low.weight(name, shape, format, part=None if parameter else "constant", data=data)
        self.weights.add(value, format, parameter=parameter, same_as=id(stored) if stored is not None else None)
        return value

    def _name_symbols(self, node: Any) -> None:
        value = node.meta.get("val")
        if not isinstance(value, self.torch.Tensor):
            return
        wanted = self.names.get(node.name) or self.names.get(node.target) or []
        for axis, size in enumerate(value.shape):
            if isinstance(size, self.torch.SymInt):
                expression = size.node.expr
                raw = str(expression)
                if expression.is_Symbol and raw not in self.symbols:
                    asked = wanted[axis] if axis < len(wanted) and isinstance(wanted[axis], str) else None
                    self.symbols[raw] = symbol(clean_symbol(asked or f"{node.name}_{axis}"))

    def walk(self, module: Any) -> list[Any]:
        outputs: list[Any] = []
        skipped = _block_masks(module.graph)
        for node in module.graph.nodes:
            self.node = node
            if node.op == "placeholder" or node in skipped:
                continue
            if node.op == "get_attr":
                self.env[node] = self._attribute(module, node)
            elif node.op == "output":
                outputs = self._flatten(self.get(node.args[0]))
            elif node.op == "call_function":
                self.env[node] = self._call(module, node)
            else:
                raise ImportError_(f"{self.low.where}: fx node {node.op}, expected an exported program")
        return outputs

    def _attribute(self, module: Any, node: Any) -> Any:
        found = module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        if isinstance(found, self.torch.Tensor):
            return self._stored(str(node.target), self.shape(found), self.format(found), found, parameter=False)
        return found

    def _flatten(self, value: Any) -> list[Any]:
        if isinstance(value, (list, tuple)):
            return [v for item in value for v in self._flatten(item)]
        if isinstance(value, dict):
            return [v for item in value.values() for v in self._flatten(item)]
        return [value]

    def get(self, argument: Any) -> Any:
        if isinstance(argument, self.torch.fx.Node):
            return self.env[argument]
        if isinstance(argument, (list, tuple)):
            return [self.get(a) for a in argument]
        if isinstance(argument, dict):
            return {k: self.get(v) for k, v in argument.items()}
        return argument

    def _call(self, module: Any, node: Any) -> Any:
        kind = self.kind(node)
        if self.is_size(node):
            return self.size(node.meta["val"])
        if kind == "getitem":
            source = self.env[node.args[0]]
            self.base[node] = node.args[0]
            return source[node.args[1]] if isinstance(source, (list, tuple)) else source
        if kind in _INLINED:
            return self._inline(module, node, _INLINED[kind])
        scope = self.scope(node)
        with self.low.within(scope, f"{node.name} ({kind})"):
            arguments = self._bind(node)
            function = RULES.get(kind)
            if function is None:
                if not isinstance(node.target, self.torch._ops.OpOverload):
                    return None
                result: Any = self._assume(kind, arguments)
            else:
                result = function(self, arguments)
        result = self._settle(node, result)
        self._alias(node, result)
        return result

    def _inline(self, module: Any, node: Any, position: int) -> Any:
        sub = getattr(module, node.args[position].target)
        inner = [n for n in sub.graph.nodes if n.op == "placeholder"]
        for placeholder, argument in zip(inner, node.args[position + 1 :]):
            self.env[placeholder] = self.get(argument)
        return self.walk(sub)

    def _bind(self, node: Any) -> Args:
        schema = getattr(node.target, "_schema", None)
        arguments: Args = {}
        for index, declared in enumerate(schema.arguments if schema else []):
            if index < len(node.args):
                arguments[declared.name] = self.get(node.args[index])
            elif declared.name in node.kwargs:
                arguments[declared.name] = self.get(node.kwargs[declared.name])
            else:
                arguments[declared.name] = declared.default_value if declared.has_default_value() else None
        return arguments

    def _assume(self, kind: str, arguments: Args) -> Value:
        tensors = [v for v in self._flatten(list(arguments.values())) if isinstance(v, Value)]
        self.low.warn(f"{kind} is assumed to be elementwise, as asked")
        return self.low.one("elementwise", tensors, self.out_shape(), self.out_format(), fn=kind.split(".")[-1])

    def _settle(self, node: Any, result: Any) -> Any:
        """Take the exporter's symbolic shapes, and check that ours agree."""
        expected = node.meta.get("val")
        if isinstance(result, Value) and isinstance(expected, self.torch.Tensor):
            self._settle_one(result, expected)
        elif isinstance(result, (list, tuple)) and isinstance(expected, (list, tuple)):
            for value, want in zip(result, expected):
                if isinstance(value, Value) and isinstance(want, self.torch.Tensor):
                    self._settle_one(value, want)
        return result

    def _settle_one(self, value: Value, want: Any) -> None:
        shape = self.shape(want)
        if value.shape == shape:
            return
        agree = len(shape) == len(value.shape) and all(
            a == b or isinstance(a, Expr) or isinstance(b, Expr) for a, b in zip(value.shape, shape)
        )
        if not agree:
            raise self.low.fail(f"computed shape {show(value.shape)}, the program says {show(shape)}")
        if value.producer is not None:
            value.shape = shape

    def _alias(self, node: Any, result: Any) -> None:
        """In-place ops: later readers of the target see the result; a write through a view updates what it looks at."""
        schema = getattr(node.target, "_schema", None)
        if schema is None or not node.args or not isinstance(node.args[0], self.torch.fx.Node):
            return
        first = schema.arguments[0].alias_info if schema.arguments else None
        if first is None:
            return
        if not first.is_write:
            self.base[node] = node.args[0]
            return
        target = node.args[0]
        if not isinstance(result, Value):
            return
        self.env[target] = result
        while target in self.base:
            target = self.base[target]
            whole = self.env[target]
            if not isinstance(whole, Value):
                return
            if whole.shape == result.shape:
                self.env[target] = result
            else:
                result = self.low.one("move", [whole, result], whole.shape, whole.format, fn="scatter")
                self.env[target] = result

    def scope(self, node: Any) -> str:
        stack = node.meta.get("nn_module_stack")
        if not stack:
            return ""
        path = str(list(stack.values())[-1][0])
        return "" if path.startswith("_empty_nn") else re.sub(r"@\d+$", "", path).replace(" ", "_")

    # -- sizes

    def shape(self, tensor: Any) -> tuple[Size, ...]:
        return tuple(self.size(s) for s in tensor.shape)

    def format(self, tensor: Any) -> str:
        found = FORMATS.get(str(tensor.dtype))
        if found is None:
            raise ImportError_(f"{self.low.where}: tensors of {tensor.dtype} are not supported")
        return found

    def size(self, value: Any) -> Any:
        if isinstance(value, self.torch.SymInt):
            return self._expression(value.node.expr)
        if isinstance(value, (self.torch.SymFloat, self.torch.SymBool)):
            return value
        return value

    def _expression(self, expression: Any) -> Size:
        if expression.is_Integer:
            return int(expression)
        if expression.is_Symbol:
            raw = str(expression)
            return self.symbols.setdefault(raw, symbol(clean_symbol(raw)))
        arguments = [self._expression(a) for a in expression.args] if not expression.is_Rational else []
        name = type(expression).__name__
        if expression.is_Add:
            total: Size = 0
            for a in arguments:
                total = total + a
            return total
        if expression.is_Mul:
            return self._product(expression)
        if expression.is_Pow or name == "PowByNatural":
            power = expression.args[1]
            if power.is_Integer and power >= 0:
                return product([arguments[0]] * int(power))
        if name in ("FloorDiv", "CleanDiv") and len(arguments) == 2:
            return floordiv(arguments[0], arguments[1])
        if name == "CeilDiv":
            return ceildiv(arguments[0], arguments[1])
        if name in ("Max", "Min"):
            result = arguments[0]
            for a in arguments[1:]:
                result = maximum(result, a) if name == "Max" else minimum(result, a)
            return result
        if name in ("Mod", "PythonMod") and len(arguments) == 2:
            return arguments[0] - floordiv(arguments[0], arguments[1]) * arguments[1]
        if name in ("TruncToInt", "CeilToInt", "FloorToInt", "RoundToInt", "ToFloat", "Identity", "floor", "ceiling"):
            inner = expression.args[0]
            return self._expression(inner)
        if name in ("IntTrueDiv", "FloatTrueDiv"):
            return floordiv(arguments[0], arguments[1])
        if expression.is_number:
            return int(expression)
        if str(expression) not in self.symbols:
            raw = f"u_{len(self.symbols)}"
            self.low.warn(f"size {expression} is kept as the free symbol {raw}")
            self.symbols[str(expression)] = symbol(raw)
        return self.symbols[str(expression)]

    def _product(self, expression: Any) -> Size:
        denominator = 1
        result: Size = 1
        for factor in expression.args:
            if factor.is_Rational and not factor.is_Integer:
                denominator *= int(factor.q)
                result = result * int(factor.p)
            elif factor.is_number and not factor.is_Integer:
                inverse = 1 / factor
                denominator *= round(float(inverse))
            else:
                result = result * self._expression(factor)
        return floordiv(result, denominator) if denominator != 1 else result

    def out_shape(self, index: int | None = None) -> tuple[Size, ...]:
        value = self.node.meta["val"]
        return self.shape(value if index is None else value[index])

    def out_format(self, index: int | None = None) -> str:
        value = self.node.meta["val"]
        return self.format(value if index is None else value[index])

    def value(self, item: Any) -> Value:
        """A tensor operand; a Python number becomes a constant."""
        if isinstance(item, Value):
            return item
        if isinstance(item, bool):
            return self.low.constant(item, "bool")
        if isinstance(item, (float, self.torch.SymFloat)):
            return self.low.constant(float(item) if isinstance(item, float) else 1.5, "f32")
        if isinstance(item, (int, Expr)):
            return self.low.constant(item, "int64")
        raise self.low.fail(f"operand {item!r}, expected a tensor or number")


def _block_masks(graph: Any) -> set[Any]:
    """Nodes that only build the block mask of a flex_attention: its kernel reads which blocks to skip, not a tensor."""
    flex = [n for n in graph.nodes if str(n.target) == "flex_attention" or str(n.target).endswith(".flex_attention")]
    built = {a for n in flex for a in n.all_input_nodes if a not in n.args[:3]}
    for node in reversed(graph.nodes):
        if node in built:
            built.update(node.all_input_nodes)
    for node in reversed(graph.nodes):
        inputs = node.all_input_nodes
        if node.op == "call_function" and not node.users and inputs and built.issuperset(inputs):
            built.add(node)  # an assertion about the mask
        elif node not in built:
            built.difference_update(node.args[:3] if node in flex else node.all_input_nodes)
    return built


_INLINED = {"higher_order.wrap_with_set_grad_enabled": 1, "higher_order.wrap_with_autocast": 4}
