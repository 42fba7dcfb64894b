"""Counts of fused mappings against the interpreter that executes them, to the integer; results against plain evaluation."""

from __future__ import annotations

import itertools
import math
import random
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.cost.chain import count_group
from orchard.hw.arch import Architecture, Compute, FanOut, Level, VectorUnit
from orchard.mapping import Keep, Loop, Nest, Problem
from orchard.mapping.chain import VectorOp
from orchard.mapping.chain_text import parse_chain
from orchard.mapping.fused import FusedMapping, Group, Shape, SharedLoop, internal, keepable, outside, shared_dims

sys.path.insert(0, str(Path(__file__).parent))
from chain_interpreter import ChainMachine, box

TEXTS = [
    "S[m,p] = Q[m,e] * K[p,e]; P[m,p] = softmax[p](S[m,p]); O[m,f] = P[m,p] * V[p,f]",
    "S[h,m,p] = Q[h,m,e] * K[p,e]; P[h,m,p] = softmax[p](S[h,m,p]); O[h,m,f] = P[h,m,p] * V[p,f]",
    "U[m,f] = X[m,d] * W[d,f]; H[m,f] = relu(U[m,f]); Y[m,n] = H[m,f] * Z[f,n]",
    "G[m,f] = X[m,d] * W[d,f]; U[m,f] = X[m,d] * Z[d,f]; H[m,f] = mul(G[m,f], U[m,f]); Y[m,n] = H[m,f] * D[f,n]",
    "A[m,f] = X[m,d] * W[d,f]; B[m,n] = A[m,f] * Z[f,n]; C[m,g] = B[m,n] * V[n,g]",
    "A[m,f] = X[m,d] * W[d,f]; B[m,f] = add(A[m,f], R[m,f])",
    "B[m,f] = relu(A[m,f])",
    "A[k,y] = I[c,y+r] * V[k,c,r]; B[n,p] = A[k,p+s] * W[n,k,s]",
    "A[k,y] = I[k,y+r] * V[k,r]; B[k,p] = A[k,2*p+s] * W[k,s]; C[n,p] = B[k,p] * Z[n,k]",
    "A[k,y] = I[k,y] * V[k]; H[k,y] = relu(A[k,y]); B[n,p] = H[k,p+2*s] * W[n,k,s]",
    "A[y] = I[y] * V[y]; B[z] = A[z+r] * U[r]; C[p] = B[p+s] * W[s]",
    "A[y,x] = I[y,x] * V[y]; B[p,q] = A[p+r,q+s] * W[r,s]",
    "A[y] = I[2*y+t] * V[t]; B[p] = A[3*p+r] * U[r]; C[p,n] = B[p] * W[n]",
]


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def random_chain(rng):
    text = rng.choice(TEXTS)
    dims = sorted({d for d in "hmpefdngkcrstq" if re.search(rf"\b{d}\b", text)})
    return parse_chain(text, {d: rng.choice([1, 2, 3, 4]) for d in dims})


def random_arch(rng):
    fan = FanOut(name="F", axes={"X": 64}, multicast=rng.random() < 0.8, reduce=rng.random() < 0.8)
    inner = Level(name="L2", may_keep=frozenset(("I", "W", "O")))
    nodes = rng.choice([(Level(name="L0"), Level(name="L1"), fan, inner), (Level(name="L0"), Level(name="L1"), fan)])
    vector = VectorUnit(lanes=2, energy_pj=1.0, beside="L1", overlap=rng.random() < 0.5)
    return Architecture(name="toy", nodes=nodes, compute=Compute(), vector=vector)


def random_nest(rng, problem, arch, near):
    tile, nodes = dict(problem.sizes), []

    def loops(axis, limit):
        for _ in range(limit):
            dim = rng.choice(problem.dims)
            if tile[dim] > 1:
                tile[dim] = rng.choice(divisors(tile[dim]))
                nodes.append(Loop(dim, tile[dim], axis))

    for node in arch.nodes[1:]:
        if isinstance(node, FanOut):
            loops("X", rng.randint(0, 2))
            continue
        marks = [t for t in problem.tensors if (t not in near if node.name == "L1" else rng.random() < 0.7)]
        rng.shuffle(marks)
        for tensor in marks:
            loops(None, rng.randint(0, 1))
            nodes.append(Keep(node.name, tensor))
        loops(None, rng.randint(0, 2))
    for dim in rng.sample(problem.dims, len(problem.dims)):
        if tile[dim] > 1:
            nodes.append(Loop(dim, 1))
    return Nest(tuple(nodes))


