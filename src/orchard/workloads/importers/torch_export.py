"""PyTorch: a live module (weights may be on the meta device), an ExportedProgram, or a `.pt2` file.

The exported graph is read as it is, without `run_decompositions`: linear, convolution, attention and norms stay
whole, and a
32-layer model takes seconds instead of a minute. Shapes come from the export's own fake tensors, so symbolic sizes are
exact. Mixture-of-experts blocks of transformers are exported as one op (see `_experts_op`), because their grouped
kernels
have no meta implementation and their batched fallback would gather expert weights per token.

A `.pt2` is a zip archive whose program is JSON; `torch.export.load` reads tensors and constants through
`torch.load(weights_only=True)`, which refuses arbitrary pickles. A `.pt`/`.pth` file is a pickle that runs code when it
is loaded, so it is refused.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from orchard.ir import Attribute, Expr, Size, ceildiv, floordiv, maximum, minimum, product, symbol
from orchard.workloads.importers.canonical import finish
from orchard.workloads.importers.common import (
    Imported,
    Lowering,
    Value,
    array,
    clean_symbol,
    is_float,
    show,
)
from orchard.workloads.importers.errors import ImportError_, need
from orchard.workloads.importers.weights import WeightCount

_FORMATS = {
    "torch.float64": "f64", "torch.float32": "f32", "torch.float16": "f16", "torch.bfloat16": "bf16",
    "torch.float8_e4m3fn": "f8_e4m3", "torch.float8_e5m2": "f8_e5m2", "torch.int64": "int64", "torch.int32": "int32",
    "torch.int16": "int16", "torch.int8": "int8", "torch.uint8": "uint8", "torch.bool": "bool",
    "torch.complex64": "f64", "torch.uint16": "int16", "torch.uint32": "int32",
}  # fmt: skip

Args = dict[str, Any]
Rule = Callable[["_Program", Args], Any]
_RULES: dict[str, Rule] = {}
_CONTROL_FLOW = ("cond", "while_loop", "scan", "map_impl", "associative_scan")
_LARGE_INDEX = 2**62


R = TypeVar("R", bound=Rule)


def rule(*names: str) -> Callable[[R], R]:
    def register(function: R) -> R:
        for name in names:
            _RULES[name] = function
        return function

    return register


def import_torch(
    source: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    assume_elementwise: Collection[str] = (),
    name: str | None = None,
) -> Imported:
    """A module, ExportedProgram or path of a `.pt2`.

    For a module, `inputs` maps forward's argument names to shapes (ints, or names of symbolic sizes such as "seq") or
    to
    example tensors.
    """
    torch = need("torch", "torch", "a PyTorch model")
    if isinstance(source, (str, Path)):
        program = _load_pt2(torch, Path(source))
        return _lower(torch, program, name or Path(source).stem, str(source), assume_elementwise, {}, "pt2", inputs)
    if isinstance(source, torch.nn.Module):
        label = name or type(source).__name__
        program, names = export_module(torch, source, dict(inputs or {}), label)
        return _lower(torch, program, label, label, assume_elementwise, names, "torch", None)
    return _lower(torch, source, name or "program", name or "exported program", assume_elementwise, {}, "torch", inputs)


def _load_pt2(torch: Any, path: Path) -> Any:
    import zipfile

    if not zipfile.is_zipfile(path):
        raise ImportError_(f"{path}: not a .pt2 archive (no zip file), expected what torch.export.save writes")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(m.file_size for m in members) > 64 * path.stat().st_size + (1 << 30):
                raise ImportError_(f"{path}: unpacks to more than 64 times its size, refused")
            _require_graph(path, [m.filename for m in members])
        return torch.export.load(str(path))
    except ImportError_:
        raise
    except Exception as error:
        raise ImportError_(f"{path}: not a readable exported program ({_first_line(error)})") from None


def _require_graph(path: Path, names: Sequence[str]) -> None:
    if not any(n.endswith((".json", "serialized_exported_program.json")) for n in names):
        raise ImportError_(f"{path}: holds no exported program; save one with torch.export.save(program, path)")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


# ---- exporting a live module


def export_module(torch: Any, module: Any, inputs: dict[str, Any], label: str) -> tuple[Any, dict[str, list[Any]]]:
    """torch.export of `module`, and the symbol names asked for per input."""
    if not inputs:
        inputs = dict(_default_inputs(module))
    if not inputs:
        raise ImportError_(f"{label}: give the shape of each input, for example inputs={{'x': (1, 3, 224, 224)}}")
    parameters = list(module.parameters()) or list(module.buffers())
    device = parameters[0].device if parameters else torch.device("cpu")
    floats = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
    accepted = inspect.signature(module.forward).parameters
    kwargs, dynamic, names = _example_inputs(torch, inputs, device, floats, label, accepted)
    fixed = {"use_cache": False, "return_dict": True} if hasattr(module, "config") else {}
    for key, value in fixed.items():
        if key in accepted and key not in kwargs and key != "return_dict":
            kwargs[key] = value
            dynamic[key] = None
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), _experts_op(torch, module):
            program = torch.export.export(
                module, (), kwargs, dynamic_shapes=dynamic if any(dynamic.values()) else None, strict=False
            )
    except ImportError_:
        raise
    except Exception as error:
        raise _export_error(label, error) from None
    finally:
        module.train(was_training)
    return program, names


def _export_error(label: str, error: Exception) -> ImportError_:
    text = str(error)
    if "torchvision::" in text:
        return ImportError_(
            f"{label}: a CUDA build of torchvision sits beside the CPU build of torch (operator torchvision::nms "
            f"does not "
            f"exist); uninstall torchvision or install the build that matches torch"
        )
    if "Could not guard on data-dependent" in text or "data-dependent" in text.lower():
        return ImportError_(
            f"{label}: forward decides by tensor contents ({_first_line(error)}); torch.export cannot follow such "
            f"control flow. Export a version without it, or import the ONNX or Core ML file"
        )
    if "Constraints violated" in text or "specialized" in text:
        return ImportError_(
            f"{label}: a size that should be symbolic is fixed by the model ({_first_line(error)}); "
            f"give that size as a number"
        )
    if "missing a required argument" in text or ("missing" in text and "argument" in text):
        return ImportError_(f"{label}: {_first_line(error)}; give its shape in inputs")
    return ImportError_(f"{label}: torch.export fails ({_first_line(error)})")


def _default_inputs(module: Any) -> Iterator[tuple[str, Any]]:
    """What a transformers model documents as dummy inputs: ids, pixels or audio features, by its config."""
    config = getattr(module, "config", None)
    main = getattr(module, "main_input_name", None)
    if config is None or main is None:
        return
    if main == "input_ids":
        yield "input_ids", (1, 128)
    elif main == "pixel_values":
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", 224)
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        yield "pixel_values", (1, getattr(vision, "num_channels", 3), height, width)


def _example_inputs(
    torch: Any, inputs: Mapping[str, Any], device: Any, floats: Any, label: str, accepted: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[Any]]]:
    kwargs: dict[str, Any] = {}
    dynamic: dict[str, Any] = {}
    names: dict[str, list[Any]] = {}
    dims: dict[str, tuple[Any, int]] = {}
    variadic = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    for key, given in inputs.items():
        if key not in accepted and not variadic:
            raise ImportError_(f"{label}: forward has no argument {key!r}; it takes {', '.join(accepted)}")
        if isinstance(given, torch.Tensor) or given is None or isinstance(given, (bool, float, int)):
            kwargs[key], dynamic[key] = given, None
            continue
        if not isinstance(given, Sequence) or isinstance(given, str):
            kwargs[key], dynamic[key] = given, None
            continue
        shape: list[int] = []
        axes: dict[int, Any] = {}
        names[key] = list(given)
        for axis, size in enumerate(given):
            if isinstance(size, str) and not size.isdecimal():
                if size not in dims:
                    dims[size] = (torch.export.Dim.AUTO, 24 + 8 * len(dims) if axis else 2 + len(dims))
                axes[axis] = dims[size][0]
                shape.append(dims[size][1])
            else:
                shape.append(int(size))
        kwargs[key] = _example(torch, key, shape, device, floats)
        dynamic[key] = axes or None
    return kwargs, dynamic, names


def _example(torch: Any, key: str, shape: list[int], device: Any, floats: Any) -> Any:
    if re.search(r"ids$|tokens?$|index|indices|labels|positions?$|input_pos", key) and "inputs_embeds" not in key:
        return torch.zeros(shape, dtype=torch.long, device=device)
    if key.endswith("mask"):
        return torch.ones(shape, dtype=torch.long if len(shape) == 2 else torch.bool, device=device)
    return torch.zeros(shape, dtype=floats, device=device)


_experts_library: list[Any] = []


@contextlib.contextmanager
def _experts_op(torch: Any, module: Any) -> Iterator[None]:
    """While exporting, each experts module (stacked `gate_up_proj`/`down_proj` of rank 3) is one custom op."""
    found = [m for m in module.modules() if _is_experts(m)]
    if not found:
        yield
        return
    if not _experts_library:
        library = torch.library.Library("orchard", "DEF")
        library.define(
            "experts(Tensor x, Tensor index, Tensor weights, Tensor[] parameters, bool transposed) -> Tensor"
        )
        library.impl(
            "experts", lambda x, index, weights, parameters, transposed: x.clone(), "CompositeExplicitAutograd"
        )
        library.impl("experts", lambda x, index, weights, parameters, transposed: torch.empty_like(x), "Meta")
        _experts_library.append(library)
    saved = [(m, m.__dict__.get("forward")) for m in found]

    def patched(owner: Any) -> Callable[..., Any]:
        keys = ("gate_up_proj", "up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")
        parameters = [getattr(owner, k) for k in keys if getattr(owner, k, None) is not None]
        transposed = bool(getattr(owner, "is_transposed", False))

        def forward(hidden_states: Any, top_k_index: Any, top_k_weights: Any, *_: Any, **__: Any) -> Any:
            return torch.ops.orchard.experts(hidden_states, top_k_index, top_k_weights, parameters, transposed)

        return forward

    try:
        for owner in found:
            owner.forward = patched(owner)
        yield
    finally:
        for owner, before in saved:
            if before is None:
                del owner.__dict__["forward"]
            else:
                owner.forward = before


def _is_experts(module: Any) -> bool:
    down = getattr(module, "down_proj", None)
    up = getattr(module, "gate_up_proj", getattr(module, "up_proj", None))
    return getattr(down, "ndim", 0) == 3 and getattr(up, "ndim", 0) == 3


# ---- lowering


def _lower(
    torch: Any, program: Any, name: str, where: str, assumed: Collection[str], names: Mapping[str, list[Any]],
    source_format: str, inputs: Mapping[str, Any] | None,
) -> Imported:  # fmt: skip
    if not hasattr(program, "graph_signature"):
        raise ImportError_(f"{where}: {type(program).__name__} is no torch module or exported program")
    low = Lowering(name, where, assume_elementwise=assumed)
    builder = _Program(torch, program, low, names)
    types = builder.op_types(program.graph_module)
    _refuse_control_flow(where, types)
    low.check_known(types, _RULES)
    outputs = builder.run()
    graph = finish(low, outputs)
    if inputs:
        graph = _bind(graph, inputs)
    return Imported(
        graph=graph,
        name=name,
        source_format=source_format,
        weights=builder.weights.info(),
        warnings=tuple(low.warnings),
    )


def _bind(graph: Any, inputs: Mapping[str, Any]) -> Any:
    from orchard.workloads.importers.inputs import bind_inputs

    return bind_inputs(graph, inputs)


def _refuse_control_flow(where: str, types: Counter[str]) -> None:
    flow = [t for t in types if t.split(".")[-1] in _CONTROL_FLOW and t.startswith("higher_order")]
    if flow:
        raise ImportError_(
            f"{where}: the program holds data-dependent control flow ({', '.join(sorted(flow))}); its work depends on "
            f"tensor contents, so there is no one graph. Export the branch or loop body by itself"
        )


class _Program:
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
        for node in module.graph.nodes:
            if node.op != "call_function":
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
        for node in module.graph.nodes:
            self.node = node
            if node.op == "placeholder":
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
            function = _RULES.get(kind)
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
        found = _FORMATS.get(str(tensor.dtype))
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
        raw = f"u_{abs(hash(str(expression))) % 10**6}"
        self.low.warn(f"size {expression} is kept as the free symbol {raw}")
        return self.symbols.setdefault(str(expression), symbol(raw))

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


_INLINED = {"higher_order.wrap_with_set_grad_enabled": 1, "higher_order.wrap_with_autocast": 4}


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
    def apply(p: _Program, a: Args) -> Value:
        x = p.value(next(iter(a.values())))
        name = "gelu_tanh" if fn == "gelu" and a.get("approximate") == "tanh" else fn
        return p.low.elementwise(name, x, format=p.out_format())

    return apply


def _binary_rule(fn: str) -> Rule:
    def apply(p: _Program, a: Args) -> Value:
        keys = list(a)
        x, y = p.value(a[keys[0]]), p.value(a[keys[1]])
        alpha = a.get("alpha", 1)
        if alpha not in (1, None):
            y = p.low.elementwise("mul", y, p.value(alpha), format=y.format)
        name = "floordiv" if fn == "div" and a.get("rounding_mode") in ("floor", "trunc") else fn
        return p.low.elementwise(name, x, y, format=p.out_format())

    return apply


for _name, _fn in _UNARY.items():
    _RULES[f"aten.{_name}"] = _unary_rule(_fn)
for _name, _fn in _BINARY.items():
    _RULES[f"aten.{_name}"] = _binary_rule(_fn)


@rule("aten.masked_fill")
def _masked_fill(p: _Program, a: Args) -> Value:
    return p.low.elementwise(
        "where", p.value(a["mask"]), p.value(a["value"]), p.value(a["self"]), format=p.out_format()
    )


@rule("aten.rsub")
def _rsub(p: _Program, a: Args) -> Value:
    return p.low.elementwise("sub", p.value(a["other"]), p.value(a["self"]), format=p.out_format())


@rule("aten.where")
def _where(p: _Program, a: Args) -> Value:
    return p.low.elementwise(
        "where", p.value(a["condition"]), p.value(a["self"]), p.value(a["other"]), format=p.out_format()
    )


@rule("aten.clamp", "aten.hardtanh", "aten.clip", "aten.clamp_min", "aten.clamp_max")
def _clamp(p: _Program, a: Args) -> Value:
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    if not any(isinstance(v, Value) for v in (low, high)):
        return p.low.clamp(a["self"], low, high)
    tensors = [v for v in (low, high) if isinstance(v, Value)]
    return p.low.elementwise("clamp", a["self"], *tensors, format=p.out_format())


@rule("aten.addcmul", "aten.addcdiv", "aten.lerp")
def _ternary(p: _Program, a: Args) -> Value:
    tensors = [v for v in a.values() if isinstance(v, Value)]
    return p.low.elementwise("fma", *tensors, format=p.out_format())


@rule(
    "aten.dropout", "aten.alpha_dropout", "aten.feature_dropout", "aten.contiguous", "aten.clone", "aten.detach",
    "aten.alias",
    "aten.lift_fresh", "aten.lift_fresh_copy", "aten.resolve_conj", "aten.resolve_neg", "aten.conj", "aten.positive",
    "aten.view_as_real_copy", "aten.requires_grad", "aten.set", "aten.native_dropout", "aten.real",
)  # fmt: skip
def _same(p: _Program, a: Args) -> Value:
    return p.value(next(iter(a.values())))


@rule("aten.copy")
def _copy(p: _Program, a: Args) -> Value:
    return p.low.cast(p.low.expand(p.value(a["src"]), a["self"].shape), a["self"].format)


@rule("aten.to", "aten._to_copy", "aten.type_as", "aten.float", "aten.half", "aten.bool", "aten.int", "aten.long")
def _to(p: _Program, a: Args) -> Value:
    return p.low.cast(p.value(next(iter(a.values()))), p.out_format())


@rule(
    "aten._assert_tensor_metadata", "aten._assert_async", "aten.sym_constrain_range_for_size",
    "aten.sym_constrain_range",
    "aten._assert_scalar", "aten.record_stream", "aten.is_nonzero",
)  # fmt: skip
def _nothing(p: _Program, a: Args) -> None:
    return None


# ---- rules: constants


@rule(
    "aten.zeros", "aten.ones", "aten.full", "aten.empty", "aten.zeros_like", "aten.ones_like", "aten.full_like",
    "aten.empty_like", "aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty", "aten.eye", "aten.fill",
    "aten.scalar_tensor", "aten.empty_permuted", "aten.zero", "aten.tril_indices", "aten.triu_indices",
    "aten.hann_window", "aten.hamming_window",
)  # fmt: skip
def _fill(p: _Program, a: Args) -> Value:
    shape, format = p.out_shape(), p.out_format()
    kind = p.kind(p.node)
    fill = a.get("fill_value", a.get("value", a.get("s", 1 if "ones" in kind else 0)))
    if all(isinstance(s, int) for s in shape) and not isinstance(fill, Value):
        count = product(shape)
        if isinstance(count, int) and 0 < count <= 64 and isinstance(fill, (int, float, bool, Expr)):
            return p.low.constant(array([fill] * count, [int(s) for s in shape if isinstance(s, int)]), format)
    return p.low.emit("fill", [], [shape], [format], fn="constant")[0]


@rule("aten.arange", "aten.linspace", "aten.logspace")
def _arange(p: _Program, a: Args) -> Value:
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
def _random(p: _Program, a: Args) -> Value:
    return p.low.emit("fill", [], [p.out_shape()], [p.out_format()], fn="random")[0]


# ---- rules: layout


@rule(
    "aten.view", "aten.reshape", "aten._unsafe_view", "aten.unsqueeze", "aten.squeeze", "aten.flatten",
    "aten.unflatten",
    "aten._reshape_alias", "aten._reshape_copy", "aten.view_as", "aten.reshape_as", "aten.ravel", "aten.view_copy",
    "aten.atleast_1d", "aten.atleast_2d",
)  # fmt: skip
def _reshape(p: _Program, a: Args) -> Value:
    x = p.value(next(iter(a.values())))
    if x.format != p.out_format():
        return (
            p.low.one("view", [x], p.out_shape(), p.out_format())
            if _bits(x) == _bits_of(p)
            else p.low.cast(x, p.out_format())
        )
    return p.low.reshape(x, p.out_shape())


def _bits(x: Value) -> int:
    from orchard.units import number_format

    return int(number_format(x.format).bits)


def _bits_of(p: _Program) -> int:
    from orchard.units import number_format

    return int(number_format(p.out_format()).bits)


@rule(
    "aten.permute",
    "aten.transpose",
    "aten.t",
    "aten.movedim",
    "aten.numpy_T",
    "aten.swapaxes",
    "aten.swapdims",
    "aten.mT",
    "aten.moveaxis",
)
def _permute(p: _Program, a: Args) -> Value:
    x = a["self"]
    if "dims" in a and a["dims"] is not None:
        return p.low.transpose(x, a["dims"])
    if "source" in a:
        source, destination = (_ints(a[k]) for k in ("source", "destination"))
        order = [i for i in range(x.ndim) if i not in {s % x.ndim for s in source}]
        for to, what in sorted(zip((d % x.ndim for d in destination), (s % x.ndim for s in source))):
            order.insert(to, what)
        return p.low.transpose(x, order)
    if "dim0" in a or "axis0" in a:
        first, second = (a[f"dim{i}"] if f"dim{i}" in a else a[f"axis{i}"] for i in (0, 1))
        return p.low.swap(x, first, second)
    if x.ndim < 2:
        return x  # type: ignore[no-any-return]
    return p.low.transpose(x, list(range(x.ndim))[::-1]) if p.kind(p.node) != "aten.mT" else p.low.swap(x, -1, -2)


def _ints(value: Any) -> list[int]:
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]


@rule("aten.expand", "aten.broadcast_to", "aten.expand_as", "aten.expand_copy")
def _expand(p: _Program, a: Args) -> Value:
    return p.low.expand(a["self"], p.out_shape())


@rule("aten.repeat", "aten.tile")
def _repeat(p: _Program, a: Args) -> Value:
    return _move(p, "tile", a["self"])


@rule("aten.repeat_interleave")
def _repeat_interleave(p: _Program, a: Args) -> Value:
    """Heads repeated along an axis: expand on a new axis behind it, then merge; the same form repeat_kv has."""
    x, repeats, axis = a.get("self"), a.get("repeats"), a.get("dim")
    if not isinstance(repeats, int) or axis is None or not isinstance(x, Value):
        return _move(p, "tile", *[v for v in (x, repeats) if isinstance(v, Value)])
    at = p.low.axis(x, axis)
    wide = p.low.expand(p.low.unsqueeze(x, [at + 1]), [*x.shape[: at + 1], repeats, *x.shape[at + 1 :]])
    return p.low.reshape(wide, p.out_shape())


def _move(p: _Program, fn: str, *inputs: Value, **attrs: Attribute) -> Value:
    return p.low.one("move", list(inputs), p.out_shape(), p.out_format(), fn=fn, **attrs)


@rule("aten.cat", "aten.concat", "aten.concatenate")
def _cat(p: _Program, a: Args) -> Value:
    return p.low.concat([p.low.cast(v, p.out_format()) for v in a["tensors"]], a.get("dim") or 0)


@rule("aten.stack")
def _stack(p: _Program, a: Args) -> Value:
    axis = a["dim"] % (a["tensors"][0].ndim + 1)
    return p.low.concat([p.low.unsqueeze(v, [axis]) for v in a["tensors"]], axis)


@rule("aten.hstack", "aten.vstack", "aten.block_diag", "aten.cartesian_prod", "aten.meshgrid_stack")
def _stack_any(p: _Program, a: Args) -> Value:
    return _move(p, "concat", *a["tensors"])


@rule("aten.slice", "aten.narrow", "aten.slice_copy")
def _slice(p: _Program, a: Args) -> Value:
    x, axis = a["self"], a.get("dim", 0)
    size = x.shape[p.low.axis(x, axis)]
    start = a.get("start") or 0
    if a.get("length") is not None:
        return p.low.slice(x, axis, start, start + a["length"])
    end = a.get("end")
    stop = size if end is None or (isinstance(end, int) and end >= _LARGE_INDEX) else end
    return p.low.slice(x, axis, start, stop, a.get("step") or 1)


@rule("aten.select")
def _select(p: _Program, a: Args) -> Value:
    x, axis, index = a["self"], a["dim"], a["index"]
    stop = x.shape[p.low.axis(x, axis)] if index == -1 else index + 1
    return p.low.reshape(p.low.slice(x, axis, index, stop), p.out_shape())


@rule(
    "aten.split",
    "aten.split_with_sizes",
    "aten.chunk",
    "aten.tensor_split",
    "aten.split_copy",
    "aten.split_with_sizes_copy",
    "aten.unsafe_split",
    "aten.unsafe_chunk",
)
def _split(p: _Program, a: Args) -> tuple[Value, ...]:
    axis = p.low.axis(a["self"], a.get("dim") or 0)
    return p.low.split(a["self"], axis, [p.out_shape(i)[axis] for i in range(len(p.node.meta["val"]))])


@rule("aten.unbind")
def _unbind(p: _Program, a: Args) -> tuple[Value, ...]:
    axis = p.low.axis(a["self"], a.get("dim") or 0)
    parts = p.low.split(a["self"], axis, [1] * len(p.node.meta["val"]))
    return tuple(p.low.squeeze(v, [axis]) for v in parts)


@rule("aten.meshgrid")
def _meshgrid(p: _Program, a: Args) -> tuple[Value, ...]:
    outs = []
    for i, tensor in enumerate(a["tensors"]):
        shape: list[Size] = [1] * len(a["tensors"])
        position = {0: 1, 1: 0}.get(i, i) if a.get("indexing") == "xy" else i
        shape[position] = tensor.elements
        outs.append(p.low.expand(p.low.reshape(tensor, shape), p.out_shape(i)))
    return tuple(outs)


@rule("aten.pad", "aten.constant_pad_nd", "aten.reflection_pad1d", "aten.reflection_pad2d", "aten.replication_pad1d",
      "aten.replication_pad2d", "aten.replication_pad3d", "aten.reflection_pad3d", "aten.zero_pad2d")  # fmt: skip
def _pad(p: _Program, a: Args) -> Value:
    x = a["self"]
    if tuple(p.out_shape()) == x.shape:
        return x  # type: ignore[no-any-return]
    amounts = a.get("pad") or a.get("padding")
    if isinstance(amounts, list) and all(isinstance(v, int) for v in amounts):
        before, after = [0] * x.ndim, [0] * x.ndim
        for i in range(len(amounts) // 2):
            before[x.ndim - 1 - i], after[x.ndim - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
        if min(*before, *after, 0) >= 0:
            return p.low.pad(x, before, after)
    return _move(p, "pad", x)


@rule("aten.flip", "aten.roll", "aten.rot90")
def _roll(p: _Program, a: Args) -> Value:
    return _move(p, "roll" if p.kind(p.node) == "aten.roll" else "flip", a["self"])


@rule("aten.unfold", "aten.im2col", "aten.col2im", "aten.as_strided", "aten.diagonal", "aten.diag", "aten.diag_embed",
      "aten.pixel_shuffle", "aten.pixel_unshuffle", "aten.channel_shuffle", "aten.tril_",
      "aten.unfold_copy")  # fmt: skip
def _rearrange(p: _Program, a: Args) -> Value:
    x = p.value(next(iter(a.values())))
    kind = p.kind(p.node).split(".")[-1]
    if kind == "pixel_shuffle":
        *lead, c, h, w = x.shape
        r = a["upscale_factor"]
        y = p.low.reshape(x, [*lead, p.low.divide(c, r * r), r, r, h, w])
        n = len(lead)
        return p.low.reshape(p.low.transpose(y, [*range(n + 1), n + 3, n + 1, n + 4, n + 2]), p.out_shape())
    return _move(p, kind, x)


@rule("aten.index", "aten.index_select", "aten.gather", "aten.take_along_dim", "aten._unsafe_index",
      "aten.masked_select",
      "aten.take", "aten._index_put_impl", "aten.nonzero_static")  # fmt: skip
def _index(p: _Program, a: Args) -> Value:
    x = a["self"]
    indices = a.get("indices", a.get("index"))
    listed = indices if isinstance(indices, list) else [indices]
    tensors = [v for v in listed if isinstance(v, Value)]
    axis = a.get("dim", 0) if p.kind(p.node) == "aten.index_select" else 0
    leading = (isinstance(indices, list) and len(listed) == 1) or p.kind(p.node) == "aten.index_select"
    rows = leading and len(tensors) == 1 and axis == 0 and is_int(tensors[0])
    if rows and p.out_shape() == (*tensors[0].shape, *x.shape[1:]):
        return p.low.take(x, tensors[0], 0)
    return _move(p, "gather", x, *tensors)


def is_int(value: Value) -> bool:
    return not is_float(value.format) and value.format != "bool"


@rule("aten.index_put", "aten.scatter", "aten.scatter_add", "aten.index_copy", "aten.slice_scatter",
      "aten.select_scatter",
      "aten.index_add", "aten.scatter_reduce", "aten.masked_scatter", "aten.index_fill", "aten.diagonal_scatter",
      "aten._unsafe_index_put")  # fmt: skip
def _scatter(p: _Program, a: Args) -> Value:
    tensors = [v for v in p._flatten(list(a.values())) if isinstance(v, Value)]
    return _move(p, "scatter", *tensors)


@rule("aten.embedding")
def _embedding(p: _Program, a: Args) -> Value:
    return p.low.take(a["weight"], a["indices"], 0)


@rule("aten.one_hot", "aten.bucketize", "aten.searchsorted")
def _one_hot(p: _Program, a: Args) -> Value:
    return _move(p, p.kind(p.node).split(".")[-1], *[v for v in a.values() if isinstance(v, Value)])


# ---- rules: contractions


@rule("aten.linear")
def _linear(p: _Program, a: Args) -> Value:
    return p.low.linear(a["input"], a["weight"], a["bias"])


@rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.linalg_matmul")
def _matmul(p: _Program, a: Args) -> Value:
    x, y = list(a.values())[:2]
    return p.low.matmul(x, y)


@rule("aten.addmm", "aten.baddbmm", "aten.addbmm", "aten.addmv")
def _addmm(p: _Program, a: Args) -> Value:
    x, y = [v for k, v in a.items() if k not in ("self", "beta", "alpha")][:2]
    z = p.low.matmul(x, y)
    if a.get("alpha") not in (1, None):
        z = p.low.elementwise("mul", z, p.value(a["alpha"]))
    if a.get("beta") == 0:
        return z
    return p.low.elementwise("add", z, a["self"], format=p.out_format())


@rule("aten.einsum")
def _einsum(p: _Program, a: Args) -> Value:
    return contract(p.low, a["equation"], a["tensors"], p.out_shape())


@rule("aten.outer", "aten.ger")
def _outer(p: _Program, a: Args) -> Value:
    x, y = list(a.values())[:2]
    return p.low.elementwise("mul", p.low.unsqueeze(x, [1]), p.low.unsqueeze(y, [0]), format=p.out_format())


def contract(low: Lowering, equation: str, operands: Sequence[Value], shape: Sequence[Size]) -> Value:
    """einsum("bhid,bhjd->bhij") and the like: one Einsum, or elementwise work when nothing is summed."""
    left, _, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not right and "->" not in equation:
        letters = sorted({c for c in left if c.isalpha() and left.count(c) == 1})
        right = "".join(letters)
    if len(terms) != len(operands):
        raise low.fail(f"einsum {equation!r} with {len(operands)} operands")
    extra = max((v.ndim - len(t.replace("...", "")) for t, v in zip(terms, operands) if "..." in t), default=0)
    names = [f"e{i}" for i in range(extra)]

    def spread(term: str, ndim: int | None) -> list[str]:
        head, dots, tail = term.partition("...")
        own = names if ndim is None else names[extra - (ndim - len(head) - len(tail)) :] if dots else []
        return [*head, *(own if dots else []), *tail]

    accesses = [spread(t, v.ndim) for t, v in zip(terms, operands)]
    sizes: dict[str, Size] = {}
    for access, operand in zip(accesses, operands):
        if len(access) != operand.ndim:
            raise low.fail(f"einsum {equation!r} on {show(operand.shape)}")
        for index, (letter, size) in enumerate(zip(access, operand.shape)):
            if sizes.get(letter, 1) == 1:
                sizes[letter] = size
            elif size == 1:
                access[index] = f"{letter}one"
    out = spread(right, None)
    lower = {n: _dim_name(n) for access in [*accesses, out] for n in access}
    spec = (
        ", ".join(" ".join(lower[n] for n in access) for access in accesses) + " -> " + " ".join(lower[n] for n in out)
    )
    return low.einsum(spec.strip(), list(operands), shape)


def _dim_name(letter: str) -> str:
    return letter if letter.islower() or not letter.isalpha() else f"{letter.lower()}_"


def _spread(value: Any, d: int) -> list[int]:
    items = _ints(value) if value not in (None, []) else []
    return items * d if len(items) == 1 else items


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")
def _conv(p: _Program, a: Args) -> Value:
    x, w = a["input"], a["weight"]
    d = w.ndim - 2
    single = x.ndim == d + 1
    if single:
        x = p.low.unsqueeze(x, [0])
    stride, dilation = _spread(a.get("stride"), d) or [1] * d, _spread(a.get("dilation"), d) or [1] * d
    padding = a.get("padding")
    if isinstance(padding, str):
        taps = [int(s) for s in w.shape[2:] if isinstance(s, int)]
        total = [(t - 1) * di if padding == "same" else 0 for t, di in zip(taps, dilation)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(n, n) for n in (_spread(padding, d) or [0] * d)]
    groups = a.get("groups") or 1
    if a.get("transposed"):
        y = p.low.conv_transpose(
            x, w, a["bias"], stride=stride, pad=pads, dilation=dilation,
            output_pad=_spread(a.get("output_padding"), d) or [0] * d, groups=groups,
        )  # fmt: skip
    else:
        y = p.low.conv(x, w, a["bias"], stride=stride, pad=pads, dilation=dilation, groups=groups)
    return p.low.squeeze(y, [0]) if single else y


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def _conv_transpose(p: _Program, a: Args) -> Value:
    return _conv(p, {**a, "transposed": True})


@rule("aten.scaled_dot_product_attention")
def _sdpa(p: _Program, a: Args) -> Value:
    q, k, v, mask = a["query"], a["key"], a["value"], a["attn_mask"]
    scale = a.get("scale")
    if scale is None:
        width = q.shape[-1]
        scale = float(width) ** -0.5 if isinstance(width, int) else None
    return p.low.attention(q, k, v, mask, causal=bool(a["is_causal"]), scale=scale)


@rule("orchard.experts")
def _experts(p: _Program, a: Args) -> Value:
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


# ---- rules: norms, softmax, reductions


@rule("aten.layer_norm", "aten.native_layer_norm", "aten.rms_norm", "aten._fused_rms_norm")
def _layer_norm(p: _Program, a: Args) -> Any:
    x = a["input"]
    fn = "rmsnorm" if "rms" in p.kind(p.node) else "layernorm"
    shape = a["normalized_shape"]
    attrs: dict[str, Any] = {}
    if len(shape) > 1:
        attrs["axes"] = tuple(range(x.ndim - len(shape), x.ndim))
    y = p.low.norm(fn, x, a.get("weight"), a.get("bias"), **attrs)
    return (y, None, None) if isinstance(p.node.meta["val"], (tuple, list)) else y


@rule("aten.group_norm", "aten.native_group_norm")
def _group_norm(p: _Program, a: Args) -> Any:
    groups: Any = a.get("num_groups", a.get("group"))
    y = p.low.norm("groupnorm", a["input"], a.get("weight"), a.get("bias"), groups=int(groups))
    return (y, None, None) if isinstance(p.node.meta["val"], (tuple, list)) else y


@rule("aten.batch_norm", "aten._native_batch_norm_legit_no_training", "aten.native_batch_norm", "aten.cudnn_batch_norm")
def _batch_norm(p: _Program, a: Args) -> Any:
    y = p.low.norm("batchnorm", a["input"], a["weight"], a["bias"], a.get("running_mean"), a.get("running_var"))
    return (y, None, None) if isinstance(p.node.meta["val"], (tuple, list)) else y


@rule("aten.instance_norm")
def _instance_norm(p: _Program, a: Args) -> Value:
    return p.low.norm("instancenorm", a["input"], a["weight"], a["bias"])


@rule(
    "aten.softmax",
    "aten._softmax",
    "aten.log_softmax",
    "aten._log_softmax",
    "aten._safe_softmax",
    "aten.special_softmax",
)
def _softmax(p: _Program, a: Args) -> Value:
    fn = "log_softmax" if "log" in p.kind(p.node) else "softmax"
    return p.low.softmax(p.low.cast(a["self"], p.out_format()), a["dim"], fn)


@rule("aten.sum", "aten.mean", "aten.amax", "aten.amin", "aten.prod", "aten.any", "aten.all", "aten.logsumexp",
      "aten.norm",
      "aten.linalg_vector_norm", "aten.var", "aten.std", "aten.argmax", "aten.argmin", "aten.max", "aten.min",
      "aten.var_mean", "aten.std_mean", "aten.median", "aten.count_nonzero", "aten.nansum")  # fmt: skip
def _reduce(p: _Program, a: Args) -> Any:
    fn = {"amax": "max", "amin": "min"}.get(p.kind(p.node).split(".")[-1], p.kind(p.node).split(".")[-1])
    if fn in ("max", "min") and isinstance(a.get("other"), Value):
        return p.low.elementwise(fn, a["self"], a["other"], format=p.out_format())
    x = a["self"]
    dims = a.get("dim")
    axes = None if dims in (None, []) else _ints(dims)
    keep = bool(a.get("keepdim", False))
    results = p.node.meta["val"]
    if isinstance(results, (tuple, list)):
        return tuple(p.low.reduce(fn, x, axes, keep, p.out_format(i)) for i in range(len(results)))
    return p.low.reduce(fn, x, axes, keep, p.out_format())


@rule("aten.normalize")
def _normalize(p: _Program, a: Args) -> Value:
    return p.low.norm("l2norm", a["self"])


@rule("aten.cumsum", "aten.cumprod", "aten.diff", "aten.cummax", "aten.logcumsumexp")
def _cumulative(p: _Program, a: Args) -> Value:
    return p.low.one("reduce", [a["self"]], p.out_shape(), p.out_format(), fn=p.kind(p.node).split(".")[-1])


@rule("aten.topk", "aten.sort", "aten.kthvalue")
def _topk(p: _Program, a: Args) -> tuple[Value, ...]:
    x = a["self"]
    k = a.get("k") if p.kind(p.node) == "aten.topk" else x.shape[-1]
    shapes = [p.out_shape(i) for i in range(2)]
    formats = [p.out_format(i) for i in range(2)]
    if isinstance(k, int) and shapes[0] == (*x.shape[:-1], k):
        return p.low.emit("topk", [x], shapes, formats, k=k)
    return p.low.emit("move", [x], shapes, formats, fn="sort")


@rule("aten.argsort")
def _argsort(p: _Program, a: Args) -> Value:
    return _move(p, "sort", a["self"])


# ---- rules: pooling, resizing, recurrence


@rule("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d", "aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d",
      "aten.max_pool2d_with_indices")  # fmt: skip
def _pool(p: _Program, a: Args) -> Any:
    name = p.kind(p.node)
    d = int(name.split("pool")[1][0])
    kernel = _spread(a["kernel_size"], d)
    stride = _spread(a.get("stride"), d) or kernel
    pads = [(n, n) for n in (_spread(a.get("padding"), d) or [0] * d)]
    dilation = _spread(a.get("dilation"), d) or [1] * d
    y = p.low.pool(
        "max" if "max" in name else "avg", a["self"], kernel, stride, pads, dilation, ceil=bool(a.get("ceil_mode"))
    )
    return (y, None) if isinstance(p.node.meta["val"], (tuple, list)) else y


@rule("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten.adaptive_max_pool2d", "aten._adaptive_avg_pool2d",
      "aten.adaptive_max_pool1d", "aten.adaptive_avg_pool3d")  # fmt: skip
def _adaptive_pool(p: _Program, a: Args) -> Any:
    x = a["self"]
    pair = isinstance(p.node.meta["val"], (tuple, list))
    shape = p.out_shape(0) if pair else p.out_shape()
    fn = "max" if "max" in p.kind(p.node) else "mean"
    d = int(p.kind(p.node)[-2])
    if all(s == 1 for s in shape[-d:]):
        y = p.low.reduce(fn, x, list(range(x.ndim - d, x.ndim)), True)
    else:
        kernel = tuple(
            -(-i // o) if isinstance(i, int) and isinstance(o, int) else 1 for i, o in zip(x.shape[-d:], shape[-d:])
        )
        y = p.low.one("pool", [x], shape, fn="max" if fn == "max" else "avg", kernel=kernel, stride=kernel)
    return (y, None) if pair else y


@rule("aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_bilinear2d", "aten.upsample_bicubic2d",
      "aten._upsample_bicubic2d_aa", "aten._upsample_bilinear2d_aa", "aten.upsample_nearest3d",
      "aten.upsample_linear1d",
      "aten.grid_sampler", "aten.grid_sampler_2d", "aten.upsample_trilinear3d",
      "aten._upsample_nearest_exact2d")  # fmt: skip
def _resize(p: _Program, a: Args) -> Value:
    name = p.kind(p.node)
    x = p.value(next(iter(a.values())))
    fn = next((f for f in ("nearest", "bilinear", "bicubic", "trilinear", "linear") if f in name), "grid_sample")
    if fn == "grid_sample":
        return p.low.one("resize", [x, a["grid"]], p.out_shape(), fn=fn)
    return p.low.resize(x, p.out_shape(), fn)


@rule("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
def _recurrent(p: _Program, a: Args) -> tuple[Any, ...]:
    fn = p.kind(p.node).split(".")[-1].split("_")[0]
    x = a["input"]
    if a.get("batch_first"):
        x = p.low.swap(x, 0, 1)
    step = (4 if a["has_biases"] else 2) + (1 if fn == "lstm" and _projects(a) else 0)
    directions = 2 if a["bidirectional"] else 1
    hidden = a["params"][1].shape[1]
    if not isinstance(hidden, int):
        raise p.low.fail("a recurrent layer of symbolic width")
    lasts = []
    y = x
    for layer in range(a["num_layers"]):
        parameters = a["params"][layer * directions * step : (layer + 1) * directions * step]
        sets = [parameters[i * step : (i + 1) * step] for i in range(directions)]
        y, last = p.low.recurrent(
            fn, y, [(s[0], s[1]) for s in sets], [s[2] for s in sets] if a["has_biases"] else [], hidden
        )
        lasts.append(last)
    state = p.low.concat(lasts, 0)
    if a.get("batch_first"):
        y = p.low.swap(y, 0, 1)
    return (y, state, state) if fn == "lstm" else (y, state)


def _projects(a: Args) -> bool:
    per_direction = len(a["params"]) // (a["num_layers"] * (2 if a["bidirectional"] else 1))
    return bool(per_direction % 2)


@rule(
    "aten.stft",
    "aten.fft_rfft",
    "aten.fft_fft",
    "aten._fft_r2c",
    "aten.view_as_real",
    "aten.view_as_complex",
    "aten.fft_irfft",
)
def _fft(p: _Program, a: Args) -> Value:
    x = p.value(next(iter(a.values())))
    return p.low.one("move", [x], p.out_shape(), p.out_format(), fn=p.kind(p.node).split(".")[-1])


@rule("aten.glu")
def _glu(p: _Program, a: Args) -> Value:
    x = a["self"]
    axis = p.low.axis(x, a["dim"])
    half = p.low.divide(x.shape[axis], 2)
    value, gate = p.low.split(x, axis, [half, half])
    return p.low.elementwise("mul", value, p.low.elementwise("sigmoid", gate))


@rule("aten.cdist", "aten.pairwise_distance")
def _cdist(p: _Program, a: Args) -> Value:
    x, y = list(a.values())[:2]
    return p.low.matmul(x, y, transpose_b=True)
