"""The best way to run a chain of ops on a machine: what is fused, at which level, with which tiles, and how far the proof goes.

The space: the chain is cut into groups of neighbouring ops. An intermediate inside a group stays in the fusion level, the
outermost memory on the chip; one between groups goes through the outermost memory or stays on the chip entire. Inside a group:
shared loops over any of the dims that may be shared, each once, with tiles that divide the dim, in any order; every external
tensor pinned at any depth or loaded by its ops; below, every nest that the single-op mapper knows (perfect tiles). Unfused is
the cut into single ops.

How the best one is found:

* Every op's least energy (all its tensors on the chip) and least cycles (all lanes) give a bound for the chain.
* One front per op serves all groups and shared tiles (`orchard.studies.fuse_fronts`); groups are joined from the fronts
  (`orchard.studies.fuse_groups`), cuts from the groups' fronts of (energy, cycles).
* A limit prunes everywhere: a partial answer whose energy and cycles, with the least of all that is not decided, score no less
  than the limit can be dropped. The limit starts close above the bound and is raised until an answer lies below it. That
  answer is then the best: what was dropped scores at least the limit.
* Time at memory ports is left out at first, which can only make answers look better. If the answer costs the same with it, it
  is the best with it; otherwise a second pass counts it throughout.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain as flatten
from itertools import combinations
from math import prod

from orchard.cost.chain import ChainEstimate, core_cycles, estimate_chain, ops_per_element, reaches, vector_unit
from orchard.hw.arch import Architecture, FanOut, Level
from orchard.mapping.chain import Chain, VectorOp, extent
from orchard.mapping.errors import ImpossibleSpace, MappingError
from orchard.mapping.fused import FusedMapping, Group, Shape
from orchard.mapping.halo import least_elements
from orchard.mapping.nest import refuse
from orchard.mapping.problem import Problem
from orchard.search.layered import Slot
from orchard.studies.fuse_fronts import OpFronts, OpModel, Rest, op_fronts, op_spaces, tile_options, together
from orchard.studies.fuse_groups import Floor, GroupSearch, Point, Prices
from orchard.studies.map import OBJECTIVES, map_op, patterns
from orchard.studies.nest_search import Objective, Pattern

MOST_OPS = 8
_BEAM = 100
_WIDER = (300, 1000, 3000)
_SOON = 2  # ops of a group that is tried first
_NEAR = 1.06  # an answer so close to the floor is proven soon
_LADDER = (1.01, 1.04, 1.15, 1.5, 3.0, float("inf"))
_ROUNDING = 1e-9


class _OutOfTime(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside a search whose time is up; never leaves this module."""


@dataclass(frozen=True)
class MappedChain:
    """The best mapping found, what it costs, and how far the proof goes. `unfused` is the best cut into single ops that was
    found, by the same objective (None where even that does not fit)."""

    chain: Chain
    arch: Architecture
    objective: Objective
    mapping: FusedMapping
    estimate: ChainEstimate
    value: float
    unfused: float | None
    optimal: bool
    bound: float
    mappings_considered: int
    search_s: float

    @property
    def fused(self) -> tuple[str, ...]:
        """Intermediates that never leave the chip."""
        inside = [t for t in self.chain.intermediates if self._group_of(t) is not None]
        return tuple(t for t in self.chain.intermediates if t in inside or t in self.mapping.whole)

    def _group_of(self, tensor: str) -> Group | None:
        for group in self.mapping.groups:
            if self.chain.writers[tensor] in group.ops and self.chain.readers[tensor][-1] in group.ops:
                return group
        return None


def fusion_level(arch: Architecture) -> Level | None:
    """The outermost memory on the chip, if intermediates can stay there: one buffer (no copies) that all tensors share."""
    node = arch.nodes[1] if len(arch.nodes) > 1 else None
    if not isinstance(node, Level) or node.is_partitioned or not node.may_hold("O") or not node.may_hold("I"):
        return None
    return node


