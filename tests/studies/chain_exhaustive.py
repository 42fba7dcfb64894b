"""Every fused mapping of a tiny chain, scored one by one with the closed-form counts: the oracle for the claim of optimality.

For each op on a given tile every nest is counted; nests that another beats in everything a mapping can feel (energy, steps, port
words, room in the fusion level) are left out before the product over ops is taken. Nothing else is left out."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

from orchard.cost.chain import count_group, estimate_group
from orchard.cost.nest import count
from orchard.hw.arch import Architecture, Compute, FanOut, Level, VectorUnit
from orchard.mapping import Problem
from orchard.mapping.chain_text import parse_chain
from orchard.mapping.fused import FusedMapping, Group, Shape, SharedLoop, internal, keepable, outside, shared_dims

sys.path.insert(0, str(Path(__file__).parent))
from exhaustive import nests

TEXTS = [
    "S[m,p] = Q[m,e] * K[p,e]; P[m,p] = softmax[p](S[m,p]); O[m,f] = P[m,p] * V[p,f]",
    "U[m,f] = X[m,d] * W[d,f]; Y[m,n] = U[m,f] * Z[f,n]",
    "U[m,f] = X[m,d] * W[d,f]; H[m,f] = relu(U[m,f]); Y[m,n] = H[m,f] * Z[f,n]",
    "U[m,f] = X[m,f] * W[m,f]; H[m,f] = relu(U[m,f])",
    "A[m] = X[m,d] * W[d]; B[m,n] = A[m] * Z[n]; C[n] = B[m,n] * D[m]",
    "A[m] = X[m,d] * W[m,d]; B[m] = relu(A[m])",
    "A[y] = I[y] * V[y]; B[p] = A[p+r] * W[r]",
    "A[y] = I[y+s] * V[s]; B[p] = A[p+r] * W[r]",
    "A[y] = I[y] * V[y]; H[y] = relu(A[y]); B[p] = H[2*p+r] * W[r]",
    "A[c,y] = I[y] * V[c]; B[p] = A[c,p+r] * W[c,r]",
    "A[y] = I[y] * V[y]; B[z] = A[z+r] * U[r]; C[p] = B[p+s] * W[s]",
    "A[y] = I[y] * V[y]; B[z] = A[2*z] * U[z]; C[p] = B[p+s] * W[s]",
    "A[y,x] = I[y,x] * V[y]; B[p,q] = A[p+r,q+s] * W[r,s]",
]


class TooMany(Exception):  # noqa: N818 - a signal
    """More than the test has time for."""


def subsets(items):
    return [frozenset(c) for n in range(len(items) + 1) for c in itertools.combinations(items, n)]


def pareto(rows):
    """Rows (energy, cycles, traffic, …) that no other equals or beats in all three."""
    kept = []
    for row in sorted(rows, key=lambda r: r[:3]):
        if not any(all(a <= b for a, b in zip(old[:3], row[:3])) for old in kept):
            kept.append(row)
    return kept


class Brute:
    def __init__(self, chain, arch, objective, limit):
        self.chain, self.arch, self.objective, self.left = chain, arch, objective, limit
        self.memo, self.done = {}, {}
        self.best = None
        self.tried = 0

    def divisors(self, n):
        return [d for d in range(1, n + 1) if n % d == 0]

    def run(self):
        n = len(self.chain.ops)
        for k in range(n):
            for ends in itertools.combinations(range(1, n), k):
                edges = (0, *ends, n)
                spans = [(a, b - 1) for a, b in zip(edges, edges[1:])]
                crossing = [t for t in self.chain.intermediates if not any(t in internal(self.chain, a, b) for a, b in spans)]
                for bits in itertools.product((True, False), repeat=len(crossing)):
                    self.cut(spans, frozenset(t for t, on in zip(crossing, bits) if on))
        return self.best, self.tried

    def cut(self, spans, whole):
        """Costs of groups add up, so every group is scored once; of its ways those stay that may be part of a best sum."""
        sums = [(0.0, 0.0, 0.0, ())]
        for first, last in spans:
            ways = self.scored(first, last, whole)
            sums = pareto([(e + we, c + wc, t + wt, (*path, g)) for e, c, t, path in sums for we, wc, wt, g in ways])
        for energy, cycles, traffic, groups in sums:
            value = {"edp": energy * cycles, "energy": energy, "latency": cycles, "traffic": traffic}[self.objective]
            if self.best is None or value < self.best[0]:
                self.best = (value, FusedMapping(groups, self.arch.levels[1].name, whole))

    def scored(self, first, last, whole):
        key = (first, last, frozenset(t for t in whole if self.chain.writers[t] <= last and self.chain.readers[t][-1] >= first))
        if key not in self.done:
            found, level = [], self.arch.levels[1]
            for group in self.groups(first, last, whole):
                self.tried += 1
                self.left -= 1
                if self.left < 0:
                    raise TooMany
                mapping = FusedMapping((group,), level.name, whole)
                counts = count_group(self.chain, self.arch, mapping, group)
                if level.words_for("I") is not None and max(counts.held_words.values()) > level.words_for("I"):
                    continue
                cost = estimate_group(counts, self.chain, self.arch)
                root = self.arch.levels[0].name
                traffic = sum(t.reads + t.writes for (name, _), t in counts.traffic.items() if name == root)
                found.append((cost.energy_pj, cost.latency_cycles, traffic, group))
            self.done[key] = pareto(found)
        return self.done[key]

    def groups(self, first, last, whole):
        alone = first == last and isinstance(self.chain.ops[first], Problem)
        dims = () if alone else shared_dims(self.chain, first, last)
        free = [t for t in outside(self.chain, first, last) if t not in whole]
        for tiles in itertools.product(*(self.divisors(self.chain.sizes[d]) for d in dims)):
            walked = [SharedLoop(d, t) for d, t in zip(dims, tiles) if t < self.chain.sizes[d]]
            pairs = keepable(self.chain, first, last)
            for loops, kept in itertools.product(itertools.permutations(walked), subsets(pairs)):
                for depths in itertools.product((None, *range(len(loops) + 1)), repeat=len(free)):
                    pins = {t: d for t, d in zip(free, depths) if d is not None}
                    near = internal(self.chain, first, last) | whole | pins.keys()
                    shape = Shape(self.chain, first, last, loops, kept)
                    at = [(i, phase) for i in range(first, last + 1) if isinstance(self.chain.ops[i], Problem)
                          for phase in shape.variants(i)]  # fmt: skip
                    options = [self.ways(*part, shape, frozenset(near)) for part in at]
                    for picked in itertools.product(*options):
                        nests = dict(zip(at, picked))
                        yield Group(first, last, loops, pins, {i: n for (i, p), n in nests.items() if not p}, kept,
                                    {part: n for part, n in nests.items() if part[1]})  # fmt: skip

    def ways(self, i, phase, shape, near):
        """Nests of op `i` on its tile that no other beats in everything."""
        op = self.chain.ops[i]
        again, total = shape.partial_runs(i), shape.variants(i)[phase]
        first = total // again
        near = near & set(op.tensors)
        key = (i, tuple(shape.sizes(i, phase).items()), near, first, total)
        if key not in self.memo:
            tile = Problem(op.name, op.einsum, shape.sizes(i, phase), op.tensors)
            roots = dict.fromkeys(near, self.arch.levels[1].name)
            kept = []
            for nodes in nests(tile, self.arch, near):
                self.left -= 1
                if self.left < 0:
                    raise TooMany
                self.consider(kept, nodes, tile, roots, first, total - first)
            self.memo[key] = [nest for _, nest in kept]
        return self.memo[key]

    def consider(self, kept, nodes, tile, roots, first, rest):
        from orchard.mapping import Nest

        nest = Nest(nodes)
        counts = count(nest, tile, self.arch, roots=roots)
        again = count(nest, tile, self.arch, roots=roots, resumed=True)
        energy, ports = 0.0, []
        for level in self.arch.levels:
            r = w = 0
            for t in tile.tensors:
                for times, c in ((first, counts), (rest, again)):
                    x = c.traffic.get((level.name, t))
                    if x is not None:
                        energy += times * (x.reads * level.read_energy_pj + x.writes * level.write_energy_pj)
                        r, w = r + times * x.copy_reads, w + times * x.copy_writes
            ports += [r, w]
            for t in tile.tensors:
                have = level.words_for(tile.role(t)) if level.is_partitioned else None
                if have is not None and counts.footprint.get((level.name, t), 0) > have:
                    return
        room = sum(counts.footprint.get((self.arch.levels[1].name, t), 0) for t in tile.tensors if t not in roots)
        row = (energy, counts.steps, room, *ports)
        if any(all(a <= b for a, b in zip(old, row)) for old, _ in kept):
            return
        kept[:] = [(old, n) for old, n in kept if not all(a <= b for a, b in zip(row, old))]
        kept.append((row, nest))


def chain_case(rng):
    text = rng.choice(TEXTS)
    dims = sorted({d for d in "mpefdncrsq" if re.search(rf"\b{d}\b", text)})
    chain = parse_chain(text, {d: rng.choice([1, 2, 2, 3, 4] if len(dims) < 4 else [1, 1, 2, 2, 2, 3]) for d in dims})

    def bw():
        return rng.choice([None, None, rng.randint(1, 8)])

    root = Level(name="D", read_energy_pj=20.0, write_energy_pj=30.0, bandwidth=bw(), read_bandwidth=bw())
    glb = Level(name="G", capacity_words=rng.randint(3, 30), read_energy_pj=rng.randint(1, 9),
                write_energy_pj=rng.randint(1, 9), bandwidth=bw(),
                buffering=rng.choice(["overlap", "overlap", "single"]))  # fmt: skip
    rf = Level(name="R", capacity_words={r: rng.randint(1, 4) for r in "IWO" if rng.random() < 0.5} or {"O": 1},
               read_energy_pj=1.0, write_energy_pj=rng.randint(1, 2))  # fmt: skip
    fan = FanOut(name="F", axes={"X": rng.choice([1, 2])}, multicast=rng.random() < 0.85, reduce=rng.random() < 0.85)
    nodes = rng.choice([(root, glb, fan, rf), (root, glb, fan), (root, glb, fan), (root, glb), (root, glb)])
    vector = VectorUnit(lanes=rng.randint(1, 4), energy_pj=rng.randint(0, 3), beside="G", overlap=rng.random() < 0.5)
    arch = Architecture(name="toy", nodes=nodes, compute=Compute(energy_pj=1.0), vector=vector)
    return chain, arch, rng.choice(["edp", "energy", "latency", "traffic"])


def sliding_case(rng):
    """Windows on a machine whose buffer holds a few rows, where keeping, computing again and sharing all have their price."""
    text = rng.choice([t for t in TEXTS if "p+r" in t and "c" not in t and "q" not in t and "2*z" not in t])
    dims = sorted(d for d in "prs" if re.search(rf"\b{d}\b", text))
    chain = parse_chain(text, {d: rng.choice([4, 6] if d == "p" else [2, 3]) for d in dims})
    root = Level(name="D", read_energy_pj=20.0, write_energy_pj=30.0, bandwidth=rng.choice([None, 2]))
    glb = Level(name="G", capacity_words=rng.randint(4, 12), read_energy_pj=rng.randint(1, 3), write_energy_pj=2)
    compute = Compute(energy_pj=rng.choice([1.0, 30.0]))
    vector = VectorUnit(lanes=rng.randint(1, 4), energy_pj=rng.choice([1, 30]), beside="G", overlap=rng.random() < 0.5)
    arch = Architecture(name="toy", nodes=(root, glb), compute=compute, vector=vector)
    return chain, arch, rng.choice(["edp", "energy", "latency"])


def brute_chain(chain, arch, objective, limit):
    """(best value and mapping or None, mappings tried), or TooMany."""
    return Brute(chain, arch, objective, limit).run()
