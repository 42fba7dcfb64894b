"""`orchard map --fuse`: the best way to run several ops in a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchard.app.output import note, print_json, print_text


def map_fused(
    text: str, arch_name: str | None, chip: str | None, engine: str, objective: str | None, sizes: list[str] | None,
    time_limit: float | None, overrides: tuple[str, ...], unused: Mapping[str, object], overlap: bool | None, store: Any,
    as_json: bool,
) -> None:  # fmt: skip
    """Map a chain and print it. `unused` are options that --fuse does not take; `overlap` replaces what the machine says about
    its vector unit."""
    from orchard.mapping import MappingError
    from orchard.mapping.chain_text import parse_chain
    from orchard.mapping.ops import parse_sizes
    from orchard.report.fused import fused_record, fused_text
    from orchard.studies.fuse_cache import ChainQuestion, solve_chain
    from orchard.studies.map_machine import machine_for

    for name, value in unused.items():
        if value and not (name == "--factors" and value == "perfect"):
            raise MappingError(f"{name} does not go with --fuse (tiles of a chain are perfect)")
    if not text:
        raise MappingError("nothing to fuse: expected attention:…, mlp:…, convs:… or Einsums between semicolons")
    if time_limit is not None and not time_limit >= 0:
        raise MappingError(f"--time-limit is {time_limit}, expected seconds >= 0")
    chain = parse_chain(text, parse_sizes(",".join(sizes or [])))
    machine = machine_for(arch_name, chip, engine, overrides)
    for sentence in machine.notes:
        note(sentence)
    arch = machine.arch
    if overlap is not None:
        if arch.vector is None:
            raise MappingError(f"{arch.name} has no vector unit, so nothing can overlap with it or take turns")
        arch = replace(arch, vector=replace(arch.vector, overlap=overlap))
    chosen: Any = objective or ("latency" if chip is not None else "edp")
    mapped, was_stored = solve_chain(ChainQuestion(chain, arch, chosen, time_limit), store, say=note)
    if was_stored:
        note(f"from the cache, found in {mapped.search_s:.2f} s")
    if as_json:
        print_json(fused_record(mapped))
    else:
        print_text(fused_text(mapped))


def refuse_chain(text: str, overlap: bool | None) -> None:
    """Raise MappingError where only --fuse can help."""
    from orchard.mapping import MappingError
    from orchard.mapping.chain_text import is_chain

    if is_chain(text):
        raise MappingError(f"{text[:60]!r} names several ops or elementwise work: add --fuse")
    if overlap is not None:
        raise MappingError("--vector-overlap and --vector-turns need --fuse")
