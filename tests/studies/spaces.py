"""Random small spaces that are hard on the mapper's proofs: strided and dilated windows, depthwise and grouped ops, broadcasts,
up to three memories and two fan-outs, bypass, tiny buffers, every port able to bind; and every nest of such a space."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from orchard.cost.mapped import check_capacity, estimate
from orchard.cost.nest import count
from orchard.hw.arch import Architecture, Compute, FanOut, Level
from orchard.ir import parse_einsum
from orchard.mapping import ImpossibleSpace, Keep, Loop, Nest, Problem
from orchard.studies.map import Objective, objective_value, patterns
from orchard.studies.nest_search import Pattern

EINSUMS = [
    ("m k, k n -> m n", [1, 2, 3, 4, 6]),
    ("b m k, b k n -> b m n", [1, 2, 3]),
    ("m k -> m", [2, 4, 6, 12]),
    ("m, n -> m n", [2, 4, 6]),
    ("m, n -> m", [2, 4]),
    ("k, k n -> n", [2, 4, 8]),
    ("(p+r), r -> p", [1, 2, 3, 4, 6, 8]),
    ("(p+r), k r -> k p", [2, 3, 4]),
    ("(p+2*r), r -> p", [2, 3, 4, 6]),
    ("(2*p+r), r -> p", [2, 3, 4, 6]),
    ("(3*p+2*r), r -> p", [2, 3, 4, 6]),
    ("(4*p+r), r -> p", [2, 3, 4, 6]),
    ("c (2*p+r), c r -> c p", [1, 2, 3]),
    ("c (p+r), k c r -> k p", [1, 2, 3]),
    ("g c (2*p+r), g k c r -> g k p", [1, 2]),
    ("(p+r) (q+s), r s -> p q", [1, 2, 3]),
]


def case(rng: random.Random) -> tuple[Problem, Architecture, Objective]:
    text, choices = rng.choice(EINSUMS)
    einsum = parse_einsum(text)
    sizes = {dim: rng.choice(choices) for dim in einsum.dims}
    problem = Problem("x", einsum, sizes, ("A", *("B" for _ in einsum.inputs[1:]), "O"))
    roles = "IWO" if len(einsum.inputs) > 1 else "IO"
    root = Level(name="D", read_energy_pj=rng.choice([20.0, 3.0]), write_energy_pj=rng.choice([30.0, 2.0]),
                 bandwidth=_rate(rng), read_bandwidth=_rate(rng))  # fmt: skip
    fan, outer = _fan(rng, "F", "X"), _fan(rng, "H", "U")
    glb, mid, rf = _level(rng, "G", roles, 0.8), _level(rng, "M", roles, 0.5), _level(rng, "R", roles, 0.3)
    nodes = rng.choice([
        (root, glb), (root, glb, fan), (root, fan, rf), (root, glb, rf), (root, glb, fan, rf), (root, glb, outer, fan),
        (root, outer, glb, fan), (root, outer, glb, fan, rf), (root, glb, mid, rf), (root, glb, fan, mid, rf),
    ])  # fmt: skip
    arch = Architecture(name="toy", nodes=nodes, compute=Compute(energy_pj=rng.choice([0.0, 1.0])))
    return problem, arch, rng.choice(["edp", "energy", "latency", "traffic"])


def _rate(rng: random.Random) -> float | None:
    return rng.choice([None, None, 0.5, 1, 2, 5])


def _fan(rng: random.Random, name: str, axis: str) -> FanOut:
    return FanOut(
        name=name, axes={axis: rng.choice([2, 3, 4])}, multicast=rng.random() < 0.8, reduce=rng.random() < 0.8
    )


def _level(rng: random.Random, name: str, roles: str, shared: float) -> Level:
    held = [r for r in roles if rng.random() < 0.6] or [rng.choice(roles)]
    may = frozenset(r for r in held if rng.random() < 0.15)
    capacity = rng.randint(len(held), 16) if rng.random() < shared else {r: rng.randint(1, 8) for r in held}
    return Level(
        name=name, capacity_words=capacity, keep=frozenset(held) - may, may_keep=may,
        read_energy_pj=rng.choice([0, 1, 5]), write_energy_pj=rng.choice([0, 1, 5, 20]),
        bandwidth=_rate(rng), write_bandwidth=_rate(rng), buffering=rng.choice(["overlap", "overlap", "single"]),
    )  # fmt: skip


def best_of_all(problem: Problem, arch: Architecture, objective: Objective, limit: int) -> tuple[float | None, int]:
    """Best value over every nest (None where none fits) and the nests tried; stops beyond `limit`."""
    best, tried = None, 0
    for pattern in patterns(problem, arch):
        for nodes in nests(problem, arch, pattern):
            tried += 1
            if tried > limit:
                return None, tried
            counts = count(Nest(nodes), problem, arch)
            try:
                check_capacity(counts, problem, arch)
            except ImpossibleSpace:
                continue
            value = objective_value(objective, estimate(counts, problem, arch), counts, arch, problem)
            best = value if best is None else min(best, value)
    return best, tried


Gap = tuple[bool]  # loops over any dims; (True,): down to single elements


def nests(problem: Problem, arch: Architecture, pattern: Pattern) -> Iterator[tuple[Loop | Keep, ...]]:
    """Marks of every level in every order, loops in every order anywhere between, also between fan-outs."""
    parts: list[list[list[Gap | Keep | str]]] = []
    for node in arch.nodes[1:]:
        if isinstance(node, FanOut):
            parts.append([[(False,), *node.axes, (False,)]])
            continue
        orders = itertools.permutations(pattern.held[node.name])
        parts.append([[x for t in order for x in ((False,), Keep(node.name, t))] + [(False,)] for order in orders])
    for choice in itertools.product(*parts):
        places: list[Gap | Keep | str] = []
        for place in (p for part in choice for p in part):
            if not (isinstance(place, tuple) and places and isinstance(places[-1], tuple)):
                places.append(place)
        if isinstance(places[-1], tuple):
            places.pop()
        yield from _filled(problem, arch, (*places, (True,)), dict(problem.sizes))


def _filled(
    problem: Problem, arch: Architecture, places: tuple[Gap | Keep | str, ...], tile: dict[str, int]
) -> Iterator[tuple[Loop | Keep, ...]]:
    if not places:
        yield ()
        return
    place, rest = places[0], places[1:]
    if isinstance(place, Keep):
        yield from ((place, *inner) for inner in _filled(problem, arch, rest, tile))
        return
    last = isinstance(place, tuple) and place[0]
    options = [[1] if last else [t for t in range(1, tile[d] + 1) if tile[d] % t == 0] for d in problem.dims]
    for tiles in itertools.product(*options):
        moved = [(d, t) for d, t in zip(problem.dims, tiles) if t != tile[d]]
        inner = tile | dict(moved)
        if isinstance(place, str):
            copies = 1
            for d, t in moved:
                copies *= tile[d] // t
            if copies > arch.fan_out_of(place).axes[place]:
                continue
            heads = [tuple(Loop(d, t, place) for d, t in moved)]
        else:
            heads = [tuple(Loop(d, t) for d, t in order) for order in itertools.permutations(moved)]
        yield from ((*head, *tail) for head in heads for tail in _filled(problem, arch, rest, inner))
