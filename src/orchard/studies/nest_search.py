"""The mapper's moves, put together from the lattice (mapping), the word counts (cost) and the engine (search).

See `orchard.cost.placement` for the moves and why they lose nothing. A slot is (stage, placed tensors, waiting flows as bits or
-1); stages are the machine's levels and fan-outs from the inside out. Rows of a slot with the same tiles have the same
completions, so the engine's dominance applies. Compared columns: energy, words used in the level being filled, MAC steps, and
(when time at memory ports can bind) words per port limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchard.cost.placement import Crossing, Flow, FlowWords, tile_words
from orchard.hw.arch import Architecture, FanOut, Level
from orchard.mapping.constraints import FREE, Constraints
from orchard.mapping.errors import ImpossibleSpace
from orchard.mapping.lattice import Indices, Lattice, Spread, spreads
from orchard.mapping.nest import Keep, Loop, Nest, refuse
from orchard.mapping.problem import Problem
from orchard.search.layered import Batch, Slot, Trail

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Objective = Literal["edp", "energy", "latency", "traffic"]
_TIE = 1e-9
_CLOSE = 48  # ways of crossing a fan-out whose steps are counted exactly before it is crossed


@dataclass(frozen=True)
class Pattern:
    """Which tensors stay in which levels (the root holds all)."""

    held: dict[str, tuple[str, ...]]  # level -> tensors


class NestModel:
    """`orchard.search.layered.Model` for one problem, machine and pattern of residency."""

    keeps_room = False  # whether the words used in a level matter once all its tensors are placed

    def __init__(
        self,
        problem: Problem,
        arch: Architecture,
        lattice: Lattice,
        pattern: Pattern,
        objective: Objective,
        *,
        compare_time: bool,
        ragged: bool,
        rules: Constraints = FREE,
    ) -> None:
        self.problem, self.arch, self.lattice, self.pattern = problem, arch, lattice, pattern
        self.objective, self.compare_time, self.ragged = objective, compare_time, ragged
        self.rules = rules
        self.flow_words = FlowWords(problem, lattice, arch.word_bits)
        self.sizes = np.array(lattice.sizes, dtype=np.int64)
        self.root = arch.levels[0]
        self.stages: list[Level | FanOut] = list(reversed(arch.nodes))
        self.depth = {node.name: i for i, node in enumerate(self.stages)}
        self.fans = [i for i, node in enumerate(self.stages) if isinstance(node, FanOut)]
        self.held = {**pattern.held, self.root.name: ()}
        self.flows = self._flows()
        self.flow_of = {(f.tensor, f.child): i for i, f in enumerate(self.flows)}
        self.limits = self._limits()
        bits = max(problem.bits.get(t, arch.word_bits) for t in problem.inputs)
        self.mac_rate = arch.compute.rate(bits)
        self.mac_energy = problem.macs * arch.compute.energy(bits) * (1.0 if objective != "traffic" else _TIE)
        self.spread = self._spreads()
        self.most_lanes = self._most_lanes()
        self.top = np.array([len(t) - 1 for t in lattice.tiles], dtype=np.int16)
        self.least_ends = [self._least_ends(flow) for flow in self.flows]
        self.least = [up + down for up, down in self.least_ends]
        self.least_steps = self._least_steps()
        self.least_root_cycles = self._least_root_cycles()
        self._tables: dict[tuple[int, int], NDArray[np.int16]] = {}
        self._refuse_hopeless()

    # -- set-up --------------------------------------------------------------------------------------------------------
    def _spreads(self) -> dict[str, Spread]:
        return {fan.name: self._ways(fan) for fan in self.arch.fan_outs}

    def _flows(self) -> list[Flow]:
        flows = []
        for tensor in self.problem.tensors:
            holders = [self.root.name, *(lv.name for lv in self.arch.levels[1:] if tensor in self.held[lv.name])]
            flows += [Flow(tensor, parent, child) for parent, child in zip(holders, [*holders[1:], None])]
        return flows

    def _ways(self, fan: FanOut) -> Spread:
        """Ways of crossing a fan-out, without those whose copies a constraint forbids."""
        every, rule = spreads(self.problem, fan, self.lattice), self.rules.fans.get(fan.name)
        wanted = {} if rule is None else {d: n for d, n in rule.copies.items() if d in self.lattice.dims}
        good = np.ones(len(every.copies), dtype=bool)
        for dim, copies in wanted.items():
            good &= every.copies[:, self.lattice.dims.index(dim)] == copies
        if not good.any():
            fixed = ", ".join(f"{d}={n}" for d, n in wanted.items())
            raise ImpossibleSpace(f"constraint {fan.name}: no way to have {fixed} copies with the tiles at hand; see --factors")
        return Spread(every.copies[good], tuple(s for s, g in zip(every.splits, good) if g))

    def _limits(self) -> list[tuple[Level, str, float]]:
        found: list[tuple[Level, str, float]] = []
        for level in self.arch.levels:
            for kind, rate in (
                ("both", level.bandwidth),
                ("read", level.read_bandwidth),
                ("write", level.write_bandwidth),
            ):
                if rate is not None:
                    found.append((level, kind, rate))
        return found

    def _most_lanes(self) -> list[int]:
        """Largest number of copies that the fan-outs from stage i outwards can still use."""
        most = [1] * (len(self.stages) + 1)
        for i in reversed(range(len(self.stages))):
            node = self.stages[i]
            copies = int(self.spread[node.name].copies.prod(axis=1).max()) if isinstance(node, FanOut) else 1
            most[i] = most[i + 1] * copies
        return most

    def _least_steps(self) -> float:
        """MACs of the busiest copy at the very least: no split gives every copy less than ceil(size / copies) of a dim. With
        several fan-outs only the number of lanes counts."""
        if len(self.fans) != 1:
            return self.problem.macs / self.most_lanes[0]
        copies = self.spread[self.stages[self.fans[0]].name].copies
        return float((-(-self.sizes[None, :] // copies)).prod(axis=1, dtype=np.float64).min())

    def _least_root_cycles(self) -> float:
        """Cycles at the outermost memory's port: every word of every tensor that starts or ends there crosses it once."""
        least = 0.0
        for level, kind, rate in self.limits:
            if level is self.root:
                crossing = [t for t in self.problem.tensors if kind in ("both", self._kinds(t)[0])]
                least = max(least, sum(self.flow_words.whole[t] for t in crossing if self.problem.pays_root(t)) / rate)
        return least

    def _unit_energy(self, level: str, kind: str) -> float:
        node = self.arch.level(level)
        real = node.read_energy_pj if kind == "read" else node.write_energy_pj
        if self.objective == "traffic":
            return (1.0 if level == self.root.name else 0.0) + _TIE * real
        return real

    def _kinds(self, tensor: str) -> tuple[str, str]:
        """What a flow's main direction does at the parent's port and at the child's."""
        return ("write", "read") if tensor == self.problem.output else ("read", "write")

    def _least_ends(self, flow: Flow) -> tuple[float, float]:
        """Energy that a flow costs at the very least at its parent and at its child: every word of the tensor once."""
        at_parent, at_child = self._kinds(flow.tensor)
        whole = self.flow_words.whole[flow.tensor]
        down = 0.0 if flow.child is None else self._unit_energy(flow.child, at_child)
        up = self._unit_energy(flow.parent, at_parent) if self._pays(flow, flow.parent) else 0.0
        return whole * up, whole * down

    def _pays(self, flow: Flow, level: str | None) -> bool:
        """Whether words of a flow count at this end."""
        return level is not None and (level != self.root.name or self.problem.pays_root(flow.tensor))

    def _tile_words(self, tensor: str, tiles: Ints) -> Floats:
        return tile_words(self.problem, self.lattice, tensor, tiles, self.arch.word_bits)

    def _refuse_hopeless(self) -> None:
        """Refuse at once where even one element of every tensor is too much."""
        ones = np.ones((1, len(self.lattice.dims)), dtype=np.int64)
        for level in self.arch.levels[1:]:
            need = {t: float(self._tile_words(t, ones)[0]) for t in self.held[level.name]}
            if level.is_partitioned:
                for tensor, words in need.items():
                    have = level.words_for(self.problem.role(tensor)) or 0
                    if words > have:
                        where = f"{self.problem.name} on {level.name}, one element of {tensor}"
                        raise refuse(where, words, max(have, 1e-9), f"A capacity of {words:,.0f} words would fit.")
            elif level.capacity_words is not None and sum(need.values()) > (level.words_for("I") or 0):
                total, have = sum(need.values()), level.words_for("I") or 0
                where = f"{self.problem.name} on {level.name}, one element of {', '.join(need)}"
                raise refuse(where, total, max(have, 1e-9), f"A capacity of {total:,.0f} words would fit.")

    # -- engine protocol -----------------------------------------------------------------------------------------------
    def first(self) -> tuple[Slot, Batch]:
        idx = np.zeros((1, len(self.lattice.dims)), dtype=np.int16)
        carried: dict[str, NDArray[Any]] = {
            "idx": idx,
            "energy": np.full(1, self.mac_energy),
            "words": np.zeros((1, len(self.limits))),
            "steps": np.full(1, float(self.problem.macs)),
            "room": np.zeros(1),
            "slide": np.full(1, -1, dtype=np.int16),
            "pre": np.zeros(1, dtype=np.int16),
            "way": np.zeros(1, dtype=np.int64),
        }
        if self.rules.orders_loops:
            carried["reach"] = np.full(1, np.inf)
        for i, flow in enumerate(self.flows):
            if flow.child is None:
                self._open(i, carried, np.full(1, -1, np.int16), np.ones(1, np.int64))
        if not self.fans:
            self._credit(carried, [i for i, flow in enumerate(self.flows) if flow.child is None])
        for i, flow in enumerate(self.flows):
            if flow.child is None and not self._fans_between(flow):
                self._settle(i, carried)
        slot: Slot = (0, 0, -1)
        return slot, self._batch(slot, carried, np.zeros(1, dtype=np.int64), "start")

    def rank(self, slot: Slot) -> int:
        stage, mask, waiting = _parts(slot)
        return stage * 100_000 + 100 * mask.bit_count() + 99 - len(_bits(waiting))

    def is_final(self, slot: Slot) -> bool:
        return slot[0] == len(self.stages)

    def expand(self, slot: Slot, batch: Batch, best: float) -> Iterable[tuple[Slot, Batch]]:
        stage, mask, waiting = _parts(slot)
        node = self.stages[stage]
        if isinstance(node, FanOut):
            yield from self._cross(slot, batch, node, best)
            return
        if mask == (1 << len(self.held[node.name])) - 1 and self._may_leave(stage, waiting):
            carried = {**batch.carried, "room": np.zeros(len(batch)), "slide": np.full(len(batch), -1, np.int16)}
            onward: Slot = (stage + 1, 0, waiting)
            rows = self._may_finish(carried) if self.is_final(onward) else np.arange(len(batch))
            yield onward, self._batch(onward, {n: v[rows] for n, v in carried.items()}, rows, "next")
        yield from self._place(slot, batch, node)

    def _may_leave(self, stage: int, waiting: int) -> bool:
        """Whether every waiting tile's source is further out, or waits as well."""
        return all(
            self.depth[flow.parent] > stage or waiting >> self.flow_of.get((flow.tensor, flow.parent), 63) & 1
            for flow in (self.flows[i] for i in _bits(waiting))
        )

    def _frozen(self, waiting: int) -> set[int]:
        """Dims of the tiles that wait: they stay as they are."""
        return {d for i in _bits(waiting) for d in self.flow_words.relevant[self.flows[i].tensor]}

    @cached_property
    def _together(self) -> frozenset[str]:
        """Tensors that lack a dim which another tensor lacks too, so that both stay put across the same loops. Where no two do,
        a loop that one tile waits for breaks any other tensor's wait, and one waiting tensor is enough; but see `_slide_along`
        and `_held_up`. A constraint on the order of tensors may forbid the nest that does without: then all may wait."""
        if any(level.stationary or level.tensors for level in self.rules.levels.values()):
            return frozenset(self.problem.tensors)
        lacking = {t: set(self.flow_words.irrelevant[t]) for t in self.problem.tensors}
        return frozenset(t for t in lacking for u in lacking if t != u and lacking[t] & lacking[u])

    @cached_property
    def _nested(self) -> frozenset[str]:
        """Tensors whose windows can slide in several buffers along one loop."""
        held = list(self.held.values())
        return frozenset(t for t in self.problem.tensors if self.flow_words.windows[t] and sum(t in h for h in held) > 1)

    def _slide_along(self, tensor: str, waiting: set[str], idx: NDArray[np.int16]) -> NDArray[np.bool_]:
        """Rows where a window in nested buffers can slide along a loop that another waiting tile stays put across, `tensor`
        being one of the two. Steps of a loop share words of a window only if another of its dims has more than one index."""
        found, tiles = np.zeros(len(idx), dtype=bool), self.lattice.values(idx)
        pairs = [(tensor, other) for other in waiting] + [(other, tensor) for other in waiting]
        for slides, stays in ((x, y) for x, y in pairs if x in self._nested):
            for _, at in self.flow_words.windows[slides]:
                dims = [d for d in at if d is not None]
                for d in dims:
                    if (set(dims) - {d}) & set(self.flow_words.irrelevant[stays]):
                        found |= tiles[:, d] > 1
        return found

    def _held_up(self, stage: int, waiting: int) -> bool:
        """Whether a tile of an inner level waits on for a fan-out further out, though its loops may be done: its dims cannot be
        raised inside a tile that is placed here, so reuse along them must come from outside, for which that tile waits, too."""
        flows = (self.flows[i] for i in _bits(waiting))
        return any(self.depth[f.child or ""] < stage and any(x >= stage for x in self._fans_between(f)) for f in flows)

    def _wanted_outside(self, stage: int, tensor: str, unplaced: list[str]) -> list[int]:
        """Dims of a tile about to wait that another tensor placed meanwhile lacks: a loop over them inside the tile is reuse for
        that tensor, and once the tile waits it is too late for it."""
        others = {o for n in self.stages[stage + 1 :] if isinstance(n, Level) for o in self.held[n.name]} | set(unplaced)
        lacked = {d for o in others for d in self.flow_words.irrelevant[o]}
        return [d for d in self.flow_words.relevant[tensor] if d in lacked]

    def _may_join(self, stage: int, tensor: str) -> bool:
        """Whether an equal tile of a tensor that waits already may gain by waiting too: they can share a sliding loop, or stay
        put across loops beyond the tiles of a level further out."""
        lacking = set(self.flow_words.irrelevant[tensor])
        outer = [n for n in self.stages[stage + 1 :] if isinstance(n, Level)]
        return bool(self.flow_words.windows[tensor]) or any(
            lacking & set(self.flow_words.relevant[other]) for level in outer for other in self.held[level.name]
        )

    def lower_bound(self, slot: Slot, batch: Batch) -> Floats:
        """Score that no completion can beat: energy so far, every word once for what is still to come, the steps if all copies
        that remain are used, and the words so far at ports whose copies are settled."""
        stage = _parts(slot)[0]
        energy = batch.carried["energy"] + self._rest(slot, batch.carried)
        steps = self._fewest(batch.carried["steps"] / self.most_lanes[stage], stage) / self.mac_rate
        if len(self.fans) == 1 and stage == self.fans[0] and len(batch):
            steps = np.maximum(steps, self._steps_across(batch.carried["idx"]) / self.mac_rate)
        settled = not any(f >= stage for f in self.fans)
        return self._score(energy, steps, batch.carried["words"] if settled else None)

    def _fewest(self, steps: Floats, stage: int) -> Floats:
        """Steps with all copies that remain used; before the fan-out is crossed never fewer than any split leaves."""
        if self.fans and stage <= self.fans[-1]:
            return np.maximum(steps, self.least_steps)
        return steps

    def _steps_across(self, idx: NDArray[np.int16]) -> Floats:
        """At the only fan-out: fewest steps of the busiest copy over all ways to cross it from these tiles. The ways that could
        come close to the least steps are counted exactly, for the others their own least stands."""
        copies, others = self._close_ways
        key = self.lattice.keys(idx)
        _, first, back = np.unique(key, return_index=True, return_inverse=True)
        total = np.ones((len(first), copies.shape[0]))
        for d, table in enumerate(self._busiest):
            total *= table[idx[first, d]]
        return np.asarray(np.minimum(total.min(axis=1, initial=np.inf), others))[back.reshape(-1)]

    @cached_property
    def _close_ways(self) -> tuple[Ints, float]:
        """Copies per dim of the ways with the least steps, and the least steps of the ways that are left out."""
        copies = self.spread[self.stages[self.fans[0]].name].copies
        least = (-(-self.sizes[None, :] // copies)).prod(axis=1, dtype=np.float64)
        order = np.argsort(least, kind="stable")
        return copies[order[:_CLOSE]], float(least[order[_CLOSE:]].min(initial=np.inf))

    @cached_property
    def _busiest(self) -> list[Floats]:
        """Per dim (candidate, close way): indices of the busiest copy, infinite where the tile of all copies is no candidate."""
        copies, _ = self._close_ways
        tables = []
        for d, tiles in enumerate(self.lattice.tiles):
            together = tiles[:, None] * copies[None, :, d]
            full, rest = np.divmod(self.sizes[d], together)
            busiest = full * tiles[:, None] + np.minimum(rest, tiles[:, None])
            tables.append(np.where(np.isin(together, tiles), busiest, np.inf))
        return tables

    def evaluate(self, slot: Slot, batch: Batch) -> Floats:  # noqa: ARG002 - the protocol's signature
        return self._score(batch.carried["energy"], batch.carried["steps"] / self.mac_rate, batch.carried["words"])

    def cycles(self, steps: Floats, words: Floats | None) -> Floats:
        """Latency from MAC cycles and port words, as `orchard.cost.mapped.latency`."""
        floor = np.maximum(steps, self.least_root_cycles) if self.root.buffering != "single" else steps
        total, serial = floor, np.zeros(len(steps))
        if words is None:
            return total
        per_level: dict[str, Floats] = {}
        for column, (level, _, rate) in enumerate(self.limits):
            cycles = words[:, column] / rate
            per_level[level.name] = np.maximum(per_level.get(level.name, cycles), cycles)
        for name, cycles in per_level.items():
            if self.arch.level(name).buffering == "single":
                serial = serial + cycles
            else:
                total = np.maximum(total, cycles)
        return total + serial

    def _score(self, energy: Floats, steps: Floats, words: Floats | None) -> Floats:
        return self._combine(energy, self.cycles(steps, words if self.compare_time else None))

    def score_with_time(self, energy: Floats, steps: Floats, words: Floats) -> Floats:
        """The score with port time counted, whatever this model compares."""
        return self._combine(energy, self.cycles(steps / self.mac_rate, words))

    def _combine(self, energy: Floats, cycles: Floats) -> Floats:
        if self.objective in ("energy", "traffic"):
            return energy
        if self.objective == "latency":
            return cycles * (1 + _TIE * energy / (energy + self.mac_energy + 1.0))
        return energy * cycles

    def _rest(self, slot: Slot, carried: dict[str, NDArray[Any]]) -> Floats:
        """Least energy of flows that are not paid yet, less the most that first visits give back.

        An open flow's visits are known: every copy pays them at the child, and sharing divides them at the parent by the copies
        along dims that the tensor does not have. Where no two open tensors lack the same dim, these divisors multiply to at most
        all copies, so by the inequality of means sum(a_i / s_i) >= n (prod(a_i) / copies)^(1/n).
        """
        total = self._closed_rest(slot, carried)
        shared, apart = np.zeros(len(total)), np.ones(len(total))
        crowd = [i for i in range(len(self.flows)) if f"reps{i}" in carried]
        lanes = float(self.most_lanes[0])
        splits = np.full((1, 1), lanes)
        for i in crowd:
            up, down = self.least_ends[i]
            reps = carried[f"reps{i}"]
            shared += up * np.maximum(1.0, reps / lanes)
            apart *= up * reps
            total += down * reps + self._come_back(i, reps[:, None], self._copies_left(carried, splits), splits)[:, 0]
        lacking = [d for i in crowd for d in self.flow_words.irrelevant[self.flows[i].tensor]]
        if crowd and len(lacking) == len(set(lacking)):
            shared = np.maximum(shared, len(crowd) * (apart / lanes) ** (1 / len(crowd)))
        return np.asarray(total + shared - self._most_credit(slot, carried, splits)[:, 0])

    def _come_back(self, i: int, reps: Floats, copies: Floats, sharing: Floats) -> Floats:
        """Energy of partial sums that an open flow of the output brings back: every visit but the first, `copies` at most being
        first ones at the child, `sharing` copies at most being one visit at the parent. Nothing for inputs."""
        flow = self.flows[i]
        if flow.tensor != self.problem.output:
            return np.zeros(np.broadcast_shapes(reps.shape, copies.shape))
        whole = self.flow_words.whole[flow.tensor]
        down = 0.0 if flow.child is None else self._unit_energy(flow.child, "write")
        read = self._unit_energy(flow.parent, "read") if self._pays(flow, flow.parent) else 0.0
        again = read * np.maximum(0.0, reps / sharing - 1)
        return np.asarray(whole * (again + down * np.maximum(0.0, reps - copies)))

    def _copies_left(self, carried: dict[str, NDArray[Any]], splits: Floats) -> Floats:
        """`splits`, but no more than the steps that are left in the reduced dims."""
        left = np.ones(len(carried["energy"])) * self._all_split(carried)
        for d in self.flow_words.irrelevant[self.problem.output]:
            left *= -(-self.sizes[d] // self.lattice.tiles[d][carried["idx"][:, d]])
        return np.minimum(left[:, None], splits)

    def _counts_splits(self, slot: Slot) -> bool:
        return bool(self.fans) and _parts(slot)[0] <= self.fans[-1]

    def _closed_rest(self, slot: Slot, carried: dict[str, NDArray[Any]]) -> Floats:
        """Least energy of flows that are not open and not paid: every word once."""
        stage, mask, waiting = _parts(slot)
        total = np.zeros(len(carried["energy"]))
        for i, flow in enumerate(self.flows):
            up, down = self.least_ends[i]
            if f"reps{i}" in carried:
                continue
            if i in _bits(waiting):
                total += up + down
            elif flow.child is not None and self.depth[flow.child] >= stage:
                level = flow.child
                placed = self.depth[level] == stage and mask >> self.held[level].index(flow.tensor) & 1
                total += 0.0 if placed else up + down
        return total

    def _most_credit(self, slot: Slot, carried: dict[str, NDArray[Any]], splits: Floats) -> Floats:
        """Most that `_credit` will give back for flows that are paid both ways already, when the reduction is split into `splits`
        copies: (1 or rows, ways) to (rows, ways).

        Each copy starts every result once, and there are no more copies than steps left in the reduced dims, or than visits of
        the tile. Where the output's flow into the level is still to be paid, `_rest` counts each result read out of it once,
        while each copy has its own to read: that outweighs the copies' credit but one.
        """
        rows = len(carried["energy"])
        total = np.zeros((rows, splits.shape[1]))
        if not self._counts_splits(slot):
            return total
        copies = self._copies_left(carried, splits)
        total = np.zeros_like(copies)
        for level, kind in self._uncredited(slot, carried):
            above = self.flow_of.get((self.problem.output, level), -1)
            most = copies
            if kind == "read" and above >= 0 and self._is_due(slot, above, carried):
                most = np.ones_like(copies)
            elif kind == "read" and f"reps{above}" in carried:
                most = np.minimum(copies, carried[f"reps{above}"][:, None])
            total += most * self._unit_energy(level, kind)
        return total * self.flow_words.whole[self.problem.output]

    def _is_due(self, slot: Slot, i: int, carried: dict[str, NDArray[Any]]) -> bool:
        """Whether flow i is neither paid nor open: `_rest` counts its words once."""
        stage, mask, waiting = _parts(slot)
        child = self.flows[i].child
        if i in _bits(waiting):
            return True
        if child is None or f"reps{i}" in carried or self.depth[child] < stage:
            return False
        return self.depth[child] > stage or not mask >> self.held[child].index(self.flows[i].tensor) & 1

    def _uncredited(self, slot: Slot, carried: dict[str, NDArray[Any]]) -> list[tuple[str, str]]:
        """Ports (level, kind) of the output's flows that are paid but whose first visits are not given back yet."""
        stage = _parts(slot)[0]
        found: list[tuple[str, str]] = []
        for i, flow in enumerate(self.flows):
            if flow.tensor != self.problem.output or f"reps{i}" in carried or self._is_due(slot, i, carried):
                continue
            if flow.child is None or self.depth[flow.child] <= stage:
                found.append((flow.parent, "read"))
                found += [] if flow.child is None else [(flow.child, "write")]
        return found

    def _all_split(self, carried: dict[str, NDArray[Any]]) -> Floats | float:
        total: Floats | float = 1.0
        for f in self.fans:
            total = total * carried.get(f"red{f}", 1.0)
        return total

    def _way_bounds(self, slot: Slot, carried: dict[str, NDArray[Any]], copies: Ints) -> Floats:
        """`lower_bound` for every row with every way (copies per dim) of crossing the fan-out: (rows, ways)."""
        stage = _parts(slot)[0]
        energy = carried["energy"] + self._closed_rest(slot, carried)
        total = np.repeat(energy[:, None], len(copies), axis=1)
        outside = float(self.most_lanes[stage + 1])
        past = np.broadcast_to(self._all_split(carried), len(energy))[:, None]
        split = copies[:, self.flow_words.irrelevant[self.problem.output]].prod(axis=1)[None, :] * outside * past
        total -= self._most_credit(slot, carried, split)
        for i, flow in enumerate(self.flows):
            if f"reps{i}" in carried:
                up, down = self.least_ends[i]
                reps = carried[f"reps{i}"][:, None]
                lacking = self.flow_words.irrelevant[flow.tensor]
                sharing = copies[:, lacking].prod(axis=1)[None, :] * outside
                for f in self._fans_between(flow):
                    if f < stage:
                        sharing = sharing * carried[f"lanes{f}"][:, lacking].prod(axis=1)[:, None]
                total += up * np.maximum(1.0, reps / sharing) + down * reps
                total += self._come_back(i, reps, self._copies_left(carried, split), sharing)
        lanes = copies.prod(axis=1) * outside
        steps = carried["steps"][:, None] / lanes[None, :] / self.mac_rate
        return self._score(total, np.maximum(steps, self.least_steps / self.mac_rate), None)

    # -- bookkeeping ---------------------------------------------------------------------------------------------------
    def _batch(self, slot: Slot, carried: dict[str, NDArray[Any]], origin: Ints, move: str) -> Batch:
        """Columns and key parts depend on the slot only, so that batches of one slot join."""
        stage, _, waiting = _parts(slot)
        columns = [carried["energy"], carried["room"], carried["steps"]]
        if self.compare_time:
            columns += [carried["words"][:, i] for i in range(len(self.limits))]
        parts = [self.lattice.keys(carried["idx"])]
        for name in sorted(carried):
            if name.startswith("reps"):
                columns.append(carried[name])
                i = int(name[4:])
                crossed = [f for f in self._fans_between(self.flows[i]) if f < stage]
                if crossed:  # copies that share words: more of them is less to pay at the parent
                    lacking = self.flow_words.irrelevant[self.flows[i].tensor]
                    shares = np.prod([carried[f"lanes{f}"][:, lacking].prod(axis=1) for f in crossed], axis=0)
                    columns.append(-shares.astype(np.float64))
                if self.ragged or self.flow_words.windows[self.flows[i].tensor]:
                    parts.append(self.lattice.keys(carried[f"snap{i}"]))
                    parts.append(carried[f"slid{i}"].astype(np.int64))
                    parts.append(carried[f"run{i}"])
            elif name.startswith(("lanes", "below")) and ((len(self.fans) > 1 and self._any_windows()) or self.ragged):
                parts += [carried[name][:, d] for d in range(len(self.lattice.dims))]
            elif name.startswith("red") or (name.startswith("all") and self.compare_time and waiting >= 0):
                columns.append(-carried[name])
        if "reach" in carried:
            columns.append(-carried["reach"])
        for i in _bits(waiting):
            tensor, dims = self.flows[i].tensor, range(len(self.lattice.dims))
            lacking = self.flow_words.irrelevant[tensor]
            columns.append(carried[f"wait_lanes{i}"][:, lacking].prod(axis=1).astype(np.float64))
            passed = self.depth[self.flows[i].parent] <= stage
            if passed:
                columns.append(-carried[f"wait_sharing{i}"][:, lacking].prod(axis=1).astype(np.float64))
            if self.ragged or self.flow_words.windows[tensor]:
                parts += [carried[f"wait_lanes{i}"][:, d] for d in dims]
                parts += [carried[f"wait_tiles{i}"][:, d] for d in dims]
                parts += [carried[f"wait_sharing{i}"][:, d] for d in dims] if passed else []
        return Batch(np.stack(parts, axis=1), np.stack(columns, axis=1), carried, origin, move)

    def _any_windows(self) -> bool:
        return any(self.flow_words.windows.values())

    def _fans_between(self, flow: Flow) -> list[int]:
        """Stages of the fan-outs between a flow's child and its parent."""
        inner = -1 if flow.child is None else self.depth[flow.child]
        return [f for f in self.fans if inner < f < self.depth[flow.parent]]

    def _open(self, i: int, carried: dict[str, NDArray[Any]], slide: NDArray[np.int16], run: Ints) -> None:
        """Note a flow's tile now; it is paid once every fan-out below its parent is crossed."""
        carried[f"snap{i}"] = (
            carried["idx"] if slide.max(initial=-1) < 0 else _with(carried["idx"], slide, carried["pre"])
        )
        carried[f"slid{i}"] = slide
        carried[f"run{i}"] = run
        carried[f"reps{i}"] = self.flow_words.visits(self.flows[i].tensor, self.lattice.values(carried[f"snap{i}"]))

    def _settle(self, i: int, carried: dict[str, NDArray[Any]]) -> None:
        """Pay an open flow and forget its tile."""
        flow = self.flows[i]
        tiles = self.lattice.values(carried.pop(f"snap{i}"))
        slide, run = carried.pop(f"slid{i}"), carried.pop(f"run{i}")
        carried.pop(f"reps{i}")
        crossings = [
            Crossing(carried[f"below{f}"], carried[f"lanes{f}"], self._shares(self.stages[f], flow.tensor))
            for f in self._fans_between(flow)
        ]
        words = self.flow_words
        down = words.visits(flow.tensor, tiles)
        up = words.shared_visits(flow.tensor, tiles, crossings) if crossings else down
        if words.windows[flow.tensor]:
            volume = self._volume(flow.tensor, tiles, slide, run)
            shared = words.shared_volume(flow.tensor, tiles, crossings) if crossings else volume
            shared = np.where(slide >= 0, volume, shared)
        else:
            volume = shared = words.volume(flow.tensor, tiles)
        self._pay(i, carried, up * shared, down * volume)

    def _volume(self, tensor: str, tiles: Ints, slide: NDArray[np.int16], run: Ints) -> Floats:
        result = self.flow_words.volume(tensor, tiles)
        for dim in np.unique(slide[slide >= 0]):
            rows = slide == dim
            result[rows] = self.flow_words.volume(tensor, tiles[rows], int(dim), run[rows])
        return result

    def _shares(self, node: Level | FanOut, tensor: str) -> bool:
        assert isinstance(node, FanOut)
        return node.reduce if tensor == self.problem.output else node.multicast

    def _pay(self, i: int, carried: dict[str, NDArray[Any]], up: Floats, down: Floats) -> None:
        """Charge `up` words at the parent's port and `down` at the child's; outputs go both ways (first visits come back
        through `_credit`)."""
        flow = self.flows[i]
        both_ways = flow.tensor == self.problem.output
        for name, words, kind in ((flow.parent, up, 0), (flow.child, down, 1)):
            if name is None or not self._pays(flow, name):
                continue
            self._charge(carried, name, self._kinds(flow.tensor)[kind], words)
            if both_ways:
                self._charge(carried, name, self._kinds(flow.tensor)[1 - kind], words)

    def _charge(self, carried: dict[str, NDArray[Any]], level: str, kind: str, words: Floats) -> None:
        carried["energy"] = carried["energy"] + words * self._unit_energy(level, kind)
        for column, (limit, what, _) in enumerate(self.limits):
            if limit.name == level and what in ("both", kind):
                carried["words"] = carried["words"].copy()
                carried["words"][:, column] += words / self._copies(carried, level)

    def _copies(self, carried: dict[str, NDArray[Any]], level: str) -> Floats | float:
        """Copies of `level` made by fan-outs that are already crossed (later ones divide when they are crossed)."""
        total: Floats | float = 1.0
        for f in self.fans:
            if f > self.depth[level] and f"all{f}" in carried:
                total = total * carried[f"all{f}"]
        return total

    def _credit(self, carried: dict[str, NDArray[Any]], flows: Iterable[int]) -> None:
        """Give back what first visits do not do: read the partial sum above, and write it into the copies."""
        whole = np.full(len(carried["energy"]), self.flow_words.whole[self.problem.output])
        for i in flows:
            flow = self.flows[i]
            if flow.tensor != self.problem.output:
                continue
            if self._pays(flow, flow.parent):
                self._charge(carried, flow.parent, "read", -whole * self._split(carried, flow.parent))
            if flow.child is not None:
                self._charge(carried, flow.child, "write", -whole * self._split(carried, flow.child))

    def _split(self, carried: dict[str, NDArray[Any]], level: str) -> Floats | float:
        """Into how many copies of `level` the reduction is split: each has its own first visit."""
        total: Floats | float = 1.0
        for f in self.fans:
            if f > self.depth[level] and f"red{f}" in carried:
                total = total * carried[f"red{f}"]
        return total

    # -- moves ---------------------------------------------------------------------------------------------------------
    def _cross(self, slot: Slot, batch: Batch, fan: FanOut, best: float) -> Iterator[tuple[Slot, Batch]]:
        stage, mask, waiting = _parts(slot)
        if len(batch) == 0:
            return
        spread = self.spread[fan.name]
        batch, source = self._interleaved(stage, mask, waiting, batch)
        onward: Slot = (stage + 1, 0, waiting)
        least = {  # of any row, per value; more copies that share or split mean less
            name: (values.max if name.startswith(("red", "lanes")) else values.min)(axis=0, keepdims=True)
            for name, values in batch.carried.items()
        }
        hopeful = np.flatnonzero(self._way_bounds(slot, least, spread.copies)[0] < best)
        rows_per_chunk = max(1, 500_000 // max(1, len(hopeful)))
        for start in range(0, len(batch), rows_per_chunk):
            rows = np.arange(start, min(len(batch), start + rows_per_chunk))
            bounds = self._way_bounds(slot, {n: v[rows] for n, v in batch.carried.items()}, spread.copies[hopeful])
            origin, way = np.nonzero(bounds < best)
            way = hopeful[way]
            origin, way, idx = self._multiply(batch.carried["idx"][rows], spread, origin, way)
            origin = rows[origin]
            fits = self._fits_outside(stage, self.lattice.values(idx))
            for name in [n for n in batch.carried if n.startswith("slid") and n != "slide"]:
                fits &= self._slide_allowed(
                    batch.carried[name][origin], spread.copies[way], self.flows[int(name[4:])].tensor
                )
            origin, way, idx = origin[fits], way[fits], idx[fits]
            if len(origin):
                crossed = self._crossed(onward, stage, batch, origin, way, idx, spread)
                yield onward, replace(crossed, origin=source[crossed.origin])

    def _interleaved(self, stage: int, mask: int, waiting: int, batch: Batch) -> tuple[Batch, Ints]:
        """Rows (and which of `batch` they grew from) as they are, and with loops over dims of strided windows between the tiles
        and the copies: windows with holes of copies that stand further apart may share words that neighbouring ones do not. This
        only concerns dims whose steps are no multiple of another dim's (2*p + r: copies along r, two apart), and tiles that leave
        copies along them: other copies share least when apart, so that such loops may wait, as all others do."""
        frozen = self._frozen(waiting)
        open_flows = [f for i, f in enumerate(self.flows) if f"snap{i}" in batch.carried or i in _bits(waiting)]
        strided = {
            d
            for f in open_flows if stage in self._fans_between(f) and self._shares(self.stages[stage], f.tensor)
            for axis, at in self.flow_words.windows[f.tensor]
            for (c, _), d in zip(axis.terms, at) if d is not None and any(c % other for other, _ in axis.terms)
        }  # fmt: skip
        source = np.arange(len(batch))
        for d in sorted(strided - frozen):
            starts, counts, flat = self.lattice.raises[d]
            now = batch.carried["idx"][:, d]
            rows = np.repeat(np.arange(len(now)), counts[now])
            first = np.repeat(np.cumsum(counts[now]) - counts[now], counts[now])
            grown = batch.take(rows)
            grown.carried["idx"] = grown.carried["idx"].copy()
            grown.carried["idx"][:, d] = flat[starts[now[rows]] + np.arange(len(rows)) - first]
            good = self._fits_outside(stage, self.lattice.values(grown.carried["idx"]))
            good &= (grown.carried["idx"][:, d] < self.top[d]) | (grown.carried["idx"][:, d] == now[rows])
            good &= self._obeying(grown.carried, self._region(stage, mask), batch.carried["idx"][rows])
            batch, source = grown.take(good), source[rows[good]]
        return batch, source

    def _multiply(
        self, idx: NDArray[np.int16], spread: Spread, origin: Ints, way: Ints
    ) -> tuple[Ints, Ints, NDArray[np.int16]]:
        """Of the pairs (row, way), those whose multiplied tiles are candidates."""
        for d in range(idx.shape[1]):
            good = self._times(d, spread)[idx[origin, d], way] >= 0
            origin, way = origin[good], way[good]
        new = np.empty((len(origin), idx.shape[1]), dtype=np.int16)
        for d in range(idx.shape[1]):
            new[:, d] = self._times(d, spread)[idx[origin, d], way]
        return origin, way, new

    def _times(self, d: int, spread: Spread) -> NDArray[np.int16]:
        """(candidate, way) -> candidate index of tile x copies, -1 where that is none."""
        table = self._tables.get((d, id(spread)))
        if table is None:
            tiles = self.lattice.tiles[d]
            target = tiles[:, None] * spread.copies[None, :, d]
            place = np.minimum(np.searchsorted(tiles, target), len(tiles) - 1)
            table = self._tables[d, id(spread)] = np.where(tiles[place] == target, place, -1).astype(np.int16)
        return table

    def _slide_allowed(self, slide: NDArray[np.int16], copies: Ints, tensor: str) -> NDArray[np.bool_]:
        allowed = np.ones(len(slide), dtype=bool)
        for _, at in self.flow_words.windows[tensor]:
            dims = [i for i in at if i is not None]
            allowed &= ~np.isin(slide, dims) | (copies[:, dims] == 1).all(axis=1)
        return allowed

    def _crossed(
        self, onward: Slot, stage: int, batch: Batch, origin: Ints, way: Ints, idx: NDArray[np.int16], spread: Spread
    ) -> Batch:
        carried = {name: values[origin] for name, values in batch.carried.items()}
        copies = spread.copies[way]
        below = self.lattice.values(carried["idx"])
        carried |= {"idx": idx, "way": way, f"below{stage}": below, f"lanes{stage}": copies}
        lanes = copies.prod(axis=1).astype(np.float64)
        full, rest = np.divmod(self.sizes, below * copies)
        busiest = full * below + np.minimum(rest, below)
        if len(self.fans) == 1:
            carried["steps"] = busiest.prod(axis=1, dtype=np.float64)
        else:
            carried["steps"] = carried["steps"] / lanes
        waiting = _parts(onward)[2]
        for i in _bits(waiting):
            carried[f"wait_lanes{i}"] = carried[f"wait_lanes{i}"] * copies
            if stage in self._fans_between(self.flows[i]):
                carried[f"wait_sharing{i}"] = carried[f"wait_sharing{i}"] * copies
        reduced = self.flow_words.irrelevant[self.problem.output]
        carried[f"red{stage}"] = copies[:, reduced].prod(axis=1).astype(np.float64)
        carried[f"all{stage}"] = lanes
        for column, (level, _, _) in enumerate(self.limits):
            if self.depth[level.name] < stage:
                carried["words"][:, column] /= lanes
        for i, flow in enumerate(self.flows):
            if f"snap{i}" in carried and max(self._fans_between(flow), default=-1) == stage:
                self._settle(i, carried)
        if stage == self.fans[-1]:
            inner = [i for i, f in enumerate(self.flows) if f.child is None or self.depth[f.child] < stage]
            self._credit(carried, inner)
            for name in [n for n in carried if n.startswith("red")]:
                del carried[name]
            self._forget_copies(stage, waiting, carried)
        if not any(name.startswith("snap") for name in carried):
            for name in list(carried):
                if name.startswith(("below", "lanes")):
                    del carried[name]
        return self._batch(onward, carried, origin, "cross")

    def _forget_copies(self, stage: int, waiting: int, carried: dict[str, NDArray[Any]]) -> None:
        """Drop the copies of crossed fan-outs when nothing will be charged inside any more."""
        last = self.fans[-1] if self.fans else -1
        children = [self.flows[i].child for i in _bits(waiting)]
        if stage >= last and not any(child is None or self.depth[child] < last for child in children):
            for name in [n for n in carried if n.startswith("all")]:
                del carried[name]

    def _fits_outside(self, stage: int, tiles: Ints) -> NDArray[np.bool_]:
        """Whether the current tiles can still stand in every level further out: tiles only grow."""
        fits = np.ones(len(tiles), dtype=bool)
        for node in self.stages[stage + 1 :]:
            if isinstance(node, Level) and node.capacity_words is not None:
                fits &= self._fits(node, self.held[node.name], np.zeros(len(tiles)), tiles)
        return fits

    def _fits(self, level: Level, tensors: Iterable[str], room: Floats, tiles: Ints) -> NDArray[np.bool_]:
        fits = np.ones(len(tiles), dtype=bool)
        if level.capacity_words is None:
            return fits
        total = room
        for tensor in tensors:
            words = self._tile_words(tensor, tiles)
            total = total + words
            if level.is_partitioned:
                fits &= words <= (level.words_for(self.problem.role(tensor)) or 0)
        if not level.is_partitioned:
            fits &= total <= (level.words_for("I") or 0)
        return fits

    def _place(self, slot: Slot, batch: Batch, level: Level) -> Iterator[tuple[Slot, Batch]]:
        stage, mask, waiting = _parts(slot)
        held = self.held[level.name]
        frozen = self._frozen(waiting)
        waits_already = {self.flows[i].tensor for i in _bits(waiting)}
        ordered = self.rules.orders_loops
        for bit, tensor in enumerate(held):
            if mask >> bit & 1 or not self._in_order(level, held, mask, tensor):
                continue
            flow = self.flow_of[tensor, level.name]
            new_mask = mask | 1 << bit
            complete = new_mask == (1 << len(held)) - 1
            unplaced = [t for b, t in enumerate(held) if not mask >> b & 1]
            forced = self._forced(level, tensor)
            free = [d for d in self.flow_words.irrelevant[tensor] if d not in frozen]
            own = self.flow_words.relevant[tensor] if ordered else self.flow_words.window_dims[tensor]
            halo = [d for d in own if d not in frozen and d not in forced]
            together = (max(waiting, 0) | 1 << flow, flow, batch, level)
            if tensor in waits_already:
                if self._may_join(stage, tensor):
                    origin, idx = self._raise(
                        stage, level, unplaced, batch, halo, free if ordered else [], False, forced, frozen
                    )
                    yield self._left_waiting(stage, new_mask, *together, origin, idx)
                continue
            outermost = complete and waiting < 0 and not ordered and self._nothing_outside(stage)
            origin, idx = self._raise(stage, level, unplaced, batch, halo, free, outermost, forced, frozen)
            yield from self._placed((stage, new_mask, waiting), flow, batch, level, origin, idx)
            alone = complete and waiting < 0 and not outermost
            free_to = alone or tensor in self._together or self._held_up(stage, waiting)
            joining = free_to or tensor in self._nested or bool(waits_already & self._nested)
            later = not self._nothing_outside(stage) or (self._ordered_here(level) and not complete)
            if (alone or (joining and later)) and self._may_wait(stage):
                wanted = [d for d in self._wanted_outside(stage, tensor, unplaced) if d not in frozen and d not in forced]
                raised = sorted({*halo, *wanted})
                origin, idx = self._raise(
                    stage, level, unplaced, batch, raised, free if ordered else [], False, forced, frozen
                )
                if not free_to:
                    rows = self._slide_along(tensor, waits_already, idx)
                    origin, idx = origin[rows], idx[rows]
                yield self._left_waiting(stage, new_mask, *together, origin, idx)
        if waiting >= 0:
            yield from self._close(slot, batch, level, waiting, mask)

    def _nothing_outside(self, stage: int) -> bool:
        """Whether no level further out wants tiles, so that dims may be raised to the whole at once."""
        return all(isinstance(n, Level) and not self.held[n.name] for n in self.stages[stage + 1 :])

    def _ordered_here(self, level: Level) -> bool:
        """Whether a constraint fixes an order of this level's tensors: a tensor that would come last without it may then have to
        stay put across loops that the next one of the same level brings, with nothing further out."""
        rule = self.rules.level(level.name)
        return bool(rule.tensors or rule.stationary)

    def _may_wait(self, stage: int) -> bool:  # noqa: ARG002 - asked by the move, answered by kinds of models
        """Whether a tile placed in this stage's level can stay put across loops of levels further out."""
        return True

    def _in_order(self, level: Level, held: tuple[str, ...], mask: int, tensor: str) -> bool:
        """With a fixed order, the innermost tensor that is not placed comes next; what stays comes last."""
        rule = self.rules.level(level.name)
        if tensor == rule.stationary and (mask | 1 << held.index(tensor)) != (1 << len(held)) - 1:
            return False
        for order in (level.order, rule.tensors):
            ordered = [t for role in order or () for t in held if role in (t, self.problem.role(t))]
            left = [t for t in ordered if not mask >> held.index(t) & 1]
            if tensor in ordered and left[-1] != tensor:
                return False
        return True

    def _forced(self, level: Level, tensor: str) -> dict[int, int]:
        """Candidate that a constraint fixes for this tensor's tile here, by dim. Nothing is lost by raising a dim only now: a
        loop over it may stand anywhere between the last tensor that wanted it and this one."""
        tiles = self.rules.level(level.name).tiles
        own = self.flow_words.relevant[tensor]
        return {
            d: self.lattice.lookup[d][tiles[dim]]
            for d, dim in enumerate(self.lattice.dims) if d in own and dim in tiles
        }  # fmt: skip

    # -- order of loops fixed by a constraint ---------------------------------------------------------------------------
    # Loops of one region (between a level's marks and the next inner ones) come from the inside out, so their positions in the
    # fixed order must not rise: `reach` is the position of the outermost so far. Such a search raises every dim at every mark,
    # since a loop that waits for an outer region may meet another order there.
    def _region(self, stage: int, mask: int) -> str:
        """Level of the next mark outwards: the one that a loop made now belongs to."""
        for i, node in enumerate(self.stages[stage:]):
            if isinstance(node, Level):
                held = self.held[node.name]
                if any(not (mask >> b & 1 and i == 0) for b in range(len(held))):
                    return node.name
        return self.root.name

    def _reach(self, region: str, low: Indices, high: Indices, reach: Floats) -> Floats:
        """`reach` after loops that raise `low` to `high`; NaN where the order forbids them."""
        result = reach.copy()
        forbidden = np.zeros(len(result), dtype=bool)
        for position, dim in enumerate(self.rules.level(region).order):
            if dim in self.lattice.dims:
                d = self.lattice.dims.index(dim)
                moved = low[:, d] != high[:, d]
                forbidden |= moved & (position > reach)
                result = np.where(moved, np.minimum(result, position), result)
        return np.where(forbidden, np.nan, result)

    def _obeying(self, carried: dict[str, NDArray[Any]], region: str, low: Indices) -> NDArray[np.bool_]:
        """Rows whose loops since `low` keep the order; moves their reach on."""
        if "reach" not in carried:
            return np.ones(len(low), dtype=bool)
        carried["reach"] = self._reach(region, low, carried["idx"], carried["reach"])
        obeying: NDArray[np.bool_] = ~np.isnan(carried["reach"])
        return obeying

    def _may_finish(self, carried: dict[str, NDArray[Any]]) -> Ints:
        """Rows whose remaining loops, all above every mark, keep the order that is fixed there."""
        if "reach" not in carried:
            return np.arange(len(carried["idx"]))
        top = np.broadcast_to(self.top, carried["idx"].shape)
        return np.flatnonzero(~np.isnan(self._reach(self.root.name, carried["idx"], top, carried["reach"])))

    def _raise(
        self,
        stage: int,
        level: Level,
        unplaced: list[str],
        batch: Batch,
        halo: list[int],
        free: list[int],
        to_top: bool,
        forced: Mapping[int, int],
        frozen: set[int],
    ) -> tuple[Ints, NDArray[np.int16]]:
        """Rows with `halo` and `free` dims raised in every way that still fits here and further out. `to_top`: nothing else
        can want the free dims, so the whole dim is best. `forced` dims are raised to the candidate that a constraint fixes."""
        idx = batch.carried["idx"]
        origin = np.arange(len(idx))
        for d, target in forced.items():
            can = self._reachable(d, target)[idx[:, d]] if d not in frozen else idx[:, d] == target
            origin, idx = origin[can], idx[can]
            idx[:, d] = target
        if forced:
            fits = self._fits_outside(stage, self.lattice.values(idx))
            origin, idx = origin[fits], idx[fits]
        if to_top:
            idx = idx.copy()
            idx[:, free] = self.top[free]
        for d in [*halo, *([] if to_top else free)]:
            starts, counts, flat = self.lattice.raises[d]
            n_options = counts[idx[:, d]]
            rows = np.repeat(np.arange(len(idx)), n_options)
            first = np.repeat(np.cumsum(n_options) - n_options, n_options)
            raised = flat[starts[idx[rows, d]] + np.arange(len(rows)) - first]
            idx = idx[rows]
            idx[:, d] = raised
            origin = origin[rows]
            tiles = self.lattice.values(idx)
            fits = self._fits(level, unplaced, batch.carried["room"][origin], tiles) & self._fits_outside(stage, tiles)
            origin, idx = origin[fits], idx[fits]
        if to_top or not [*halo, *free]:
            # A tile that is placed last does not change with the dims that were raised to the top.
            fits = self._fits(level, unplaced, batch.carried["room"][origin], self.lattice.values(idx))
            origin, idx = origin[fits], idx[fits]
        return origin, idx

    def _reachable(self, d: int, target: int) -> NDArray[np.bool_]:
        """Per candidate of dim d: whether it can be raised to `target`."""
        starts, counts, flat = self.lattice.raises[d]
        return np.array([target in flat[s : s + n] for s, n in zip(starts, counts)], dtype=bool)

    def _placed(
        self, onward: Slot, flow: int, batch: Batch, level: Level, origin: Ints, idx: NDArray[np.int16]
    ) -> Iterator[tuple[Slot, Batch]]:
        carried = {name: values[origin] for name, values in batch.carried.items()}
        carried["idx"] = idx
        obeying = self._obeying(carried, level.name, batch.carried["idx"][origin])
        carried = {name: values[obeying] for name, values in carried.items()}
        origin, idx = origin[obeying], idx[obeying]
        region = self._region(*_parts(onward)[:2])
        if "reach" in carried and region != level.name:
            carried["reach"] = np.full(len(idx), np.inf)
        tensor = self.flows[flow].tensor
        if level.capacity_words is not None and not level.is_partitioned:
            carried["room"] = carried["room"] + self._tile_words(tensor, self.lattice.values(idx))
        frozen = self._frozen(_parts(onward)[2])
        for variant, source in self._slides(carried, self.flow_words.window_dims[tensor], frozen):
            good = self._obeying(variant, region, idx[source])
            variant, source = {name: values[good] for name, values in variant.items()}, source[good]
            self._open(flow, variant, variant["slide"], variant.pop("run"))
            if not any(f > self.depth[level.name] for f in self.fans):
                self._credit(variant, [flow])
            if not self._fans_between(self.flows[flow]):
                self._settle(flow, variant)
            yield onward, self._batch(onward, variant, origin[source], f"place {tensor} {level.name}")

    def _slides(
        self, carried: dict[str, NDArray[Any]], dims: list[int], frozen: set[int]
    ) -> Iterator[tuple[dict[str, NDArray[Any]], Ints]]:
        """Each row as it is, and with a sliding loop right outside, over every run length."""
        n = len(carried["idx"])
        still = {
            **carried,
            "slide": np.full(n, -1, np.int16),
            "pre": np.zeros(n, np.int16),
            "run": np.ones(n, np.int64),
        }
        yield still, np.arange(n)
        for d in dims:
            if d in frozen:
                continue
            starts, counts, flat = self.lattice.raises[d]
            now = carried["idx"][:, d]
            n_options = counts[now] - 1
            rows = np.repeat(np.arange(n), n_options)
            if len(rows) == 0:
                continue
            first = np.repeat(np.cumsum(n_options) - n_options, n_options)
            target = flat[starts[now[rows]] + 1 + np.arange(len(rows)) - first]
            moved = {name: values[rows] for name, values in carried.items()}
            moved["pre"] = moved["idx"][:, d].copy()
            moved["idx"] = moved["idx"].copy()
            moved["idx"][:, d] = target
            moved["slide"] = np.full(len(rows), d, np.int16)
            moved["run"] = self.lattice.tiles[d][target]
            yield moved, rows

    def _left_waiting(
        self,
        stage: int,
        mask: int,
        waiting: int,
        flow: int,
        batch: Batch,
        level: Level,
        origin: Ints,
        idx: NDArray[np.int16],
    ) -> tuple[Slot, Batch]:
        """Rows with flow's tile placed here and open for reuse by loops further out; `mask` and `waiting` include it."""
        onward: Slot = (stage, mask, waiting)
        carried = {name: values[origin] for name, values in batch.carried.items()} | {"idx": idx}
        obeying = self._obeying(carried, level.name, batch.carried["idx"][origin])
        carried = {name: values[obeying] for name, values in carried.items()}
        origin, idx = origin[obeying], idx[obeying]
        if "reach" in carried and self._region(stage, mask) != level.name:
            carried["reach"] = np.full(len(idx), np.inf)
        tensor = self.flows[flow].tensor
        tiles = self.lattice.values(idx)
        complete = mask == (1 << len(self.held[level.name])) - 1
        if level.capacity_words is not None and not level.is_partitioned and (self.keeps_room or not complete):
            carried["room"] = carried["room"] + self._tile_words(tensor, tiles)
        carried |= {
            f"wait_tiles{flow}": tiles,
            f"wait_lanes{flow}": np.ones_like(tiles),
            f"wait_sharing{flow}": np.ones_like(tiles),
            "slide": np.full(len(idx), -1, np.int16),
        }
        if not any(f > self.depth[level.name] for f in self.fans):
            self._credit(carried, [flow])
        return onward, self._batch(onward, carried, origin, f"wait {tensor} {level.name}")

    def _may_close(self, stage: int, group: list[int]) -> bool:
        """Whether the waiting tiles of one tensor can be settled here: their fan-outs are crossed, and there was a wait."""
        for i in group:
            if self.depth[self.flows[i].child or ""] == stage:
                if len(group) == 1:
                    return False
            elif any(f >= stage for f in self._fans_between(self.flows[i])):
                return False
        return True

    def _close(self, slot: Slot, batch: Batch, level: Level, waiting: int, mask: int) -> Iterator[tuple[Slot, Batch]]:
        """Settle the waiting flows of one tensor: loops over dims that it does not have, up to here, were reuse."""
        stage = _parts(slot)[0]
        for tensor in sorted({self.flows[i].tensor for i in _bits(waiting)}):
            group = [i for i in _bits(waiting) if self.flows[i].tensor == tensor]
            if self._may_close(stage, group):
                left = waiting & ~sum(1 << i for i in group)
                onward: Slot = (stage, mask, left or -1)
                yield from self._closed(onward, group, batch, level)

    def _closed(self, onward: Slot, group: list[int], batch: Batch, level: Level) -> Iterator[tuple[Slot, Batch]]:
        stage, mask, waiting = _parts(onward)
        tensor = self.flows[group[0]].tensor
        unplaced = [t for b, t in enumerate(self.held[level.name]) if not mask >> b & 1]
        frozen = self._frozen(waiting)
        free = [d for d in self.flow_words.irrelevant[tensor] if d not in frozen]
        to_top = level is self.root and not self.rules.orders_loops
        origin, idx = self._raise(stage, level, unplaced, batch, [], free, to_top, {}, set())
        carried = {name: values[origin] for name, values in batch.carried.items()}
        carried["idx"] = idx
        region = self._region(stage, mask)
        obeying = self._obeying(carried, region, batch.carried["idx"][origin])
        carried = {name: values[obeying] for name, values in carried.items()}
        origin, idx = origin[obeying], idx[obeying]
        below = {i: carried.pop(f"wait_tiles{i}") for i in group}
        lanes = {i: carried.pop(f"wait_lanes{i}") for i in group}
        sharing = {i: carried.pop(f"wait_sharing{i}") for i in group}
        for variant, source in self._slides(carried, self.flow_words.window_dims[tensor], frozen):
            slide = variant["slide"]
            allowed = self._obeying(variant, region, idx[source])
            for i in group:
                allowed &= self._slide_allowed(slide, lanes[i][source], tensor)
            variant = {name: values[allowed] for name, values in variant.items()}
            rows, slide, run = source[allowed], slide[allowed], variant.pop("run")
            for i in group:
                if self.depth[self.flows[i].child or ""] < stage:
                    self._pay_waiting(i, variant, below[i][rows], lanes[i][rows], sharing[i][rows], slide, run)
                    continue
                self._open(i, variant, slide, run)
                if not self._fans_between(self.flows[i]):
                    self._settle(i, variant)
            self._forget_copies(stage, waiting, variant)
            yield onward, self._batch(onward, variant, origin[rows], "close")

    def _pay_waiting(
        self,
        i: int,
        carried: dict[str, NDArray[Any]],
        below: Ints,
        lanes: Ints,
        sharing: Ints,
        slide: NDArray[np.int16],
        run: Ints,
    ) -> None:
        """Pay flow i, whose tile was `below`; since then its copies were multiplied by `lanes`, `sharing` of them below its
        parent."""
        flow, words = self.flows[i], self.flow_words
        before = carried["idx"] if slide.max(initial=-1) < 0 else _with(carried["idx"], slide, carried["pre"])
        tiles = self.lattice.values(before)
        up, down = np.ones(len(tiles)), np.ones(len(tiles))
        for d in words.irrelevant[flow.tensor]:
            full, rest = np.divmod(self.sizes[d], tiles[:, d])
            rest = np.minimum(rest, lanes[:, d] * below[:, d])
            up *= full * (lanes[:, d] // sharing[:, d]) + -(-rest // (below[:, d] * sharing[:, d]))
            down *= full * lanes[:, d] + -(-rest // below[:, d])
        fans = self._fans_between(flow)
        crossing = Crossing(below, sharing, all(self._shares(self.stages[f], flow.tensor) for f in fans))
        if not crossing.shared:
            up = down
        volume = self._volume(flow.tensor, below, slide, run)
        shared = words.shared_volume(flow.tensor, below, [crossing]) if fans else volume
        self._pay(i, carried, up * np.where(slide >= 0, volume, shared), down * volume)

    # -- from a trail back to a nest -----------------------------------------------------------------------------------
    def nest(self, trail: Trail, top: Ints | None = None) -> Nest:
        """The loop nest of a finished answer, on blocks with the tiles `top` (the whole dims where None)."""
        inner_first: list[Loop | Keep] = []
        now = np.zeros(len(self.lattice.dims), dtype=np.int64)
        for slot, move, row in trail.steps[1:]:
            words = move.split()
            if words[0] == "cross":
                stage = _parts(slot)[0] - 1
                below = self._below(self.stages[stage], row)
                inner_first += self._temporal(now, below)
                inner_first += self._spatial(self.stages[stage], below, int(row["way"]))
                now = row["idx"].astype(np.int64)
                continue
            slide = int(row["slide"]) if words[0] in ("place", "close") else -1
            before = row["idx"].astype(np.int64)
            if slide >= 0:
                before[slide] = int(row["pre"])
            inner_first += self._temporal(now, before)
            if words[0] in ("place", "wait"):
                inner_first.append(Keep(words[2], words[1]))
            inner_first += self._temporal(before, row["idx"].astype(np.int64))
            now = row["idx"].astype(np.int64)
        inner_first += self._temporal(now, self.top.astype(np.int64) if top is None else top)
        return self._sorted(tuple(reversed(inner_first)))

    def _sorted(self, nodes: tuple[Loop | Keep, ...]) -> Nest:
        """Loops between two marks in the order that a constraint fixes; their costs do not depend on it."""
        result, region, start = list(nodes), self.root.name, 0
        for end in range(len(nodes) + 1):
            if end < len(nodes) and isinstance(nodes[end], Loop) and nodes[end].axis is None:  # type: ignore[union-attr]
                continue
            order = self.rules.level(region).order
            places = [i for i in range(start, end) if getattr(nodes[i], "dim", None) in order]
            for i, loop in zip(places, sorted((nodes[i] for i in places), key=lambda n: order.index(n.dim))):  # type: ignore[union-attr]
                result[i] = loop
            if end < len(nodes):
                region = getattr(nodes[end], "level", region)
            start = end + 1
        return Nest(tuple(result))

    def _below(self, fan: Level | FanOut, row: dict[str, Any]) -> Ints:
        """Candidates of one copy's tile, from the tile of all copies."""
        copies = self.spread[fan.name].copies[int(row["way"])]
        tiles = [int(t[i]) // int(n) for t, i, n in zip(self.lattice.tiles, row["idx"], copies)]
        return np.array([self.lattice.lookup[d][t] for d, t in enumerate(tiles)], dtype=np.int64)

    def _temporal(self, low: Ints, high: Ints) -> list[Loop | Keep]:
        return [
            Loop(dim, int(self.lattice.tiles[d][low[d]]))
            for d, dim in enumerate(self.lattice.dims)
            if high[d] != low[d]
        ]

    def _spatial(self, fan: Level | FanOut, now: Ints, way: int) -> list[Loop | Keep]:
        tile = [int(t[i]) for t, i in zip(self.lattice.tiles, now)]
        loops: list[Loop | Keep] = []
        for axis, copies in self.spread[fan.name].splits[way].items():
            for d, dim in enumerate(self.lattice.dims):
                if copies[d] > 1:
                    loops.append(Loop(dim, tile[d], axis))
                    tile[d] *= copies[d]
        return loops


def _parts(slot: Slot) -> tuple[int, int, int]:
    stage, mask, waiting = slot
    assert isinstance(stage, int)
    assert isinstance(mask, int)
    assert isinstance(waiting, int)
    return stage, mask, waiting


def _bits(waiting: int) -> list[int]:
    """Flows in a slot's set of waiting flows; -1 is none."""
    return [] if waiting < 0 else [i for i in range(waiting.bit_length()) if waiting >> i & 1]


def _with(idx: NDArray[np.int16], slide: NDArray[np.int16], pre: NDArray[np.int16]) -> NDArray[np.int16]:
    """Candidate indices with the sliding dim at its value below the sliding loop."""
    result = idx.copy()
    rows = np.flatnonzero(slide >= 0)
    result[rows, slide[rows]] = pre[rows]
    return result
