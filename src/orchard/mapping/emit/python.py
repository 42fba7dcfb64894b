"""A mapping as one Python file with numpy: every tile in a buffer of its own that counts its words; for small sizes."""

from __future__ import annotations

from importlib import resources

from orchard.hw.arch import Architecture
from orchard.mapping.emit.program import TOP, Buffer, Expected, Port, Program, expected_row, picture, plain
from orchard.mapping.nest import Nest
from orchard.mapping.problem import Problem


def emit_python(nest: Nest, problem: Problem, arch: Architecture, expected: Expected) -> str:
    """Python source of a legal nest. `expected` holds the predicted words (reads, writes) by (level, tensor)."""
    program = Program(nest, problem, arch)
    runtime = (resources.files("orchard.mapping.emit") / "runtime.py").read_text(encoding="utf-8")
    _, _, runtime = runtime.partition('"""\n')
    parts = [
        _header(program),
        runtime.strip(),
        "\n\n# ---- the mapping " + "-" * 60,
        *_declarations(program, expected),
        *_transfers(program),
        *_mac_step(program),
        *_nest(program),
        *_main(program),
    ]
    return "\n".join(parts) + "\n"


def _header(program: Program) -> str:
    return f'"""{picture(program, "    ")}\n"""\n'


def _tuple(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _declarations(program: Program, expected: Expected) -> list[str]:
    lines = []
    for b in program.buffers:
        extents = _tuple([str(e) for e in b.extents])
        copies = program.count_of(b.lanes)
        lines.append(
            f'{b.name} = Buffer("{plain(b.level)}", "{b.tensor}", {extents}, {copies}, {expected_row(expected, b)})'
        )
    lines += [f"{p.name} = Port({p.parent.name}, {program.count_of(p.apart)})" for p in program.ports]
    return [*lines, f"buffers = [{', '.join(b.name for b in program.buffers)}]", ""]


def _boxes(program: Program, mover: int, at: int) -> list[str]:
    lines = []
    for dim, size in program.problem.sizes.items():
        steps = "".join(f", ({s.variable or 0}, {s.tile})" for s in program.steps(mover, at) if s.dim == dim)
        lines.append(f"{dim}_lo, {dim}_hi = block(0, {size}{steps})")
    empty = " or ".join(f"{d}_lo >= {d}_hi" for d in program.problem.dims)
    return [*lines, f"if {empty}:"]


def _with_lanes(program: Program, lanes: tuple[int, ...], body: list[str]) -> list[str]:
    lines = [f"{'    ' * (k + 1)}for x{i} in range({program.trips[i]}):" for k, i in enumerate(lanes)]
    pad = "    " * (len(lanes) + 1)
    return [*lines, *(pad + line for line in body), ""]


def _times(program: Program, mover: int) -> str:
    return ", ".join(program.times_above(mover))


def _transfers(program: Program) -> list[str]:
    lines = []
    for port in program.ports:
        if port.child is not None and port.child.tensor == program.problem.output:
            lines += _transfer(program, port, port.child, "load_sums") + _transfer(program, port, port.child, "drain")
        elif port.child is not None:
            lines += _transfer(program, port, port.child, "load")
    return lines


def _transfer(program: Program, port: Port, child: Buffer, action: str) -> list[str]:
    leave = "    continue" if child.lanes else "    return"
    axes = [
        "axis(" + ", ".join(f"({c}, {d}_lo, {d}_hi)" for c, d in axis.terms) + ")"
        for axis in program.problem.access(child.tensor)
    ]
    lanes = [program.number_of(x) for x in (child.lanes, port.parent.lanes, port.apart)]
    arguments = [port.name, child.name, *lanes, "tile"]
    if action == "load":
        arguments.insert(2, program.buffers_of(child.tensor)[0].name)
        arguments.append(f"t{port.mover} > 0" if port.slides else "False")
    body = [*_boxes(program, port.mover, child.at), leave, f"tile = [{', '.join(axes)}]"]
    body.append(f"{action}({', '.join(arguments)})")
    head = ["", f"def {action}_{child.name}({_times(program, port.mover)}):", "    Clock.epoch += 1"]
    return [*head, *_with_lanes(program, child.lanes, body)]


def _mac_step(program: Program) -> list[str]:
    end = len(program.nest.nodes)
    body = [*_boxes(program, end, end), "    continue" if program.spatial else "    return"]
    factors: list[str] = []
    for tensor in program.problem.tensors:
        port = program.innermost(tensor)
        access = program.problem.access(tensor)
        index = _tuple([" + ".join(f"{c} * {d}_lo" if c != 1 else f"{d}_lo" for c, d in a.terms) for a in access])
        where = f"{port.name}, {program.number_of(port.parent.lanes)}, {program.number_of(port.apart)}, {index}"
        if tensor == program.problem.output:
            body.append(f"add({where}, {' * '.join(factors)})")
        else:
            factors.append(f"fetch({where})")
    body += ["Clock.macs += 1", "busy = True"]
    head = ["", f"def mac_step({_times(program, end)}):", "    Clock.epoch += 1", "    busy = False"]
    return [*head, *_with_lanes(program, program.spatial, body)[:-1], "    Clock.steps += busy", ""]


def _calls(program: Program, mover: int, pad: str) -> tuple[list[str], list[str]]:
    loads: list[str] = []
    drains: list[str] = []
    times = _times(program, mover)
    for port in program.moved_by(mover):
        assert port.child is not None
        is_output = port.child.tensor == program.problem.output
        loads.append(f"{pad}{'load_sums' if is_output else 'load'}_{port.child.name}({times})")
        if is_output:
            drains.insert(0, f"{pad}drain_{port.child.name}({times})")
    return loads, drains


def _nest(program: Program) -> list[str]:
    loads, tail = _calls(program, TOP, "    ")
    lines = ["", "def nest():", *loads]
    depth = 1
    for index, loop in program.nest.loops_above(len(program.nest.nodes)):
        if loop.axis is not None:
            continue
        pad = "    " * depth
        loads, drains = _calls(program, index, pad + "    ")
        lines += [f"{pad}for t{index} in range({program.trips[index]}):  # {loop.dim} by {loop.tile}", *loads]
        tail = [*drains, *tail]
        depth += 1
    lines.append(f"{'    ' * depth}mac_step({_times(program, len(program.nest.nodes))})")
    return [*lines, *tail, ""]


def _main(program: Program) -> list[str]:
    problem = program.problem
    number = {dim: i for i, dim in enumerate(problem.dims)}
    operands = []
    lines = ["", 'if __name__ == "__main__":', "    numbers = np.random.default_rng(0)"]
    for tensor in problem.inputs:
        root = program.buffers_of(tensor)[0]
        lines.append(f"    {root.name}.data[:] = numbers.integers(-4, 5, {root.name}.data.shape)")
        terms = [[(c, problem.sizes[d]) for c, d in axis.terms] for axis in problem.access(tensor)]
        operands.append(
            f"view({root.name}, {terms}), {[number[d] for axis in problem.access(tensor) for d in axis.dims]}"
        )
    out = [number[axis.dims[0]] for axis in problem.access(problem.output)]
    lines += [
        f"    want = np.einsum({', '.join(operands)}, {out})",
        "    nest()",
        f"    finish(report(buffers, np.array_equal(want, {program.buffers_of(problem.output)[0].name}.data[0])))",
    ]
    return lines
