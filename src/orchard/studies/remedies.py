"""What would fit, for a model that does not: fewer bits per weight, a smaller cache, fewer tokens, another chip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from orchard.hw import chip_summaries, load_chip
from orchard.ir import Graph
from orchard.studies.memory import Memory, memory_limit, memory_need
from orchard.studies.predict import AS_STORED, Prediction, make_plan, memory_of
from orchard.studies.sources import ImportedModel, bind_symbols
from orchard.units import OrchardError
from orchard.workloads import Model

LADDERS: dict[str, tuple[str, ...]] = {
    "llama.cpp": ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"),
    "mlx": ("mlx-8bit-g64", "mlx-6bit-g64", "mlx-4bit-g64", "mlx-3bit-g64", "mlx-2bit-g64"),
    "coreml": ("int8-channel", "pal6", "pal4", "pal2"),
}
"""Weight formats people use with a runtime, most bits first."""

MOST_CHIPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedies:
    """Each remedy alone makes the request fit; None or empty where it cannot.

    weights     the format with most bits that fits, and the sum of memory it needs
    kv          a cache format that fits
    tokens      most tokens (prompt and generated, per sequence, depth included) that fit with these weights
    batch       most sequences that fit
    chips       smallest catalogue chips on which the request fits: id and the bytes the engine may use there
    """

    weights: tuple[str, int] | None = None
    kv: tuple[str, int] | None = None
    tokens: int | None = None
    batch: int | None = None
    chips: tuple[tuple[str, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        def sized(pair: tuple[str, int] | None) -> dict[str, Any] | None:
            return None if pair is None else {"format": pair[0], "total_bytes": pair[1]}

        return {
            "weights": sized(self.weights),
            "kv": sized(self.kv),
            "tokens": self.tokens,
            "batch": self.batch,
            "chips": [{"id": chip, "limit_bytes": limit} for chip, limit in self.chips],
        }


def remedies(prediction: Prediction) -> Remedies:
    """What would make an unfitting prediction fit; nothing to say about one that fits."""
    if prediction.memory.fits:
        return Remedies()
    need = _Need(prediction)
    return Remedies(
        weights=_weights(prediction, need),
        kv=_kv(prediction, need),
        tokens=None if need.is_two_part else _most(need.tokens, lambda n: need.memory(tokens=n)),
        batch=_most(prediction.request.batch, lambda n: need.memory(batch=n)),
        chips=_chips(prediction),
    )


class _Need:
    """Memory of the request with one thing changed."""

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        request = prediction.request
        self.tokens = request.depth + request.prompt + request.generate
        self.is_two_part = isinstance(prediction.model, Model) and len(prediction.model.parts) > 1  # Whisper
        self.own_weights = None if prediction.weights == AS_STORED else prediction.weights
        self.graph = self._graph(self.own_weights, request.kv)

    def _graph(self, weights: str | None, kv: str) -> Graph:
        skip = bool(self.prediction.profile.rules.get("skip_shared_prefill", False))
        request = self.prediction.request
        return self.prediction.model.graph(
            weights=weights, kv_format=kv, activations=request.activations, skip_shared_prefill=skip
        )

    def memory(
        self, *, weights: str | None = None, kv: str | None = None, tokens: int | None = None, batch: int | None = None
    ) -> Memory:
        p, request = self.prediction, self.prediction.request
        if self.is_two_part:
            changed = replace(
                request, weights=weights or request.weights, kv=kv or request.kv, batch=batch or request.batch
            )
            return memory_of(make_plan(changed), p.soc, changed)
        graph = (
            self.graph if weights is None and kv is None else self._graph(weights or self.own_weights, kv or request.kv)
        )
        if isinstance(p.model, ImportedModel) and p.model.family == "imported":
            sizes = bind_symbols(graph, replace(request, batch=batch or request.batch, prompt=tokens or request.prompt))
            return memory_need(graph, p.soc, p.profile.engine, largest=sizes, final=sizes)
        length, sequences = tokens or self.tokens, batch or request.batch
        chunk = int(p.profile.rules.get("prefill_chunk", 512))
        new = max(1, min(request.prompt or 1, length, chunk // sequences or 1))
        largest = _bound(graph, B=sequences, T=new, S=min(length, request.depth + new))
        final = _bound(graph, B=sequences, T=new, S=length)
        return memory_need(graph, p.soc, p.profile.engine, largest=largest, final=final)


def _bound(graph: Graph, **sizes: int) -> dict[str, int]:
    return {name: value for name, value in sizes.items() if name in graph.symbols}


def _weights(prediction: Prediction, need: _Need) -> tuple[str, int] | None:
    for scheme in LADDERS.get(prediction.profile.runtime, LADDERS["llama.cpp"]):
        try:
            memory = need.memory(weights=scheme)
        except OrchardError:
            continue  # this model cannot have this format
        if memory.weights < prediction.memory.weights and memory.fits:
            return scheme, memory.total
    return None


def _kv(prediction: Prediction, need: _Need) -> tuple[str, int] | None:
    if not prediction.memory.kv_cache:
        return None
    for name in ("q8_0", "q4_0"):
        memory = need.memory(kv=name)
        if memory.kv_cache < prediction.memory.kv_cache and memory.fits:
            return name, memory.total
    return None


def _most(given: int, memory_with: Any) -> int | None:
    """The largest number below `given` that fits (memory grows with it); None when not even one does."""
    if given <= 1 or not memory_with(1).fits:
        return None
    fits, fails = 1, given
    while fails - fits > max(1, fits // 100):
        middle = (fits + fails) // 2
        if memory_with(middle).fits:
            fits = middle
        else:
            fails = middle
    return fits


def _chips(prediction: Prediction) -> tuple[tuple[str, int], ...]:
    """The first few catalogue chips with least memory that hold the request; overrides stay with the user's chip."""
    total, engine = prediction.memory.total, prediction.profile.engine
    candidates = [c for c in chip_summaries() if (c.dram_capacity_max_bytes or 0) > total and c.base is None]
    found: list[tuple[str, int]] = []
    for summary in sorted(candidates, key=lambda c: (c.dram_capacity_max_bytes or 0, -c.dram_bytes_per_s)):
        soc = load_chip(summary.id)
        if engine == "ane" and not soc.has_ane:
            continue
        limit = memory_limit(soc, engine)
        if limit >= total:
            found.append((summary.id, limit))
        if len(found) == MOST_CHIPS:
            break
    return tuple(found)
