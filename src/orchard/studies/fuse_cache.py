"""Chains mapped before, in the same folder and by the same rules as single ops (`orchard.studies.map_cache`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from orchard.cost.chain import estimate_chain
from orchard.cost.mapped import check_capacity
from orchard.cost.nest import count
from orchard.hw.arch import Architecture
from orchard.mapping.chain import Chain
from orchard.mapping.fused import FusedMapping, Group, Shape, SharedLoop, fused_errors
from orchard.mapping.problem import Problem
from orchard.studies.fuse import MappedChain, chain_value, map_chain
from orchard.studies.map_cache import (
    MappingCache,
    arch_text,
    code_version,
    digest,
    hash_of,
    holds,
    nest_data,
    nest_from,
)
from orchard.studies.nest_search import Objective

CHAIN_CODE = {
    "orchard.mapping": ("chain.py", "fused.py", "halo.py"),
    "orchard.cost": ("chain.py",),
    "orchard.studies": ("fuse.py", "fuse_fronts.py", "fuse_groups.py"),
}
"""Files beside those of the single-op mapper whose text decides an answer."""


@dataclass(frozen=True)
class ChainQuestion:
    """What is asked."""

    chain: Chain
    arch: Architecture
    objective: Objective
    time_limit_s: float | None = None

    @cached_property
    def key(self) -> str:
        """Hash of the question and of the code that answers it. The chain's name plays no part."""
        chain = replace(self.chain, name="")
        return digest(["chain", code_version(), _chain_version(), chain, arch_text(self.arch), self.objective, self.time_limit_s])


@lru_cache(maxsize=1)
def _chain_version() -> str:
    return hash_of(CHAIN_CODE)


def solve_chain(
    question: ChainQuestion, cache: MappingCache | None, say: Callable[[str], None] = lambda _: None
) -> tuple[MappedChain, bool]:
    """The answer, and whether it was stored. Raises as `map_chain` does."""
    known = None if cache is None else cache.read(question.key, lambda data: _answer(question, data))
    if known is not None:
        return known, True
    mapped = map_chain(question.chain, question.arch, question.objective, time_limit_s=question.time_limit_s, say=say)
    if cache is not None:
        cache.write(question.key, _entry(mapped))
        cache.trim()
    return mapped, False


def _entry(mapped: MappedChain) -> dict[str, Any]:
    mapping = mapped.mapping
    return {
        "groups": [_group_data(group) for group in mapping.groups], "level": mapping.level, "whole": sorted(mapping.whole),
        "value": mapped.value, "unfused": mapped.unfused, "optimal": mapped.optimal, "bound": mapped.bound,
        "mappings_considered": mapped.mappings_considered, "search_s": mapped.search_s,
    }  # fmt: skip


def _group_data(group: Group) -> dict[str, Any]:
    return {
        "ops": [group.first, group.last],
        "loops": [[loop.dim, loop.tile] for loop in group.loops],
        "pins": dict(group.pins),
        "kept": sorted(group.kept),
        "nests": [[i, nest_data(nest)] for i, nest in group.nests.items()],
        "later": [[i, sorted(phase), nest_data(nest)] for (i, phase), nest in group.later.items()],
    }


def _group_from(data: dict[str, Any]) -> Group:
    first, last = data["ops"]
    return Group(
        int(first), int(last), tuple(SharedLoop(str(d), int(t)) for d, t in data["loops"]),
        {str(t): int(depth) for t, depth in data["pins"].items()},
        {int(i): nest_from(nest) for i, nest in data["nests"]},
        frozenset((str(t), str(d)) for t, d in data["kept"]),
        {(int(i), frozenset(map(str, phase))): nest_from(nest) for i, phase, nest in data["later"]},
    )  # fmt: skip


def _answer(question: ChainQuestion, data: dict[str, Any]) -> MappedChain | None:
    """The entry as an answer; None (or an error of broken data) where it is not what its mapping is worth."""
    chain, arch = question.chain, question.arch
    level = data["level"]
    mapping = FusedMapping(tuple(_group_from(g) for g in data["groups"]), level, frozenset(map(str, data["whole"])))
    fused_errors(mapping, chain, arch)
    _check_inner(mapping, chain, arch)
    cost = estimate_chain(mapping, chain, arch)
    value = chain_value(question.objective, cost, arch)
    if not holds(data["value"], value, data["bound"]):
        return None
    unfused = None if data["unfused"] is None else float(data["unfused"])
    return MappedChain(
        chain, arch, question.objective, mapping, cost, value, unfused, bool(data["optimal"]), float(data["bound"]),
        int(data["mappings_considered"]), float(data["search_s"]),
    )  # fmt: skip


def _check_inner(mapping: FusedMapping, chain: Chain, arch: Architecture) -> None:
    """Every nest by itself fits in every level (`estimate_chain` looks at the fusion level alone)."""
    for group in mapping.groups:
        shape = Shape.of(chain, group)
        near = (shape.own | set(group.pins) | mapping.whole) if mapping.level else frozenset()
        for i in group.ops:
            op = chain.ops[i]
            if isinstance(op, Problem):
                for phase in shape.variants(i):
                    tile = Problem(op.name, op.einsum, shape.sizes(i, phase), op.tensors, op.bits)
                    roots = {t: mapping.level for t in op.tensors if t in near and mapping.level}
                    counted = count(group.nest(i, phase), tile, arch, roots=roots)
                    inner = {k: n for k, n in counted.footprint.items() if k[0] != mapping.level}
                    check_capacity(replace(counted, footprint=inner), tile, arch)