def random_mapping(rng, chain, arch):
    ends = [0, *(i for i in range(1, len(chain.ops)) if rng.random() < 0.3), len(chain.ops)]
    spans = [(a, b - 1) for a, b in zip(ends, ends[1:])]
    crossing = [t for t in chain.intermediates if not any(t in internal(chain, a, b) for a, b in spans)]
    whole = frozenset(t for t in crossing if rng.random() < 0.5)
    groups = []
    for first, last in spans:
        dims = [d for d in shared_dims(chain, first, last) if rng.random() < 0.8]
        rng.shuffle(dims)
        loops = tuple(SharedLoop(d, rng.choice(divisors(chain.sizes[d]))) for d in dims)
        kept = frozenset(pair for pair in keepable(chain, first, last) if rng.random() < 0.5)
        pins = {t: rng.randint(0, len(loops)) for t in outside(chain, first, last) if t not in whole and rng.random() < 0.5}
        shape, nests, later = Shape(chain, first, last, loops, kept), {}, {}
        for i in range(first, last + 1):
            op = chain.ops[i]
            if isinstance(op, Problem):
                near = {t for t in op.tensors if t in pins or t in whole or t in internal(chain, first, last)}
                for phase in shape.variants(i):
                    tile = Problem(op.name, op.einsum, shape.sizes(i, phase), op.tensors)
                    nest = random_nest(rng, tile, arch, near)
                    nests, later = (nests, later | {(i, phase): nest}) if phase else (nests | {i: nest}, later)
        groups.append(Group(first, last, loops, pins, nests, kept, later))
    return FusedMapping(tuple(groups), "L1", whole)


def evaluate(chain, inputs):
    """Every tensor of the chain, in the open."""
    values = dict(inputs)
    for op in chain.ops:
        ranges = {d: (0, chain.sizes[d]) for d in op.dims}
        out = {}
        if isinstance(op, VectorOp):
            dims = [a.dims[0] for a in op.accesses[-1]]
            for e in box(op.access(op.output), ranges):
                args = [values[t][e] for t in op.inputs]
                out[e] = {"relu": max(args[0], 0), "add": sum(args), "mul": math.prod(args), "softmax": args[0]}[op.kind]
            if op.kind == "softmax":
                at = dims.index(op.over)
                total, high = {}, {}
                for e, x in out.items():
                    row = e[:at] + e[at + 1 :]
                    high[row] = max(high.get(row, -math.inf), x)
                for e, x in out.items():
                    row = e[:at] + e[at + 1 :]
                    total[row] = total.get(row, 0.0) + math.exp(x - high[row])
                out = {e: math.exp(x - high[e[:at] + e[at + 1 :]]) / total[e[:at] + e[at + 1 :]] for e, x in out.items()}
        else:
            for point in itertools.product(*(range(chain.sizes[d]) for d in op.dims)):
                at = dict(zip(op.dims, point))
                product = 1
                for t in op.inputs:
                    product *= values[t][tuple(sum(c * at[d] for c, d in axis.terms) for axis in op.access(t))]
                e = tuple(at[a.dims[0]] for a in op.access(op.output))
                out[e] = out.get(e, 0) + product
        values[op.output] = out
    return values


def check(seed: int) -> None:
    rng = random.Random(seed)
    chain, arch = random_chain(rng), random_arch(rng)
    mapping = random_mapping(rng, chain, arch)
    inputs = {}
    for t in chain.tensors:
        if t not in chain.writers:
            op = next(op for op in chain.ops if t in op.tensors)
            elements = box(op.access(t), {d: (0, chain.sizes[d]) for d in op.dims})
            inputs[t] = {e: rng.randint(-2, 2) for e in elements}
    machine = ChainMachine(chain, arch, mapping, inputs)
    machine.run()
    final = [t for t in chain.writers if t not in chain.intermediates]
    expected = evaluate(chain, inputs)
    for t in final:
        assert machine.values[t].keys() == expected[t].keys()
        for e, value in expected[t].items():
            assert machine.values[t][e] == pytest.approx(value, rel=1e-9, abs=1e-9), (t, e)
    reads, writes, ops = {}, {}, 0
    for number, group in enumerate(mapping.groups):
        counts = count_group(chain, arch, mapping, group)
        ops += counts.vector_ops
        for key, traffic in counts.traffic.items():
            reads[key] = reads.get(key, 0) + traffic.reads
            writes[key] = writes.get(key, 0) + traffic.writes
        for i in group.ops:
            if group.kept:
                assert counts.held_words[i] >= machine.fullest[number, i], chain.output(i)
            else:
                assert counts.held_words[i] == machine.fullest[number, i], chain.output(i)
            assert counts.held_words[i] >= machine.waiting[number, i], chain.output(i)
            assert counts.steps.get(i, 0) == machine.steps[i]
            assert counts.macs.get(i, 0) == machine.macs[i]
    assert ops == machine.vector_ops
    for key in {*reads, *machine.reads, *machine.writes}:
        assert (reads.get(key, 0), writes.get(key, 0)) == (machine.reads[key], machine.writes[key]), key


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**40))
def test_counts_equal_the_execution(seed: int) -> None:
    check(seed)
