"""A mapping as one C99 file: the plain loop nest, the same nest with every tile in a buffer of its own, and a check of both.

Compiled with -DCOUNT the program counts the words at every buffer and compares them with the prediction. ELEM (default double)
is the element type.
"""

from __future__ import annotations

from importlib import resources

from orchard.hw.arch import Architecture
from orchard.ir.einsum import Access
from orchard.mapping.emit.program import TOP, Buffer, Expected, Port, Program, expected_row, picture, plain
from orchard.mapping.nest import Keep, Nest
from orchard.mapping.problem import Problem


def emit_c(nest: Nest, problem: Problem, arch: Architecture, expected: Expected) -> str:
    """C source of a legal nest. `expected` holds the predicted words (reads, writes) by (level, tensor)."""
    program = Program(nest, problem, arch)
    runtime = (resources.files("orchard.mapping.emit") / "runtime.c").read_text(encoding="utf-8")
    rank = max(1, *(len(problem.access(t)) for t in problem.tensors))
    parts = [
        _header(program),
        f"#define RANK {rank}",
        runtime,
        *_declarations(program, expected),
        _reference(program),
        _plain_nest(program),
        *_transfers(program),
        _mac_step(program),
        _buffered_nest(program),
        _main(program),
    ]
    return "\n".join(parts)


def _header(program: Program) -> str:
    return f"""/* {picture(program, "     ")}

   cc -std=c99 -O2 nest.c -o nest && ./nest            checks the nest against plain loops
   cc -std=c99 -O2 -DCOUNT nest.c -o nest && ./nest    also counts words per buffer, beside the prediction
   -DELEM=float changes the element type; ./nest N runs only the plain nest, N times. */"""


def _declarations(program: Program, expected: Expected) -> list[str]:
    lines = []
    root: Buffer | None = None
    for b in program.buffers:
        root = b if b.is_root else root
        assert root is not None
        reads, writes = expected_row(expected, b)
        extents = ", ".join(str(e) for e in b.extents) or "1"
        lines.append(
            f'static Buffer {b.name} = {{.level = "{plain(b.level)}", .tensor = "{b.tensor}", .root = &{root.name}, '
            f".rank = {len(b.extents)},\n    .extent = {{{extents}}}, .copies = {program.count_of(b.lanes)}, "
            f".expected_reads = {reads}, .expected_writes = {writes}}};"
        )
    for p in program.ports:
        groups = program.count_of(p.apart)
        lines.append(f"static Port {p.name} = {{.parent = &{p.parent.name}, .groups = {groups}}};")
    names = ",\n    ".join(f"&{b.name}" for b in program.buffers)
    ports = ",\n    ".join(f"&{p.name}" for p in program.ports)
    lines += [
        f"static Buffer *const buffers[] = {{\n    {names}}};",
        f"static Port *const ports[] = {{\n    {ports}}};",
        "",
    ]
    return lines


def _flat(access: Access, extents: tuple[int, ...], variables: dict[str, str]) -> str:
    """Row-major offset of the element that the dims' variables point at."""
    text = ""
    for axis, extent in zip(access, extents):
        index = " + ".join(variables[d] if c == 1 else f"{c} * {variables[d]}" for c, d in axis.terms)
        text = f"({text}) * {extent} + {index}" if " " in text else f"{text} * {extent} + {index}" if text else index
    return text or "0"


def _root_of(program: Program, tensor: str) -> Buffer:
    return program.buffers_of(tensor)[0]


def _statement(program: Program, variables: dict[str, str]) -> str:
    def element(tensor: str) -> str:
        return f"{tensor}_[{_flat(program.problem.access(tensor), _root_of(program, tensor).extents, variables)}]"

    product = " * ".join(element(t) for t in program.problem.inputs)
    return f"{element(program.problem.output)} += {product};"


def _signature(program: Program, name: str) -> str:
    inputs = ", ".join(f"const elem *restrict {t}_" for t in program.problem.inputs)
    return f"static void {name}({inputs}, elem *restrict {program.problem.output}_)"


def _reference(program: Program) -> str:
    lines = ["/* Plain loops in the order of the dims. */", _signature(program, "reference"), "{"]
    variables = {}
    for depth, dim in enumerate(program.problem.dims):
        variables[dim] = f"{dim}_i"
        size = program.problem.sizes[dim]
        lines.append(f"{'    ' * (depth + 1)}for (long {dim}_i = 0; {dim}_i < {size}; {dim}_i++)")
    lines += ["    " * (len(variables) + 1) + _statement(program, variables), "}", ""]
    return "\n".join(lines)


