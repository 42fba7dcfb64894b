"""Techniques of a request: what they ask of the runtime, the graph, the launch rules and the run parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from orchard.cost.lower import Lowering
from orchard.ir import Graph
from orchard.studies.errors import StudyError
from orchard.studies.request import Request
from orchard.units import OrchardError

if TYPE_CHECKING:
    from orchard.cost.profile import Profile
    from orchard.techniques import Technique


def parsed(texts: Sequence[str]) -> tuple[Technique, ...]:
    """The techniques of `--apply`, checked against each other. Raises TechniqueError."""
    return _parsed(tuple(texts)) if texts else ()


@lru_cache(maxsize=256)
def _parsed(texts: tuple[str, ...]) -> tuple[Technique, ...]:
    from orchard.techniques import parse_all

    return parse_all(texts)


def run_request(request: Request) -> Request:
    """The request with the run parameters that its techniques set: sequences at once, denoising steps."""
    if not request.apply:
        return request
    from orchard.techniques.cache import KvQuant
    from orchard.techniques.runs import Batching, StepReduction

    for technique in parsed(request.apply):
        if isinstance(technique, Batching):
            request = replace(request, batch=technique.size)
        elif isinstance(technique, KvQuant) and technique.v_bits in (0, technique.bits):
            request = replace(request, kv=technique.FORMATS[technique.bits])
        elif isinstance(technique, StepReduction):
            request = replace(request, steps=technique.steps)
    return request


def runtime_hint(request: Request) -> str | None:
    """The runtime whose files look like what the techniques make, where the user leaves the choice open."""
    hints = [t.runtime for t in parsed(request.apply) if t.runtime]
    engine = request.engine.lower()
    if not hints or engine not in ("auto", "all", "ane", "cpu_and_ne"):
        return None
    return hints[0]


def profile_of(profile: Profile, request: Request) -> Profile:
    """The profile with its launch rules and the size of prompt passes changed by techniques. Raises TechniqueError for one
    without a rule on the engine."""
    if not request.apply:
        return profile
    from orchard.techniques.runs import PrefillChunk

    chunk = next((t.tokens for t in parsed(request.apply) if isinstance(t, PrefillChunk)), None)
    rules = profile.rules if chunk is None else {**profile.rules, "prefill_chunk": chunk}
    return replace(profile, lowering=_lowering(profile, request), rules=rules)


def check_family(request: Request, family: str, name: str) -> None:
    """Raises TechniqueError for a technique of prompts on a model that has none."""
    from orchard.techniques import TechniqueError

    if family != "decoder" and any(t.name == "prefill-chunk" for t in parsed(request.apply)):
        raise TechniqueError(f"prefill-chunk: {name} is no language model that reads a prompt in passes")


def _lowering(profile: Profile, request: Request) -> Lowering:
    from orchard.techniques import check_engine
    from orchard.techniques.runs import FlashAttention, Fusion

    rules = profile.lowering

    found = parsed(request.apply)
    check_engine(found, profile.engine)
    for technique in found:
        if isinstance(technique, FlashAttention):
            rules = replace(
                rules, fused_attention=technique.on, fused_head_most=0 if technique.on else rules.fused_head_most
            )
        elif isinstance(technique, Fusion):
            rules = _fused(rules) if technique.on else replace(rules, chains=(), epilogues=())
    return rules


EPILOGUES = (
    "elementwise.add", "elementwise.mul", "elementwise.silu", "elementwise.gelu", "elementwise.gelu_tanh", "elementwise.relu",
    "elementwise.scale", "elementwise.sigmoid", "norm.batchnorm",
)  # fmt: skip
CHAINS = (
    ("elementwise", "elementwise"), ("elementwise", "elementwise", "elementwise"), ("elementwise.add", "norm"),
    ("norm", "rope"), ("softmax", "elementwise"),
)  # fmt: skip


def _fused(rules: Lowering) -> Lowering:
    """What a compiler may fuse: elementwise ops into the product before, runs of them, an addition with the norm after it."""
    return replace(
        rules,
        epilogues=tuple(dict.fromkeys((*rules.epilogues, *EPILOGUES))),
        chains=tuple(dict.fromkeys((*rules.chains, *CHAINS))),
    )


_GRAPHS: dict[tuple[int, tuple[str, ...]], tuple[Graph, Graph]] = {}


def applied(graph: Graph, request: Request, *, optional: bool = False) -> Graph:
    """The graph after the passes of the request; built once per live graph. `optional`: where a pass finds nothing in
    this graph of several, it leaves it as it is."""
    if not request.apply:
        return graph
    key = (id(graph), request.apply)
    found = _GRAPHS.get(key)
    if found is None or found[0] is not graph:
        if len(_GRAPHS) > 64:
            _GRAPHS.clear()
        found = (graph, _passes(graph, request, optional))
        _GRAPHS[key] = found
    return found[1]


def _passes(graph: Graph, request: Request, optional: bool) -> Graph:
    from orchard.techniques import GraphPass, apply_pass

    for technique in parsed(request.apply):
        if not isinstance(technique, GraphPass):
            continue
        try:
            graph = apply_pass(technique, graph)
        except OrchardError:
            if not optional:
                raise
    return graph


def refuse_simulation(request: Request, names: Sequence[str]) -> None:
    """Raises StudyError: the simulator runs passes as they are."""
    if names and request.fidelity == "simulation":
        raise StudyError(
            f"--apply {names[0]} with --fidelity simulation: the simulator has no rule for it; use estimate"
        )
