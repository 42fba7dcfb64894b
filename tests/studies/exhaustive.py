"""Every loop nest of a small space, scored one by one: the oracle for the mapper's claim of optimality."""

from __future__ import annotations

import itertools

from orchard.cost.mapped import check_capacity, estimate
from orchard.cost.nest import count
from orchard.hw.arch import Architecture, Compute, FanOut, Level
from orchard.ir import parse_einsum
from orchard.mapping import ImpossibleSpace, Keep, Loop, Nest, Problem
from orchard.studies.map import objective_value


def nests(problem, arch, near=frozenset()):
    """every nest: orders of marks per level region, perfect loops anywhere between marks, spatial splits. Tensors of
    `near` are in the outermost memory on the chip already."""
    dims = problem.dims
    first = arch.levels[1].name if len(arch.levels) > 1 else None

    def divs(n):
        return [d for d in range(1, n + 1) if n % d == 0]

    # segments: for each level: marks order with a gap (loops) before each mark and after last; fan-outs spatial
    def build(nodes, i, tile, acc):
        if i == len(nodes):
            yield from [acc] if all(v == 1 for v in tile.values()) else []
            return
        kind, arg = nodes[i]
        if kind == "keep":
            yield from build(nodes, i + 1, tile, (*acc, arg))
            return
        if kind == "gap":
            last = arg
            opts = [divs(tile[d]) if not last else [1] for d in dims]
            for combo in itertools.product(*opts):
                changed = [(d, t) for d, t in zip(dims, combo) if t != tile[d]]
                perms = itertools.permutations(changed)
                for perm in perms:
                    yield from build(nodes, i + 1, {**tile, **dict(changed)}, acc + tuple(Loop(d, t) for d, t in perm))
            return
        fan, axis = arg
        opts = [divs(tile[d]) for d in dims]
        for combo in itertools.product(*opts):
            n = 1
            for d, t in zip(dims, combo):
                n *= tile[d] // t
            if n <= fan.axes[axis]:
                changed = [(d, t) for d, t in zip(dims, combo) if t != tile[d]]
                yield from build(
                    nodes, i + 1, {**tile, **dict(changed)}, acc + tuple(Loop(d, t, axis) for d, t in changed)
                )

    per = []
    for n in arch.nodes[1:]:
        if isinstance(n, FanOut):
            per.append([[("gap", False), *(("spatial", (n, a)) for a in n.axes)]])
        else:
            held = [t for t in problem.tensors if n.must_hold(problem.role(t)) and not (n.name == first and t in near)]
            per.append(
                [
                    [x for t in o for x in (("gap", False), ("keep", Keep(n.name, t)))] + [("gap", False)]
                    for o in itertools.permutations(held)
                ]
            )
    for combo in itertools.product(*per):
        seq = [x for c in combo for x in c]
        # merge adjacent gaps
        out = []
        for x in seq:
            if x[0] == "gap" and out and out[-1][0] == "gap":
                continue
            out.append(x)
        if out and out[-1][0] == "gap":
            out[-1] = ("gap", True)
        else:
            out.append(("gap", True))
        yield from build(out, 0, dict(problem.sizes), ())


def brute(problem, arch, obj, limit):
    best = None
    n = 0
    for acc in nests(problem, arch):
        n += 1
        if n > limit:
            return None, n
        nest = Nest(acc)
        c = count(nest, problem, arch)
        try:
            check_capacity(c, problem, arch)
        except ImpossibleSpace:
            continue
        v = objective_value(obj, estimate(c, problem, arch), c, arch, problem)
        if best is None or v < best[0]:
            best = (v, nest)
    return best, n


CASES = [
    ("m k, k n -> m n", [1, 2, 4, 6]),
    ("(p+r), r -> p", [1, 2, 3, 4, 6]),
    ("c (p+r), k c r -> k p", [1, 2, 3]),
    ("m k -> m", [2, 4, 6, 8]),
    ("(2*p+r), r -> p", [2, 3, 4, 6]),
    ("b m k, b k n -> b m n", [1, 2, 3]),
]


def case(rng):
    text, sz = rng.choice(CASES)
    e = parse_einsum(text)
    sizes = {d: rng.choice(sz) for d in e.dims}
    p = Problem("x", e, sizes, (("A", "B") if len(e.inputs) > 1 else ("A",)) + ("O",))
    roles = ["I", "W", "O"] if len(e.inputs) > 1 else ["I", "O"]

    def bw():
        return rng.choice([None, rng.randint(1, 8)])

    glb = Level(
        name="G",
        capacity_words=rng.randint(4, 40),
        read_energy_pj=rng.randint(1, 9),
        write_energy_pj=rng.randint(1, 9),
        bandwidth=bw(),
        buffering=rng.choice(["overlap", "overlap", "single"]),
    )
    rf = Level(
        name="R",
        capacity_words={r: rng.randint(1, 6) for r in roles if rng.random() < 0.7} or {"O": 1},
        read_energy_pj=1.0,
        write_energy_pj=rng.randint(1, 2),
    )
    root = Level(name="D", read_energy_pj=20.0, write_energy_pj=30.0, bandwidth=bw(), read_bandwidth=bw())
    fan = FanOut(name="F", axes={"X": rng.choice([1, 2, 4])}, multicast=rng.random() < 0.85, reduce=rng.random() < 0.85)
    nodes = rng.choice([(root, glb, fan, rf), (root, glb, fan), (root, fan, rf), (root, glb)])
    return (
        p,
        Architecture(name="toy", nodes=nodes, compute=Compute(energy_pj=1.0)),
        rng.choice(["edp", "energy", "latency", "traffic"]),
    )