def _plain_nest(program: Program) -> str:
    """The loops alone, on whole tensors: what a cache sees."""
    lines = [
        "/* The mapping's loops on whole tensors, copies one after the other. */",
        _signature(program, "nest"),
        "{",
    ]
    start, end = dict.fromkeys(program.problem.dims, "0"), {d: str(s) for d, s in program.problem.sizes.items()}
    even = dict.fromkeys(program.problem.dims, True)
    size = dict(program.problem.sizes)
    depth = 1
    for index, node in enumerate(program.nest.nodes):
        pad = "    " * depth
        if isinstance(node, Keep):
            lines.append(f"{pad}/* keep {plain(node.level)} {node.tensor} */")
            continue
        name = f"{node.dim}_{index}"
        across = f" /* across {plain(node.axis)} */" if node.axis else ""
        low, high = start[node.dim], end[node.dim]
        lines.append(f"{pad}for (long {name} = {low}; {name} < {high}; {name} += {node.tile}) {{{across}")
        depth += 1
        even[node.dim] = even[node.dim] and size[node.dim] % node.tile == 0
        size[node.dim] = node.tile
        start[node.dim] = name
        full = f"{name} + {node.tile}"
        end[node.dim] = full if even[node.dim] else f"MIN({full}, {high})"
        if node.tile > 1 and not even[node.dim]:
            lines.append(f"{'    ' * depth}const long {name}e = {end[node.dim]};")
            end[node.dim] = f"{name}e"
    lines.append("    " * depth + _statement(program, start))
    lines += ["    " * d + "}" for d in range(depth - 1, 0, -1)]
    return "\n".join([*lines, "}", ""])


def _boxes(program: Program, mover: int, at: int) -> list[str]:
    """Block of every dim at `at`, inside the lanes' loops."""
    lines = [f"long {d}_lo = 0, {d}_hi = {s};" for d, s in program.problem.sizes.items()]
    for step in program.steps(mover, at):
        lines.append(f"STEP({step.dim}_lo, {step.dim}_hi, {step.variable or '0'}, {step.tile});")
    return lines


def _empty(program: Program) -> str:
    return " || ".join(f"{d}_lo >= {d}_hi" for d in program.problem.dims)


def _with_lanes(program: Program, lanes: tuple[int, ...], body: list[str]) -> list[str]:
    lines = [f"    for (long x{i} = 0; x{i} < {program.trips[i]}; x{i}++)" for i in lanes]
    return [*lines, "    {", *(f"        {line}" for line in body), "    }"]


def _arguments(program: Program, mover: int) -> tuple[str, str]:
    times = program.times_above(mover)
    return ", ".join(f"long {t}" for t in times) or "void", ", ".join(times)


def _transfers(program: Program) -> list[str]:
    lines = []
    for port in program.ports:
        if port.child is None:
            continue
        is_output = port.child.tensor == program.problem.output
        lines += _transfer(program, port, port.child, "load_sums" if is_output else "load")
        if is_output:
            lines += _transfer(program, port, port.child, "drain")
    return lines


def _transfer(program: Program, port: Port, child: Buffer, action: str) -> list[str]:
    parameters, _ = _arguments(program, port.mover)
    body = [*_boxes(program, port.mover, child.at)]
    leave = "continue" if child.lanes else "return"
    body.append(f"if ({_empty(program)}) {leave};")
    for a, axis in enumerate(program.problem.access(child.tensor)):
        c, lo, hi = (
            ", ".join(text) for text in zip(*((str(c), f"{d}_lo", f"{d}_hi") for c, d in axis.terms))
        )  # fmt: skip
        n = len(axis.terms)
        body.append(f"axis(&tile, {a}, {n}, (long[]){{{c}}}, (long[]){{{lo}}}, (long[]){{{hi}}});")
    copies = (
        f"{program.number_of(child.lanes)}, {program.number_of(port.parent.lanes)}, {program.number_of(port.apart)}"
    )
    slide = ""
    if action == "load":
        slide = f", t{port.mover} > 0" if port.slides else ", 0"
    body.append(f"{action}(&{port.name}, &{child.name}, {copies}, &tile{slide});")
    lines = [f"static void {action}_{child.name}({parameters})", "{", "    static Tile tile;", "    epoch++;"]
    return [*lines, *_with_lanes(program, child.lanes, body), "}", ""]


