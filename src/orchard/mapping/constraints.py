"""What a user fixes in advance: tiles, residency, order of tensors or loops, copies. As text, YAML or data.

    GLB: m=64; k=128           every tensor kept in GLB that has the dim has this tile there
    GLB: keep=A,B; bypass=C    residency, where the machine leaves a choice
    GLB: tensors=A,C,B         order of the tiles' marks in the level, outermost first
    GLB: stationary=B          B's tile stays while the other tiles of the level move (B's mark is outermost)
    GLB: order=m,k,n           order of the temporal loops between this level's marks and the next inner ones, outermost first
    PE: X=n; Y=k,c             dims that may spread over an axis
    PE: n=16                   copies along a dim
    dataflow=weight-stationary stationary=W in the innermost level that may hold W (input-, output-stationary likewise)

A loop belongs to the level of the nearest mark above it; loops above every mark belong to the first memory. Loops of dims that
`order` does not name may stand anywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from orchard.hw.arch import Architecture, FanOut, Level
from orchard.mapping.errors import ImpossibleSpace, MappingError
from orchard.mapping.lattice import divisors
from orchard.mapping.nest import Keep, Nest
from orchard.mapping.problem import Problem

Value: TypeAlias = "int | str | Sequence[str]"
Data: TypeAlias = "Mapping[str, Mapping[str, Value]]"
_FLOWS = {"input-stationary": "I", "weight-stationary": "W", "output-stationary": "O"}
_LISTS = ("keep", "bypass", "tensors", "order")


@dataclass(frozen=True, slots=True)
class LevelRule:
    """Constraints of one level; tensors by name."""

    tiles: Mapping[str, int] = field(default_factory=dict)  # dim -> tile of tensors kept here
    keep: tuple[str, ...] = ()
    bypass: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()  # marks, outermost first
    stationary: str | None = None
    order: tuple[str, ...] = ()  # temporal loops, outermost first


@dataclass(frozen=True, slots=True)
class FanRule:
    """Constraints of one fan-out."""

    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # axis -> dims that may use it
    copies: Mapping[str, int] = field(default_factory=dict)  # dim -> copies


@dataclass(frozen=True, slots=True)
class Constraints:
    """All rules, by level and by fan-out."""

    levels: Mapping[str, LevelRule] = field(default_factory=dict)
    fans: Mapping[str, FanRule] = field(default_factory=dict)

    def level(self, name: str) -> LevelRule:
        return self.levels.get(name, _FREE_LEVEL)

    @property
    def orders_loops(self) -> bool:
        return any(rule.order for rule in self.levels.values())


_FREE_LEVEL = LevelRule()
FREE = Constraints()


def parse_constraints(texts: Iterable[str]) -> Data:
    """Texts as above, or names of YAML files with the same content, as plain data. Raises MappingError with the part at fault."""
    merged: dict[str, dict[str, Value]] = {}
    for text in texts:
        found = _from_file(Path(text)) if text.endswith((".yaml", ".yml")) else _from_text(text)
        for where, rules in found.items():
            for key, value in rules.items():
                if merged.setdefault(where, {}).setdefault(key, value) != value:
                    raise MappingError(f"constraint {where}: {key} is given twice, as {merged[where][key]} and {value}")
    return merged


def _from_text(text: str) -> dict[str, dict[str, Value]]:
    flow = re.fullmatch(r"\s*dataflow\s*=\s*([\w-]+)\s*", text)
    if flow is not None:
        return {"dataflow": {"dataflow": flow[1]}}
    where, colon, rest = text.partition(":")
    if not colon or not where.strip():
        raise MappingError(f"constraint {text[:60]!r}: expected e.g. 'GLB: m=64; keep=A', 'PE: X=n' or a YAML file")
    rules: dict[str, Value] = {}
    for part in filter(None, (p.strip() for p in rest.split(";"))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or not key or not value:
            raise MappingError(f"constraint {where.strip()}: {part[:40]!r}, expected e.g. 'm=64' or 'keep=A,B'")
        if key in rules:
            raise MappingError(f"constraint {where.strip()}: {key} is given twice")
        rules[key] = value
    if not rules:
        raise MappingError(f"constraint {text[:60]!r}: nothing after the colon, expected e.g. 'GLB: m=64'")
    return {where.strip(): rules}


def _from_file(path: Path) -> dict[str, dict[str, Value]]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        raise MappingError(f"constraints {str(path)!r}: no such file") from None
    except (yaml.YAMLError, RecursionError):
        raise MappingError(f"constraints {str(path)!r}: not valid YAML") from None
    if not isinstance(data, dict):
        raise MappingError(f"constraints {str(path)!r}: expected 'LEVEL: {{m: 64}}' pairs")
    found: dict[str, dict[str, Value]] = {}
    for where, rules in data.items():
        if where == "dataflow" and isinstance(rules, str):
            found["dataflow"] = {"dataflow": rules}
        elif isinstance(rules, dict):
            found[str(where)] = {str(k): _yaml_value(f"{path}: {where}", k, v) for k, v in rules.items()}
        else:
            raise MappingError(f"constraints {str(path)!r}: {where} is {rules!r}, expected e.g. {{m: 64}}")
    return found


def _yaml_value(where: str, key: object, value: object) -> Value:
    if isinstance(value, list):
        return [str(v) for v in value]
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise MappingError(f"constraint {where}: {key} is {value!r}, expected a number, a name or a list of names")


def constraints_from(data: Data, problem: Problem, arch: Architecture) -> Constraints:
    """Check data against op and machine. Raises MappingError for names that do not exist, and for contradictions."""
    levels: dict[str, LevelRule] = {}
    fans: dict[str, FanRule] = {}
    for where, rules in data.items():
        if where == "dataflow":
            level, tensor = _dataflow(str(rules["dataflow"]), problem, arch)
            levels[level] = replace(levels.get(level, _FREE_LEVEL), stationary=tensor)
            continue
        node = _node(where, arch)
        if isinstance(node, Level):
            rule = _level_rule(node, rules, problem)
            flow = levels.get(node.name, _FREE_LEVEL).stationary
            levels[node.name] = replace(rule, stationary=flow) if rule.stationary is None else rule
        else:
            fans[node.name] = _fan_rule(node, rules, problem)
    found = Constraints(levels, fans)
    _refuse_contradictions(found, problem, arch)
    return found


def _node(where: str, arch: Architecture) -> Level | FanOut:
    for node in arch.nodes:
        if node.name.lower() == where.lower():
            return node
    names = ", ".join(node.name for node in arch.nodes)
    raise MappingError(f"constraint {where!r}: no level or fan-out of {arch.name}, known: {names}")


def _dataflow(text: str, problem: Problem, arch: Architecture) -> tuple[str, str]:
    if text not in _FLOWS:
        raise MappingError(f"constraint dataflow={text}: expected one of {', '.join(_FLOWS)}")
    role = _FLOWS[text]
    tensor = problem.tensor_of(role)
    for level in reversed(arch.levels[1:]):
        if level.may_hold(role):
            return level.name, tensor
    raise MappingError(f"constraint dataflow={text}: no level of {arch.name} but the first holds {tensor}")


def _names(value: Value) -> list[str]:
    parts = (
        value.split(",")
        if isinstance(value, str)
        else [str(v) for v in value]
        if isinstance(value, Sequence)
        else [str(value)]
    )
    return [p.strip() for p in parts if p.strip()]


def _number(where: str, key: str, value: Value) -> int:
    try:
        number = int(value) if isinstance(value, int | str) else 0
    except ValueError:
        number = 0
    if number < 1:
        raise MappingError(f"constraint {where}: {key} is {value!r}, expected a whole number >= 1")
    return number


def _level_rule(level: Level, rules: Mapping[str, Value], problem: Problem) -> LevelRule:
    rule = LevelRule()
    tiles: dict[str, int] = {}
    for key, value in rules.items():
        where = f"{level.name}: {key}"
        if key in ("keep", "bypass", "tensors"):
            found = tuple(problem.tensor_of(name) for name in _names(value))
            rule = replace(rule, **{key: found})  # type: ignore[arg-type]
        elif key == "stationary":
            rule = replace(rule, stationary=problem.tensor_of(str(value).strip()))
        elif key == "order":
            rule = replace(rule, order=tuple(_dim(where, name, problem) for name in _names(value)))
        elif key in problem.dims:
            tiles[key] = _number(level.name, key, value)
        else:
            raise MappingError(
                f"constraint {where}: expected {', '.join(_LISTS)}, stationary or a dim ({', '.join(problem.dims)})"
            )
    for label in ("tensors", "order"):
        names = getattr(rule, label)
        if len(set(names)) != len(names):
            raise MappingError(f"constraint {level.name}: {label} names one twice: {', '.join(names)}")
    return replace(rule, tiles=tiles)


def _dim(where: str, name: str, problem: Problem) -> str:
    if name not in problem.dims:
        raise MappingError(f"constraint {where}: no dim {name!r}, known: {', '.join(problem.dims)}")
    return name


def _fan_rule(fan: FanOut, rules: Mapping[str, Value], problem: Problem) -> FanRule:
    axes: dict[str, tuple[str, ...]] = {}
    copies: dict[str, int] = {}
    for key, value in rules.items():
        if key in fan.axes:
            axes[key] = tuple(_dim(f"{fan.name}: {key}", name, problem) for name in _names(value))
        elif key in problem.dims:
            copies[key] = _number(fan.name, key, value)
        else:
            known = f"an axis ({', '.join(fan.axes)}) or a dim ({', '.join(problem.dims)})"
            raise MappingError(f"constraint {fan.name}: {key!r}, expected {known}")
    return FanRule(axes, copies)


# -- contradictions ----------------------------------------------------------------------------------------------------
def _refuse_contradictions(rules: Constraints, problem: Problem, arch: Architecture) -> None:
    for level in arch.levels:
        rule = rules.level(level.name)
        if level is arch.levels[0]:
            if rule.tiles or rule.keep or rule.bypass or rule.tensors or rule.stationary:
                raise MappingError(
                    f"constraint {level.name}: it holds every tensor whole; only order= can be fixed there"
                )
            continue
        _refuse_residency(level, rule, problem, arch)
        _refuse_capacity(level, rule, problem, arch)
    for fan in arch.fan_outs:
        _refuse_axes(fan, rules.fans.get(fan.name, FanRule()), problem)
        _refuse_copies(fan, rules.fans.get(fan.name, FanRule()), problem)
    for dim in problem.dims:
        _refuse_chain(dim, rules, problem, arch)


def _refuse_residency(level: Level, rule: LevelRule, problem: Problem, arch: Architecture) -> None:
    held = [t for t in problem.tensors if level.may_hold(problem.role(t)) and t not in rule.bypass]
    for tensor in rule.keep:
        if tensor in rule.bypass:
            raise ImpossibleSpace(
                f"constraint {level.name}: {tensor} is to be kept and to be bypassed; drop one of the two"
            )
    for tensor in (*rule.keep, *rule.tensors, *([rule.stationary] if rule.stationary else [])):
        if tensor not in held:
            why = "bypass= says so" if tensor in rule.bypass else f"{arch.name} does not let it"
            raise ImpossibleSpace(
                f"constraint {level.name}: {tensor} cannot stay there, {why}; it can hold {', '.join(held) or 'nothing'}"
            )
    for tensor in rule.bypass:
        if level.must_hold(problem.role(tensor)):
            raise ImpossibleSpace(
                f"constraint {level.name}: {tensor} cannot bypass it, {arch.name} says that {level.name} must hold it; "
                f"list {problem.role(tensor)} under may_keep in the architecture to leave the choice open"
            )
    if rule.stationary and rule.tensors and rule.tensors[0] != rule.stationary:
        raise ImpossibleSpace(
            f"constraint {level.name}: stationary={rule.stationary} needs it first in tensors=, "
            f"which starts with {rule.tensors[0]}"
        )
    for dim in rule.tiles:
        if not any(dim in problem.dims_of(t) for t in held):
            raise ImpossibleSpace(
                f"constraint {level.name}: {dim}={rule.tiles[dim]}, but nothing kept there has dim {dim}"
            )


def _certain(level: Level, rule: LevelRule, problem: Problem) -> list[str]:
    """Tensors that stay in the level whatever else is chosen."""
    return [t for t in problem.tensors if level.must_hold(problem.role(t)) or t in rule.keep]


def _need(
    level: Level, rule: LevelRule, problem: Problem, arch: Architecture, tiles: Mapping[str, int]
) -> dict[str, float]:
    """Words per tensor that is sure to stay, if dims that are not fixed shrink to 1."""
    from orchard.mapping.footprint import axis_footprint

    return {
        t: problem.words(t, arch.word_bits)
        * math.prod(axis_footprint(a, tuple(tiles.get(d, 1) for d in a.dims)) for a in problem.access(t))
        for t in _certain(level, rule, problem)
    }


def _over(level: Level, need: Mapping[str, float], problem: Problem) -> tuple[str, float, float] | None:
    """(tensors, words needed, words there) of the first space that is too small."""
    if level.is_partitioned:
        for tensor, words in need.items():
            have = level.words_for(problem.role(tensor)) or 0
            if words > have:
                return tensor, words, have
        return None
    have_all = level.words_for("I")
    total = sum(need.values())
    return (", ".join(need), total, have_all) if have_all is not None and total > have_all else None


def _refuse_capacity(level: Level, rule: LevelRule, problem: Problem, arch: Architecture) -> None:
    over = _over(level, _need(level, rule, problem, arch, rule.tiles), problem)
    if over is None or not rule.tiles:
        return
    tensors, need, have = over
    fixed = ", ".join(f"{d}={n}" for d, n in rule.tiles.items())
    largest = max(rule.tiles, key=lambda d: rule.tiles[d])
    fitting = [
        n for n in divisors(problem.sizes[largest])
        if _over(level, _need(level, rule, problem, arch, {**rule.tiles, largest: n}), problem) is None
    ]  # fmt: skip
    remedy = f"{largest}={fitting[-1]} would fit" if fitting else f"no {largest} fits while the others stay"
    raise ImpossibleSpace(
        f"constraint {level.name}: {fixed} needs {need:,.0f} words for {tensors}, {level.name} has {have:,.0f}; {remedy}"
    )


def _refuse_copies(fan: FanOut, rule: FanRule, problem: Problem) -> None:
    for dim, copies in rule.copies.items():
        room = 1
        for axis, size in fan.axes.items():
            allowed = rule.axes.get(axis, (dim,))
            machine = fan.dims.get(axis)
            if dim in allowed and (machine is None or dim in machine or problem.dim_class(dim) in machine):
                room *= size
        if copies > room:
            raise ImpossibleSpace(
                f"constraint {fan.name}: {copies} copies along {dim}, its axes have {room}; {dim}={room} would fit"
            )
    total = math.prod(rule.copies.values())
    if total > fan.copies:
        raise ImpossibleSpace(f"constraint {fan.name}: {total} copies in all, {fan.name} has {fan.copies}")


def _refuse_chain(dim: str, rules: Constraints, problem: Problem, arch: Architecture) -> None:
    """Fixed tiles and copies of one dim, from the inside out, must fit into one another."""
    inner, inner_at = 1, ""
    for node in reversed(arch.nodes):
        if isinstance(node, FanOut):
            copies = rules.fans.get(node.name, FanRule()).copies.get(dim, 1)
            inner, inner_at = inner * copies, node.name if copies > 1 else inner_at
            if inner > problem.sizes[dim]:
                raise ImpossibleSpace(
                    f"constraint {inner_at}: needs {dim} >= {inner}, {problem.name} has {problem.sizes[dim]}"
                )
            continue
        tile = rules.level(node.name).tiles.get(dim)
        if tile is None:
            continue
        if tile > problem.sizes[dim]:
            raise ImpossibleSpace(f"constraint {node.name}: {dim}={tile}, {problem.name} has only {problem.sizes[dim]}")
        if tile < inner or (tile % inner and tile != problem.sizes[dim]):
            fits = [n for n in divisors(problem.sizes[dim]) if n % inner == 0]
            raise ImpossibleSpace(
                f"constraint {node.name}: {dim}={tile} cannot hold the {inner} that {inner_at} fixes further in; "
                f"multiples of {inner} would fit: {', '.join(str(n) for n in fits[:6])}"
            )
        inner, inner_at = tile, node.name


def constrained_arch(arch: Architecture, rules: Constraints) -> Architecture:
    """The machine with its axes limited to the dims that the rules allow."""
    nodes: list[Level | FanOut] = []
    for node in arch.nodes:
        rule = rules.fans.get(node.name)
        if isinstance(node, Level) or rule is None:
            nodes.append(node)
            continue
        nodes.append(replace(node, dims={**node.dims, **rule.axes}))
    return replace(arch, nodes=tuple(nodes))


def refuse_tiles(
    rules: Constraints, dims: Sequence[str], tiles: Sequence[Iterable[int]], problem: Problem, factors: str
) -> None:
    """Refuse fixed tiles that are not among the candidates (`tiles[i]` of `dims[i]`), naming the nearest."""
    candidates = {dim: sorted(int(t) for t in some) for dim, some in zip(dims, tiles)}
    for name, rule in rules.levels.items():
        for dim, tile in rule.tiles.items():
            known = candidates.get(dim, [1])
            if tile not in known:
                below, above = [t for t in known if t < tile][-1:], [t for t in known if t > tile][:1]
                hint = " or --factors imperfect" if factors == "perfect" else ""
                raise ImpossibleSpace(
                    f"constraint {name}: {dim}={tile} is no candidate for {dim}={problem.sizes[dim]} with {factors} factors; "
                    f"{' and '.join(str(t) for t in (*below, *above))} would do{hint}"
                )


def _refuse_axes(fan: FanOut, rule: FanRule, problem: Problem) -> None:
    """Refuse dims on an axis that the machine does not let them use."""
    for axis, dims in rule.axes.items():
        machine = fan.dims.get(axis)
        for dim in dims:
            if machine is not None and dim not in machine and problem.dim_class(dim) not in machine:
                raise ImpossibleSpace(
                    f"constraint {fan.name}: axis {axis} does not take {dim}, it takes {', '.join(machine)}"
                )


# -- does a nest obey? -------------------------------------------------------------------------------------------------
def violation(nest: Nest, rules: Constraints, problem: Problem, arch: Architecture) -> str | None:
    """The first rule that the nest breaks, or None."""
    size = dict(problem.sizes)
    region = arch.levels[0].name
    seen: list[int] = []
    copies: dict[tuple[str, str], int] = {}
    marks: dict[str, list[str]] = {}
    for node in nest.nodes:
        if isinstance(node, Keep):
            rule = rules.level(node.level)
            for dim, tile in rule.tiles.items():
                if dim in problem.dims_of(node.tensor) and size[dim] != tile:
                    return f"{node.level}: {node.tensor} has {dim}={size[dim]}, not {tile}"
            if node.level != region:
                region, seen = node.level, []
            marks.setdefault(node.level, []).append(node.tensor)
            continue
        trips = -(-size[node.dim] // node.tile)
        size[node.dim] = node.tile
        if node.axis is not None:
            fan = arch.fan_out_of(node.axis)
            copies[fan.name, node.dim] = copies.get((fan.name, node.dim), 1) * trips
            allowed = rules.fans.get(fan.name, FanRule()).axes.get(node.axis)
            if allowed is not None and node.dim not in allowed and trips > 1:
                return f"{fan.name}: {node.dim} on axis {node.axis}"
        elif trips > 1:
            order = rules.level(region).order
            if node.dim in order:
                seen.append(order.index(node.dim))
                if seen != sorted(seen):
                    return f"{region}: loop over {node.dim} stands too far in"
    for name, fan_rule in rules.fans.items():
        for dim, wanted in fan_rule.copies.items():
            if copies.get((name, dim), 1) != wanted:
                return f"{name}: {copies.get((name, dim), 1)} copies along {dim}, not {wanted}"
    return _mark_violation(marks, rules)


def _mark_violation(marks: Mapping[str, list[str]], rules: Constraints) -> str | None:
    for name, rule in rules.levels.items():
        held = marks.get(name, [])
        if any(t in held for t in rule.bypass) or any(t not in held for t in rule.keep):
            return f"{name}: keeps {', '.join(held)}"
        if rule.stationary in held and held[0] != rule.stationary:
            return f"{name}: {held[0]} stands above {rule.stationary}"
        ordered = [t for t in rule.tensors if t in held]
        if ordered != [t for t in held if t in rule.tensors]:
            return f"{name}: marks in the order {', '.join(held)}"
    return None
