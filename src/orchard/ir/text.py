"""Text form of a graph: prints, parses, round-trips.

    graph "tiny" (B, T)
    %x: f16[B, T, 8] = input
    %w: q8_0[8, 4] = weight part=ffn_up layer=0
    %y: f16[B, T, 4] = einsum(%x, %w) spec="b t m, m n -> b t n" @layers.0.ffn
    return %y

Attribute values: integers, floats, true/false, "strings", (1, 2) tuples of integers or strings, and {expressions} over
symbols. An op's name is its first output unless `name=` says otherwise. Blank lines and `#` comments are skipped.
"""

from __future__ import annotations

import json
import re

from orchard.ir.errors import GraphError, ParseError
from orchard.ir.graph import Attribute, Graph, Op, Role, Tensor
from orchard.ir.kinds import verify
from orchard.ir.size import Expr, Size, parse_size

_NAME = r"[A-Za-z_][\w./-]*|\d[\w./-]*"
_STRING = r'"(?:[^"\\]|\\.)*"'
_HEADER = re.compile(rf"graph\s+({_STRING})\s*\(([^)]*)\)\s*\Z")
_VALUE = re.compile(rf"%({_NAME})\s*:\s*([\w./-]+)\[")
_CALL = re.compile(r"([a-z_]+)\s*(?:\(([^)]*)\))?\s*(.*)\Z", re.S)
_TUPLE = rf"\((?:{_STRING}|[^()\"])*\)"
_ATTRIBUTE = re.compile(rf"\s*([A-Za-z_]\w*)=({_STRING}|{_TUPLE}|\{{[^}}]*\}}|[^\s\"]+)(?=\s|\Z)")
_SCOPE = re.compile(r"\s*@(\S+)\s*\Z")


def print_graph(graph: Graph) -> str:
    """The text form; `parse_graph` reads it back to an equal graph."""
    lines = [f"graph {_quoted(graph.name)} ({', '.join(graph.symbols)})"]
    for tensor in graph.tensors.values():
        if tensor.role is not Role.ACTIVATION:
            extra = f" part={tensor.part}" if tensor.part else ""
            extra += f" layer={tensor.layer}" if tensor.layer is not None else ""
            lines.append(f"{_typed(tensor)} = {tensor.role}{extra}")
    for op in graph.ops:
        left = ", ".join(_typed(t) for t in graph.outputs_of(op))
        right = f"{op.kind}({', '.join('%' + n for n in op.inputs)})"
        attrs = "".join(f" {k}={_print_attribute(v)}" for k, v in op.attrs.items())
        if op.name != op.outputs[0]:
            attrs += f" name={_quoted(op.name)}"
        lines.append(f"{left} = {right}{attrs}{' @' + op.scope if op.scope else ''}")
    lines.append("return " + ", ".join("%" + n for n in graph.outputs))
    return "\n".join(lines) + "\n"


def parse_graph(text: str) -> Graph:
    """Read and verify a graph. Raises ParseError with the line, GraphError for a rule the graph breaks."""
    header: tuple[str, tuple[str, ...]] | None = None
    tensors: dict[str, Tensor] = {}
    ops: list[Op] = []
    outputs: tuple[str, ...] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if header is None:
                header = _parse_header(line)
            elif line.startswith("return"):
                outputs = tuple(_operand(p) for p in line[len("return") :].split(",") if p.strip())
            else:
                _parse_statement(line, tensors, ops)
        except GraphError as error:
            raise ParseError(f"line {number}: {error}") from None
    if header is None or outputs is None:
        raise ParseError("line 1: expected 'graph \"name\" (symbols)' first and 'return %...' last")
    name, symbols = header
    return verify(Graph(name=name, symbols=symbols, tensors=tensors, ops=ops, outputs=outputs))


def _typed(tensor: Tensor) -> str:
    return f"%{tensor.name}: {tensor.format}[{', '.join(str(s) for s in tensor.shape)}]"


def _print_attribute(value: Attribute) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Expr):
        return "{" + str(value) + "}"
    if isinstance(value, tuple):
        items = [_quoted(v) if isinstance(v, str) else repr(v) for v in value]
        return "(" + ", ".join(items) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _quoted(text: str) -> str:
    """A string on one line: JSON's form, in ASCII."""
    return json.dumps(text)


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        raise ParseError(f"string {text[:60]}: expected JSON's escapes only") from None


def _parse_header(line: str) -> tuple[str, tuple[str, ...]]:
    match = _HEADER.match(line)
    if match is None:
        raise ParseError(f"{line[:60]!r}: expected 'graph \"name\" (symbols)'")
    return _unquoted(match.group(1)), tuple(s.strip() for s in match.group(2).split(",") if s.strip())