def check_vector(chain: Chain, arch: Architecture) -> None:
    """Raise MappingError where elementwise work cannot run or be counted."""
    for op in chain.ops:
        if isinstance(op, VectorOp):
            ops_per_element(chain, arch, op.kind)
            inner = [n.name for n in arch.nodes[: _position(arch, vector_unit(chain, arch, op.kind).beside)]]
            above = [n for n in arch.nodes if isinstance(n, FanOut) and n.name in inner]
            if above:
                raise MappingError(
                    f"{chain.name}: the vector unit stands below fan-out {above[0].name}, which chains do not support"
                )


def _position(arch: Architecture, name: str) -> int:
    return [node.name for node in arch.nodes].index(name)


def map_chain(
    chain: Chain,
    arch: Architecture,
    objective: Objective = "edp",
    *,
    time_limit_s: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> MappedChain:
    """Best mapping of `chain` on `arch`. Raises ImpossibleSpace where nothing fits, MappingError for what cannot be counted."""
    if objective not in OBJECTIVES:
        raise MappingError(f"objective is {objective!r}, expected one of {', '.join(OBJECTIVES)}")
    if len(chain.ops) > MOST_OPS:
        raise MappingError(f"{chain.name} has {len(chain.ops)} ops, at most {MOST_OPS} are mapped together; cut it in two")
    check_vector(chain, arch)
    started = time.perf_counter()
    if fusion_level(arch) is None:
        return _without_fusion(chain, arch, objective, started, time_limit_s, say)
    return _Search(chain, arch, objective, started, time_limit_s, say).run()


@dataclass(frozen=True)
class Cut:
    """Groups as (first, last), intermediates between them that stay on the chip entire, and what it all costs at least."""

    groups: tuple[tuple[int, int], ...]
    whole: frozenset[str]
    floor: float


class _Search:
    """Fronts, limits and the best answer so far."""

    def __init__(
        self, chain: Chain, arch: Architecture, objective: Objective, started: float, time_limit_s: float | None,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.chain, self.arch, self.objective, self.say, self.started = chain, arch, objective, say, started
        level = fusion_level(arch)
        assert level is not None
        self.level, self.root = level, arch.levels[0]
        self.deadline = None if time_limit_s is None else started + time_limit_s
        self.einsums = [i for i, op in enumerate(chain.ops) if isinstance(op, Problem)]
        lanes = tuple(sorted({size for fan in arch.fan_outs for size in fan.axes.values()}))
        self.options, self.all_tiles = tile_options(chain)
        self.spaces = op_spaces(chain, self.options, lanes)
        self.considered = 0
        self.models: dict[int, OpModel] = {}
        self.best: tuple[float, FusedMapping] | None = None

    def _problem(self, index: int) -> Problem:
        op = self.chain.ops[index]
        assert isinstance(op, Problem)
        return op

    # -- least of everything -----------------------------------------------------------------------------------------------
    def run(self) -> MappedChain:
        prices = self._prices(compare_time=True)
        loose = {i: self._beam(i, _BEAM) for i in self.einsums}
        self.least = {i: loose[i].model.energy_floor() for i in self.einsums}
        self.cycles = {i: m.problem.macs * m.part / m.most_lanes[0] / m.mac_rate
                       for i, m in ((i, loose[i].model) for i in self.einsums)}  # fmt: skip
        self.vector = self._vector_least(prices)
        self.moved = self._external_least(prices)
        self.cuts = self._cuts(prices)
        self.bound = simple = self._score_floor(prices)
        unfused = self._unfused(loose, prices)
        proven = False
        try:
            if self.best is None:  # an answer soon, before long groups are tried
                pairs = [cut for cut in self.cuts if all(last - first < _SOON for first, last in cut.groups)]
                self._take(self._best_cut(pairs, loose, prices, self._worst()), loose)
            self._take(self._best_cut(self.cuts, loose, prices, self._worst()), loose)
            for i in self.einsums:
                self.least[i] = max(self.least[i], self._least_energy(i, loose[i]))
            self.cuts = self._cuts(prices)
            self.bound = self._score_floor(prices)
            self._improve(prices)
            proven = self._prove()
        except _OutOfTime:
            pass
        bound = min(self.bound if self.all_tiles else simple, self._worst())
        if self.best is None:
            raise self._refusal()
        value, mapping = self.best
        cost = estimate_chain(mapping, self.chain, self.arch)
        true = self._value(cost)
        assert abs(true - value) <= 1e-6 * abs(value), (true, value)
        proven = proven and self.all_tiles
        bound = true if proven else min(bound, true)
        unfused = None if unfused is None else max(unfused, true)
        return MappedChain(
            self.chain, self.arch, self.objective, mapping, cost, true, unfused, proven, bound, self.considered,
            time.perf_counter() - self.started,
        )  # fmt: skip

    def _prices(self, compare_time: bool) -> Prices:
        limits: list[tuple[Level, str, float]] = []
        for level in self.arch.levels:
            ports = (("both", level.bandwidth), ("read", level.read_bandwidth), ("write", level.write_bandwidth))
            limits += [(level, kind, rate) for kind, rate in ports if rate is not None]
        return Prices(self.arch, self.objective, tuple(limits), compare_time)

    def _patterns(self, index: int) -> list[Pattern]:
        """Which tensors the inner levels hold; all pass the fusion level."""
        held = self._problem(index).tensors
        return [p for p in patterns(self._problem(index), self.arch) if set(p.held[self.level.name]) == set(held)]

    def _search_op(
        self, index: int, objective: Objective, rest: Rest, limit: float, *, compare_time: bool, beam: int | None = None
    ) -> OpFronts:
        """Rows of one op over all patterns."""
        parts = []
        for pattern in self._patterns(index):
            space = self.spaces[index]
            model = OpModel(space.problem, self.arch, space.lattice, pattern, objective, rest,
                            compare_time=compare_time, part=space.part, like=self.models.get(index))  # fmt: skip
            self.models.setdefault(index, model)
            parts.append(op_fronts(model, limit=limit, beam=beam, progress=self._watch))
        found = together(parts)
        self.considered += found.considered
        return found

    def _improve(self, prices: Prices) -> None:
        """Better answers from wider beams, while the best is far from the floor: what it costs to prove grows steeply with that
        distance, and a limit on time should find a good answer."""
        for width in _WIDER:
            if self._worst() <= self.bound * _NEAR:
                return
            self.say(f"looking for better ways to run {self.chain.name}: {width} partial answers at a time")
            wide = {i: self._beam(i, width) for i in self.einsums}
            self._take(self._best_cut(self.cuts, wide, prices, self._worst() * (1 - _ROUNDING)), wide)

    def _beam(self, index: int, width: int) -> OpFronts:
        """Good rows soon."""
        objective: Objective = "energy" if self.objective == "edp" else self.objective
        timed = self.objective != "energy"
        return self._search_op(index, objective, Rest(), float("inf"), compare_time=timed, beam=width)

    def _least_energy(self, index: int, loose: OpFronts) -> float:
        """Exact: the op with all its tensors on the chip already. The better it is known, the less is left to prove."""
        objective: Objective = "traffic" if self.objective == "traffic" else "energy"
        known = loose.least_energy
        for width in _WIDER if any(loose.model.flow_words.windows.values()) else ():
            limit = known * self.spaces[index].part
            known = min(known, self._search_op(index, objective, Rest(), limit, compare_time=False, beam=width).least_energy)
        limit = known * self.spaces[index].part
        known = min(known, self._search_op(index, objective, Rest(), limit, compare_time=False).least_energy)
        return known * self.spaces[index].part

    def _group(self, first: int, last: int, whole: frozenset[str], fronts: dict[int, OpFronts], prices: Prices) -> GroupSearch:
        ops = range(first, last + 1)
        return GroupSearch(self.chain, self.arch, first, last, whole, fronts, prices, self._floor_beside(ops),
                           self.options, self._check_time)  # fmt: skip

    def _floor_beside(self, ops: range) -> Floor:
        """Least energy and cycles of everything but these ops."""
        inside = {t for i in ops for t in self.chain.ops[i].tensors}
        energy = sum(e for i, e in self.least.items() if i not in ops)
        energy += sum(e for i, (e, _) in self.vector.items() if i not in ops)
        energy += sum(e for t, e in self.moved.items() if t not in inside)
        mac = sum(c for i, c in self.cycles.items() if i not in ops)
        vector = sum(c for i, (_, c) in self.vector.items() if i not in ops)
        return Floor(energy, self._together(mac, vector))

    def _together(self, mac: float, vector: float) -> float:
        return core_cycles(mac, vector, 10**12, self.arch) if self.arch.vector is not None else mac

    def _vector_least(self, prices: Prices) -> dict[int, tuple[float, float]]:
        """Per elementwise op: energy and cycles with all its tensors in place."""
        found = {}
        for i, op in enumerate(self.chain.ops):
            if isinstance(op, VectorOp) and self.arch.vector is not None:
                results = least_elements(self.chain, op.output)
                ops = results * ops_per_element(self.chain, self.arch, op.kind)
                beside = self.arch.vector.beside
                words = sum(least_elements(self.chain, t) for t in dict.fromkeys(op.inputs))
                energy = words * prices.word(beside, "read") + results * prices.word(beside, "write")
                found[i] = (energy + ops * prices.vector_op, ops / self.arch.vector.lanes)
        return found

    def _external_least(self, prices: Prices) -> dict[str, float]:
        """Per tensor that is no intermediate: every word once between the outermost memory and the fusion level."""
        found = {}
        for t in self.chain.tensors:
            if t not in self.chain.intermediates:
                kinds = ("write", "read") if t in self.chain.writers else ("read", "write")
                through = all(isinstance(self.chain.ops[i], Problem) or reaches(self.arch, self.level.name)
                              for i, op in enumerate(self.chain.ops) if t in op.tensors)  # fmt: skip
                near = prices.word(self.level.name, kinds[1]) if through else 0.0
                must = self.level.must_hold("I") and self.level.must_hold("W") and self.level.must_hold("O")
                near = near if must else 0.0
                found[t] = least_elements(self.chain, t) * (prices.word(self.root.name, kinds[0]) + near)
        return found

    def _score_floor(self, prices: Prices) -> float:
        rest = self._floor_beside(range(0))
        return prices.score(rest.energy, rest.cycles)

    # -- cuts ----------------------------------------------------------------------------------------------------------------
    def _cuts(self, prices: Prices) -> list[Cut]:
        """Every way to cut the chain, cheapest floor first."""
        n = len(self.chain.ops)
        rest = self._floor_beside(range(0))
        found = []
        for ends in flatten.from_iterable(combinations(range(1, n), k) for k in range(n)):
            edges = (0, *ends, n)
            groups = tuple((a, b - 1) for a, b in zip(edges, edges[1:]))
            if not all(self._legal(a, b) for a, b in groups):
                continue
            crossing = [t for t in self.chain.intermediates if not self._inside(t, groups)]
            keepable = [t for t in crossing if self._may_stay(t)]
            for k in range(len(keepable) + 1):
                for whole in combinations(keepable, k):
                    through = [t for t in crossing if t not in whole]
                    energy = rest.energy + sum(
                        self.chain.elements(t) * (prices.word(self.root.name, "read") + prices.word(self.root.name, "write"))
                        for t in through
                    )  # fmt: skip
                    found.append(Cut(groups, frozenset(whole), prices.score(energy, rest.cycles)))
        return sorted(found, key=lambda cut: cut.floor)

    def _legal(self, first: int, last: int) -> bool:
        """A vector unit outside the fusion level cannot work on what is fused there."""
        vectored = any(isinstance(self.chain.ops[i], VectorOp) for i in range(first, last + 1))
        return first == last or not vectored or reaches(self.arch, self.level.name)

    def _may_stay(self, tensor: str) -> bool:
        users = [self.chain.ops[i] for i in (self.chain.writers[tensor], *self.chain.readers[tensor])]
        if any(isinstance(op, VectorOp) for op in users) and not reaches(self.arch, self.level.name):
            return False
        capacity = self.level.words_for("I")
        return capacity is None or self.chain.elements(tensor) <= capacity

    def _inside(self, tensor: str, groups: tuple[tuple[int, int], ...]) -> bool:
        return any(a <= self.chain.writers[tensor] and self.chain.readers[tensor][-1] <= b for a, b in groups)

    def _best_cut(
        self, cuts: list[Cut], fronts: dict[int, OpFronts], prices: Prices, limit: float
    ) -> tuple[float, list[Point], Cut] | None:
        """The best answer below `limit` over `cuts`, from these fronts."""
        best: tuple[float, list[Point], Cut] | None = None
        memo: dict[tuple[int, int, frozenset[str]], list[Point]] = {}
        for cut in cuts:
            if cut.floor >= limit:
                break
            sums: list[tuple[float, float, list[Point]]] = [(0.0, 0.0, [])]
            for first, last in cut.groups:
                self._check_time()
                key = (first, last, self._touching(cut.whole, first, last))
                if key not in memo:
                    search = self._group(first, last, key[2], fronts, prices)
                    memo[key] = search.points(limit)
                    self.considered += search.joined + search.opened
                sums = _added(sums, memo[key])
                if not sums:
                    break
            for energy, cycles, points in sums:
                score = prices.score(energy, cycles)
                if score < limit:
                    best, limit = (score, points, cut), score
        return best

    def _touching(self, whole: frozenset[str], first: int, last: int) -> frozenset[str]:
        """Of the tensors kept whole, those that take room while this group runs."""
        return frozenset(t for t in whole if self.chain.writers[t] <= last and self.chain.readers[t][-1] >= first)

    def _unfused(self, fronts: dict[int, OpFronts], prices: Prices) -> float | None:
        apart = [c for c in self.cuts if len(c.groups) == len(self.chain.ops) and not c.whole]
        found = self._best_cut(apart, fronts, prices, float("inf"))
        if found is not None:
            self._take(found, fronts)
        return None if found is None else found[0]

    # -- the proof -----------------------------------------------------------------------------------------------------------
    def _prove(self) -> bool:
        """Whether the best is proven; raises `self.bound`. Without port time first, with it where the answer feels it."""
        for compare_time in (False, True):
            relaxed = self._climb(self.bound, self._prices(compare_time))
            if relaxed is None:  # nothing below the best known answer
                self.bound = self._worst()
                return self.best is not None
            self.bound = max(self.bound, min(relaxed, self._worst()))
            if compare_time or self._worst() <= relaxed * (1 + 1e-7):
                return True
        return True

    def _climb(self, floor: float, prices: Prices) -> float | None:
        """Raise the limit until an answer lies below it: the best score under `prices`. None: no answer beats the best known."""
        for step in _LADDER:
            worst = self._worst() * (1 - _ROUNDING)
            limit = min(floor * step, worst) if floor > 0 else worst
            limit = max(limit, floor * (1 + _ROUNDING))
            self.say(f"proving {self.chain.name}: answers below {limit:.4g}")
            fronts = {i: self._fronts(i, limit, prices) for i in self.einsums}
            found = self._best_cut(self.cuts, fronts, prices, limit)
            if found is not None:
                self._take(found, fronts)
                return found[0]
            if limit >= worst:
                return None
            self.bound = max(self.bound, limit)
        return None

    def _fronts(self, index: int, limit: float, prices: Prices) -> OpFronts:
        beside = self._floor_beside(range(index, index + 1))
        mac = sum(c for i, c in self.cycles.items() if i != index)
        vector = sum(c for _, c in self.vector.values())
        overlap = self.arch.vector is None or self.arch.vector.overlap
        own = sum(e for t, e in self.moved.items() if t in self.chain.ops[index].tensors)
        rest = Rest(beside.energy, mac + (0.0 if overlap else vector), vector if overlap else 0.0, own,
                    {t: self.moved[t] for t in self._problem(index).tensors if t in self.moved})  # fmt: skip
        return self._search_op(index, self.objective, rest, limit, compare_time=prices.compare_time)

    def _watch(self, slot: Slot, came: int, kept: int) -> None:
        del slot, came, kept
        self._check_time()

    def _check_time(self) -> None:
        if self.best is not None and self.deadline is not None and time.perf_counter() > self.deadline:
            raise _OutOfTime

    # -- answers -------------------------------------------------------------------------------------------------------------
    def _worst(self) -> float:
        return float("inf") if self.best is None else self.best[0]

    def _take(self, found: tuple[float, list[Point], Cut] | None, fronts: dict[int, OpFronts]) -> None:
        if found is None:
            return
        _, points, cut = found
        groups = []
        for point in points:
            group = point.recipe.group
            shape = Shape.of(self.chain, group)
            nests = {
                (i, phase): fronts[i].nest(rows, row, shape.sizes(i, phase))
                for (i, phase), (rows, row) in point.recipe.rows.items()
            }
            first = {i: nest for (i, phase), nest in nests.items() if not phase}
            groups.append(replace(group, nests=first, later={k: nest for k, nest in nests.items() if k[1]}))
        mapping = FusedMapping(tuple(groups), self.level.name, cut.whole)
        value = self._value(estimate_chain(mapping, self.chain, self.arch))
        if value < self._worst():
            self.best = (value, mapping)

    def _value(self, cost: ChainEstimate) -> float:
        return chain_value(self.objective, cost, self.arch)

    def _refusal(self) -> ImpossibleSpace:
        """Why no cut fits: the first op that does not even fit alone, with the level, the need, and what would fit."""
        have = self.level.words_for("I") or 0
        for op in self.chain.ops:
            if isinstance(op, Problem):
                map_op(op, self.arch, self.objective)  # raises where the op does not fit
                continue
            sizes = {d: self.chain.sizes[d] if d == op.over else 1 for d in self.chain.sizes}
            need = sum(prod(extent(a, sizes) for a in access) for access in op.accesses)
            if need > have:
                row = f"one row of {op.over}" if op.over else "one element"
                return refuse(
                    f"{op.output} on {self.level.name}, {row} of {', '.join(op.tensors)}", need, have,
                    f"A capacity of {need:,} words would fit, or fuse what reads {op.output}.",
                )  # fmt: skip
        return ImpossibleSpace(f"{self.chain.name} on {self.arch.name}: no cut into groups fits in {self.level.name}")


def chain_value(objective: str, cost: ChainEstimate, arch: Architecture) -> float:
    """EDP in pJ x cycles, energy in pJ, latency in cycles, or traffic in words at the outermost memory."""
    if objective == "traffic":
        root = arch.levels[0].name
        return float(sum(t.reads + t.writes for g in cost.counts for (level, _), t in g.traffic.items() if level == root))
    return {"edp": cost.edp, "energy": cost.energy_pj, "latency": cost.latency_cycles}[objective]


def _added(sums: list[tuple[float, float, list[Point]]], points: list[Point]) -> list[tuple[float, float, list[Point]]]:
    """Sums with one more group, beaten ones left out."""
    grown = [(e + p.energy, c + p.cycles, [*path, p]) for e, c, path in sums for p in points]
    kept: list[tuple[float, float, list[Point]]] = []
    least = float("inf")
    for new in sorted(grown, key=lambda x: (x[0], x[1])):
        if new[1] < least:
            kept.append(new)
            least = new[1]
    return kept


def _without_fusion(
    chain: Chain, arch: Architecture, objective: Objective, started: float, time_limit_s: float | None,
    say: Callable[[str], None],
) -> MappedChain:  # fmt: skip
    """Op by op, on a machine without a memory that could hold intermediates."""
    groups, considered, proven = [], 0, True
    for i, op in enumerate(chain.ops):
        if isinstance(op, Problem):
            mapped = map_op(op, arch, objective, time_limit_s=time_limit_s, say=say)
            considered += mapped.mappings_considered
            proven = proven and mapped.optimal
            groups.append(Group(i, i, nests={i: mapped.nest}))
        else:
            groups.append(Group(i, i))
    mapping = FusedMapping(tuple(groups), None)
    cost = estimate_chain(mapping, chain, arch)
    value = chain_value(objective, cost, arch)
    apart = len([op for op in chain.ops if isinstance(op, Problem)]) < 2 or objective != "edp"
    floor = value if proven and apart else 0.0
    return MappedChain(
        chain, arch, objective, mapping, cost, value, value, proven and apart, floor, considered,
        time.perf_counter() - started,
    )  # fmt: skip
