"""Counts against the interpreter that executes the nest, to the integer, and canonical counts derived in the open."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.cost.nest import count
from orchard.hw.arch import Architecture, Compute, FanOut, Level
from orchard.ir import parse_einsum
from orchard.mapping.nest import Keep, Loop, Nest, nest_errors
from orchard.mapping.problem import Problem

sys.path.insert(0, str(Path(__file__).parent))
from interpreter import Machine

EINSUMS = [
    ("m k, k n -> m n", 4),
    ("b m k, b k n -> b m n", 3),
    ("c (p+r), k c r -> k p", 4),
    ("c (2*p+r), k c r -> k p", 4),
    ("(p+2*r) (q+s), r s -> p q", 3),
    ("c (3*p+2*r), c r -> c p", 4),
    ("m k -> m", 5),
]


def random_case(rng: random.Random):
    text, most = rng.choice(EINSUMS)
    einsum = parse_einsum(text)
    sizes = {d: rng.randint(1, most + (1 if len(einsum.dims) < 4 else 0)) for d in einsum.dims}
    names = ("A", "B", "Z")[: len(einsum.inputs)] if len(einsum.inputs) > 1 else ("A",)
    problem = Problem("case", einsum, sizes, (*names, "Out"))
    fan = FanOut(name="F", axes={"X": 64}, multicast=rng.random() < 0.8, reduce=rng.random() < 0.8)
    outer = FanOut(name="G", axes={"U": 64})
    levels = [
        Level(name="L0"),
        Level(name="L1", may_keep=frozenset("IWO")),
        Level(name="L2", may_keep=frozenset("IWO")),
    ]
    nodes = rng.choice(
        [
            (levels[0], levels[1], fan, levels[2]),
            (levels[0], outer, levels[1], fan, levels[2]),
            (levels[0], levels[1], levels[2], fan),
        ]
    )
    arch = Architecture(name="toy", nodes=nodes, compute=Compute())
    return problem, arch, random_nest(rng, problem, arch)


def random_nest(rng: random.Random, problem: Problem, arch: Architecture) -> Nest:
    tile = dict(problem.sizes)
    nodes: list[Loop | Keep] = []

    def loops(axis: str | None, limit: int) -> None:
        for _ in range(limit):
            dim = rng.choice(problem.dims)
            if tile[dim] > 1:
                tile[dim] = rng.randint(1, tile[dim])
                nodes.append(Loop(dim, tile[dim], axis))

    for node in arch.nodes:
        if isinstance(node, FanOut):
            loops(next(iter(node.axes)), rng.randint(0, 2))
            continue
        marks = [t for t in problem.tensors if node.name != "L0" and rng.random() < 0.75]
        rng.shuffle(marks)
        for tensor in marks:
            nodes.append(Keep(node.name, tensor))
            loops(None, rng.randint(0, 1))
        loops(None, rng.randint(0, 2))
    for dim in rng.sample(problem.dims, len(problem.dims)):
        if tile[dim] > 1:
            nodes.append(Loop(dim, 1))
    return Nest(tuple(nodes))


def check(problem: Problem, arch: Architecture, nest: Nest) -> None:
    nest_errors(nest, problem, arch)
    rng = random.Random(1)
    inputs = {}
    for tensor in problem.inputs:
        axes = []
        for axis in problem.access(tensor):
            ranges = [range(problem.sizes[d]) for d in axis.dims]
            axes.append({sum(c * v for (c, _), v in zip(axis.terms, vs)) for vs in itertools.product(*ranges)})
        inputs[tensor] = {e: rng.randint(-9, 9) for e in itertools.product(*axes)}
    machine = Machine(nest, problem, arch, inputs)
    machine.run()
    assert machine.buffers["L0", problem.output, ()] == reference(problem, inputs)
    counts = count(nest, problem, arch)
    assert counts.macs == machine.macs
    assert counts.steps == machine.steps
    for (level, tensor), traffic in counts.traffic.items():
        reads = [n for (lv, t, _), n in machine.reads.items() if (lv, t) == (level, tensor)]
        writes = [n for (lv, t, _), n in machine.writes.items() if (lv, t) == (level, tensor)]
        assert (traffic.reads, traffic.writes) == (sum(reads), sum(writes)), (level, tensor)
        if tensor != problem.output or all(f.reduce for f in arch.fan_outs):
            assert traffic.copy_reads == max(reads, default=0), (level, tensor)
            assert traffic.copy_writes == max(writes, default=0), (level, tensor)
        if level != "L0":
            assert counts.footprint[level, tensor] == machine.largest[level, tensor]


def reference(problem: Problem, inputs: dict) -> dict:
    result: dict = {}
    for point in itertools.product(*(range(problem.sizes[d]) for d in problem.dims)):
        at = dict(zip(problem.dims, point))

        def element(tensor: str, at: dict = at) -> tuple:
            return tuple(sum(c * at[d] for c, d in axis.terms) for axis in problem.access(tensor))

        product = 1
        for tensor in problem.inputs:
            product *= inputs[tensor][element(tensor)]
        result[element(problem.output)] = result.get(element(problem.output), 0) + product
    return result


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**40))
def test_counts_equal_the_execution(seed: int) -> None:
    check(*random_case(random.Random(seed)))