def _parse_statement(line: str, tensors: dict[str, Tensor], ops: list[Op]) -> None:
    values, rest = _parse_values(line)
    match = _CALL.match(rest)
    if match is None:
        raise ParseError(f"{rest[:60]!r}: expected 'kind(%input, ...)' or a role")
    kind, arguments, tail = match.groups()
    attrs, scope = _parse_attributes(tail)
    if arguments is None:
        if kind not in (Role.INPUT, Role.WEIGHT, Role.STATE) or len(values) != 1:
            raise ParseError(f"{kind!r}: expected input, weight, state, or an op with operands in parentheses")
        name, format_, shape = values[0]
        layer = attrs.get("layer")
        _add(
            tensors,
            Tensor(
                name=name,
                shape=shape,
                format=format_,
                role=Role(kind),
                part=str(attrs.get("part", "")),
                layer=layer if isinstance(layer, int) else None,
            ),
        )
        return
    for name, format_, shape in values:
        _add(tensors, Tensor(name=name, shape=shape, format=format_))
    op_name = str(attrs.pop("name", values[0][0]))
    inputs = tuple(_operand(p) for p in arguments.split(",") if p.strip())
    outputs = tuple(v[0] for v in values)
    ops.append(Op(name=op_name, kind=kind, inputs=inputs, outputs=outputs, attrs=attrs, scope=scope))


def _add(tensors: dict[str, Tensor], tensor: Tensor) -> None:
    if tensor.name in tensors:
        raise ParseError(f"%{tensor.name} is defined twice")
    tensors[tensor.name] = tensor


def _parse_values(line: str) -> tuple[list[tuple[str, str, tuple[Size, ...]]], str]:
    values: list[tuple[str, str, tuple[Size, ...]]] = []
    position = 0
    while True:
        match = _VALUE.match(line, position)
        if match is None:
            raise ParseError(f"{line[position : position + 60]!r}: expected '%name: format[sizes] = ...'")
        end = line.find("]", match.end())
        if end < 0:
            raise ParseError(f"%{match.group(1)}: the shape has no closing ']'")
        shape = tuple(parse_size(p.strip()) for p in _split_sizes(line[match.end() : end]))
        values.append((match.group(1), match.group(2), shape))
        rest = line[end + 1 :].lstrip()
        if rest.startswith(","):
            position = len(line) - len(rest[1:].lstrip())
            continue
        if not rest.startswith("="):
            raise ParseError(f"{rest[:60]!r}: expected '=' after the value")
        return values, rest[1:].strip()


def _split_sizes(text: str) -> list[str]:
    """Split on commas outside parentheses; `min(S, 4)` is one size."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [p for p in [*parts, text[start:]] if p.strip()]


def _operand(text: str) -> str:
    name = text.strip()
    if not re.fullmatch(rf"%(?:{_NAME})", name):
        raise ParseError(f"{name!r}: expected an operand such as %x")
    return name[1:]


def _parse_attributes(text: str) -> tuple[dict[str, Attribute], str]:
    """key=value pairs, then the scope if there is one."""
    attrs: dict[str, Attribute] = {}
    position = 0
    while text[position:].strip():
        scope = _SCOPE.match(text, position)
        if scope is not None:
            return attrs, scope.group(1)
        found = _ATTRIBUTE.match(text, position)
        if found is None:
            raise ParseError(f"{text[position:].strip()[:60]!r}: expected key=value")
        if found.group(1) in attrs:
            raise ParseError(f"attribute {found.group(1)!r} stands twice")
        attrs[found.group(1)] = _parse_attribute(found.group(2))
        position = found.end()
    return attrs, ""


def _parse_attribute(text: str) -> Attribute:
    if text.startswith('"'):
        return _unquoted(text)
    if text.startswith("("):
        return _parse_tuple(text)
    if text.startswith("{"):
        return parse_size(text[1:-1])
    if text in ("true", "false"):
        return text == "true"
    if text in ("inf", "-inf"):
        return float(text)
    if text != "nan" and re.fullmatch(r"[A-Za-z_][\w.-]*", text):
        return text
    for number in (int, float):
        if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text) and len(text) <= 400:
            try:
                return number(text)
            except ValueError:
                continue
    raise ParseError(f"attribute value {text[:60]!r}: expected a number, string, tuple or {{expression}}")


def _parse_tuple(text: str) -> Attribute:
    """(1, 2) or ("a", "b"); one kind of item."""
    items = [item for item in re.findall(rf"\s*{_STRING}|[^,]+", text[1:-1]) if item.strip()]
    if all(item.startswith('"') for item in map(str.strip, items)):
        return tuple(_unquoted(item.strip()) for item in items)
    if all(re.fullmatch(r"\s*[-+]?\d{1,300}\s*", item) for item in items):
        return tuple(int(item) for item in items)
    raise ParseError(f"attribute value {text[:60]!r}: expected a tuple of whole numbers or of strings")