def _mac_step(program: Program) -> str:
    end = len(program.nest.nodes)
    parameters, _ = _arguments(program, end)
    body = [*_boxes(program, end, end), f"if ({_empty(program)}) {'continue' if program.spatial else 'return'};"]
    factors: list[str] = []
    for tensor in program.problem.tensors:
        port = program.innermost(tensor)
        indices = ", ".join(
            " + ".join(f"{c} * {d}_lo" if c != 1 else f"{d}_lo" for c, d in axis.terms)
            for axis in program.problem.access(tensor)
        )
        where = f"{program.number_of(port.parent.lanes)}, {program.number_of(port.apart)}, (long[]){{{indices or '0'}}}"
        if tensor == program.problem.output:
            body.append(f"add(&{port.name}, {where}, {' * '.join(factors)});")
        else:
            factors.append(f"fetch(&{port.name}, {where})")
    body += ["macs++;", "busy = 1;"]
    lines = [f"static void mac_step({parameters})", "{", "    int busy = 0;", "    epoch++;"]
    tail = ["    mac_steps += busy;", "}", ""]
    if not program.spatial:
        body = [line.replace("busy = 1;", "mac_steps++;") for line in body]
        lines, tail = [line for line in lines if "busy" not in line], ["}", ""]
    return "\n".join([*lines, *_with_lanes(program, program.spatial, body), *tail])


def _calls(program: Program, mover: int, pad: str) -> tuple[list[str], list[str]]:
    """Loads at the start of a body, drains at its end."""
    _, times = _arguments(program, mover)
    loads: list[str] = []
    drains: list[str] = []
    for port in program.moved_by(mover):
        assert port.child is not None
        is_output = port.child.tensor == program.problem.output
        loads.append(f"{pad}{'load_sums' if is_output else 'load'}_{port.child.name}({times});")
        if is_output:
            drains.insert(0, f"{pad}drain_{port.child.name}({times});")
    return loads, drains


def _buffered_nest(program: Program) -> str:
    loads, drains = _calls(program, TOP, "    ")
    lines, tail = ["static void buffered_nest(void)", "{", *loads], [*drains, "}", ""]
    depth = 1
    for index, loop in program.nest.loops_above(len(program.nest.nodes)):
        if loop.axis is not None:
            continue
        pad = "    " * depth
        across = f"{pad}for (long t{index} = 0; t{index} < {program.trips[index]}; t{index}++) {{"
        loads, drains = _calls(program, index, pad + "    ")
        lines += [f"{across} /* {loop.dim} by {loop.tile} */", *loads]
        tail = [*drains, f"{pad}}}", *tail]
        depth += 1
    _, times = _arguments(program, len(program.nest.nodes))
    return "\n".join([*lines, f"{'    ' * depth}mac_step({times});", *tail])


def _main(program: Program) -> str:
    inputs = [_root_of(program, t) for t in program.problem.inputs]
    output = _root_of(program, program.problem.output)
    fills = "\n".join(f"    fill(&{b.name}, {7 + 13 * i}u);" for i, b in enumerate(inputs))
    arguments = ", ".join(f"{b.name}.data" for b in inputs)
    return f"""int main(int argc, char **argv)
{{
    const long n_buffers = sizeof buffers / sizeof *buffers, n_ports = sizeof ports / sizeof *ports;
    for (long i = 0; i < n_buffers; i++) open_buffer(buffers[i]);
{fills}
    const long n = {output.name}.slots;
    elem *want = room(n, sizeof(elem)), *got = room(n, sizeof(elem));
    if (argc > 1) {{
        for (long i = atol(argv[1]); i > 0; i--) nest({arguments}, got);
        return 0;
    }}
    for (long i = 0; i < n_ports; i++) open_port(ports[i]);
    reference({arguments}, want);
    nest({arguments}, got);
    int wrong = memcmp(want, got, (size_t)n * sizeof(elem)) != 0;
    printf("plain nest: %s\\n", wrong ? "WRONG" : "right");
    buffered_nest();
    int wrong_too = memcmp(want, {output.name}.data, (size_t)n * sizeof(elem)) != 0;
    printf("buffered nest: %s\\n", wrong_too ? "WRONG" : "right");
    wrong |= wrong_too;
    if (COUNTING) {{
        printf("macs %ld\\nsteps %ld\\n", macs, mac_steps);
        printf("%-10s %-10s %14s %14s %14s %14s\\n", "level", "tensor", "reads", "predicted", "writes", "predicted");
        for (long i = 0; i < n_buffers; i++) {{
            Buffer *b = buffers[i];
            printf("%-10s %-10s %14ld %14ld %14ld %14ld\\n", b->level, b->tensor, b->reads, b->expected_reads, b->writes,
                   b->expected_writes);
            wrong |= b->reads != b->expected_reads || b->writes != b->expected_writes;
        }}
        printf("counts: %s\\n", wrong ? "DIFFER" : "equal to the prediction");
    }}
    return wrong;
}}
"""
