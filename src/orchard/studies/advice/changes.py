"""What may be changed in a request: every change as a record, with the risk for quality and the effort it asks.

Changes come from the weight formats of the runtime, the technique passes, the profiles of other engines and runtimes, and
the built-in models of the same family. Nothing here knows whether a change pays; `studies/advise.py` predicts that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from orchard.cost.profile import load_profile, profile_names
from orchard.studies.advice.family import drafts, smaller_models
from orchard.studies.predict import AS_STORED, Prediction
from orchard.studies.request import Request
from orchard.studies.sources import served_as
from orchard.techniques import parse_technique
from orchard.techniques.cards import load_cards
from orchard.units import scheme


class Risk(IntEnum):
    """For the quality of the answers. NONE: the same answers but for rounding; LOW: published losses are below 1 %;
    MODERATE: losses of a few per cent, to be measured; HIGH: needs training or another model."""

    NONE = 0
    LOW = 1
    MODERATE = 2
    HIGH = 3


class Effort(IntEnum):
    """SWITCH: an option of the run. CONVERT: convert or download other files. CALIBRATE: with sample data. REWRITE: change the
    model's code. TRAIN: training."""

    SWITCH = 0
    CONVERT = 1
    CALIBRATE = 2
    REWRITE = 3
    TRAIN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change. A request takes one change of each `slot`.

    kind      what advice is grouped by; `error_kind` whose measured pairs say how well its ratio is known
    card      the technique whose card speaks of quality, if there is one; `quality` the sentence
    fields    fields of `Request` it sets; `apply` techniques it adds, `drops` techniques it takes away
    """

    kind: str
    slot: str
    title: str
    risk: Risk
    effort: Effort
    quality: str
    error_kind: str
    card: str = ""
    fields: tuple[tuple[str, str | int | tuple[str, ...] | None], ...] = ()
    apply: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()

    def on(self, request: Request) -> Request:
        """The request with the change."""
        left = [t for t in request.apply if t.partition(":")[0] not in self.drops]
        found = sorted((*left, *self.apply), key=lambda text: parse_technique(text).stage)
        changed = replace(request, apply=tuple(found), **dict(self.fields))  # type: ignore[arg-type]
        if "runtime" in dict(self.fields):
            changed = replace(changed, weights=loadable(request.weights, str(changed.runtime)))
        return changed


FORMATS: Mapping[str, Sequence[tuple[str, Risk, str]]] = {
    "llama.cpp": (
        ("q8_0", Risk.LOW, "rtn"), ("q6_k", Risk.LOW, "k-quant"), ("q5_k_m", Risk.LOW, "k-quant"),
        ("q4_k_m", Risk.MODERATE, "k-quant"), ("q4_0", Risk.MODERATE, "rtn"), ("q3_k_m", Risk.HIGH, "k-quant"),
    ),
    "mlx": (
        ("mlx-8bit-g64", Risk.LOW, "rtn"), ("mlx-6bit-g64", Risk.LOW, "rtn"), ("mlx-4bit-g64", Risk.MODERATE, "rtn"),
        ("mlx-3bit-g64", Risk.HIGH, "rtn"),
    ),
}  # fmt: skip
"""Weight formats people use with a runtime, most bits first; their risk follows the quality lines of the cards."""
ALIKE = {"ik_llama.cpp": "llama.cpp", "whisper.cpp": "llama.cpp", "rapid-mlx": "mlx"}
"""Runtimes that load another one's files."""

TECHNIQUES: Sequence[tuple[str, str, str, Risk, Effort]] = (
    ("rtn:bits=8", "weights", "weights", Risk.LOW, Effort.CONVERT),
    ("palettize:bits=8", "weights", "weights", Risk.LOW, Effort.CONVERT),
    ("palettize:bits=6", "weights", "weights", Risk.LOW, Effort.CONVERT),
    ("palettize:bits=4", "weights", "weights", Risk.MODERATE, Effort.CONVERT),
    ("palettize:bits=4,group=16", "weights", "weights", Risk.MODERATE, Effort.CONVERT),
    ("palettize:bits=4,group=8", "weights", "weights", Risk.MODERATE, Effort.CONVERT),
    ("palettize:bits=4,group=4", "weights", "weights", Risk.MODERATE, Effort.CONVERT),
    ("palette-dkm:bits=2", "weights", "weights", Risk.HIGH, Effort.TRAIN),
    ("prune:sparsity=0.5", "sparsity", "weights", Risk.MODERATE, Effort.CALIBRATE),
    ("prune:sparsity=0.75", "sparsity", "weights", Risk.HIGH, Effort.TRAIN),
    ("sparse-palette", "sparsity", "weights", Risk.HIGH, Effort.TRAIN),
    ("w8a8", "activations", "activations", Risk.MODERATE, Effort.CALIBRATE),
    ("w4a8", "activations", "activations", Risk.HIGH, Effort.CALIBRATE),
    ("mixed-precision", "precision", "weights", Risk.NONE, Effort.CONVERT),
    ("kv-quant:bits=8", "cache", "cache", Risk.LOW, Effort.SWITCH),
    ("kv-quant:bits=4", "cache", "cache", Risk.MODERATE, Effort.SWITCH),
    ("kv-evict", "eviction", "cache", Risk.MODERATE, Effort.REWRITE),
    ("sliding-window", "window", "cache", Risk.HIGH, Effort.TRAIN),
    ("kv-share", "sharing", "cache", Risk.HIGH, Effort.TRAIN),
    ("gqa", "heads", "cache", Risk.HIGH, Effort.TRAIN),
    ("linear-attention", "window", "cache", Risk.HIGH, Effort.TRAIN),
    ("reparameterize", "branches", "graph", Risk.NONE, Effort.CONVERT),
    ("layout", "layout", "graph", Risk.NONE, Effort.REWRITE),
    ("depthwise", "convolutions", "graph", Risk.HIGH, Effort.TRAIN),
    ("token-merging", "tokens", "graph", Risk.MODERATE, Effort.REWRITE),
    ("layer-drop", "depth", "graph", Risk.HIGH, Effort.TRAIN),
    ("prune-structured", "width", "graph", Risk.HIGH, Effort.TRAIN),
    ("low-rank", "rank", "graph", Risk.HIGH, Effort.TRAIN),
    ("flash-attention:on=true", "attention", "attention", Risk.NONE, Effort.SWITCH),
    ("fusion:on=true", "fusion", "graph", Risk.NONE, Effort.REWRITE),
    ("prompt-lookup:match=0.2", "draft", "draft", Risk.NONE, Effort.SWITCH),
    ("redrafter:beams=1,length=5", "draft", "draft", Risk.NONE, Effort.TRAIN),
    ("eagle:tokens=2", "draft", "draft", Risk.NONE, Effort.TRAIN),
    ("multi-token-heads", "draft", "draft", Risk.NONE, Effort.TRAIN),
    ("activation-sparsity", "activations read", "draft", Risk.MODERATE, Effort.REWRITE),
    ("prefill-decode-split", "split", "engine", Risk.LOW, Effort.REWRITE),
    ("prefill-chunk:tokens=128", "chunk", "chunk", Risk.NONE, Effort.SWITCH),
    ("prefill-chunk:tokens=2048", "chunk", "chunk", Risk.NONE, Effort.SWITCH),
    ("expert-offload", "offload", "offload", Risk.NONE, Effort.REWRITE),
    ("feature-cache", "features", "steps", Risk.MODERATE, Effort.REWRITE),
)
"""(technique, kind, whose pairs speak for its ratio, risk, effort). Risks are read off the quality lines of the cards."""

SLOTS = {
    "sparsity": "weights", "activations": "weights", "cache": "cache", "eviction": "cache", "window": "cache",
    "sharing": "cache", "heads": "cache",
}  # fmt: skip
"""Kinds that exclude each other: they rewrite the same tensors. Any other kind is its own slot."""
STORED_BY_SCHEME = ("llama.cpp", "mlx")
"""Runtimes whose weight formats are named by `--weights`, not made by a pass."""


def changes_for(p: Prediction) -> Iterator[Change]:
    """Every change that the request behind a prediction could take."""
    yield from _formats(p)
    yield from _techniques(p)
    yield from _engines(p)
    yield from _drafts(p)
    yield from _batches(p)
    yield from _models(p)
    yield from _contexts(p)
    yield from _steps(p)


def loads_like(runtime: str) -> str:
    """The runtime whose weight formats it loads."""
    return ALIKE.get(runtime, runtime)


def _quality(card: str) -> str:
    found = load_cards().get(card)
    return found.quality if found else ""


def _formats(p: Prediction) -> Iterator[Change]:
    if p.weights == AS_STORED and p.model.family == "imported" and loads_like(p.profile.runtime) != "llama.cpp":
        return
    for name, risk, card in FORMATS.get(loads_like(p.profile.runtime), ()):
        yield Change(
            kind="weights", slot="weights", title=f"store the weights as {name}", risk=risk, effort=Effort.CONVERT,
            quality=_quality(card), card=card, error_kind="weights", fields=(("weights", name),),
        )  # fmt: skip


def _techniques(p: Prediction) -> Iterator[Change]:
    by_scheme = loads_like(p.profile.runtime) in STORED_BY_SCHEME
    present = {t.partition(":")[0] for t in p.request.apply}
    for text, kind, error_kind, risk, effort in TECHNIQUES:
        slot = SLOTS.get(kind, kind)
        if by_scheme and slot == "weights":
            continue
        name = text.partition(":")[0]
        yield Change(
            kind=kind, slot=slot, title=f"{load_cards()[name].title}: {text}", risk=risk, effort=effort,
            quality=_quality(name), card=name, error_kind=error_kind, apply=(text,),
            drops=(name,) if name in present else (),
        )  # fmt: skip


def loadable(weights: str | None, runtime: str) -> str | None:
    """A format of about as many bits that `runtime` loads; None for the model's own 16 bits."""
    if weights is None:
        return None
    formats = [name for name, _, _ in FORMATS.get(loads_like(runtime), ())]
    chosen = scheme(weights)
    if chosen.default.family == "plain" or weights in formats:
        return weights
    if not formats:
        return "int8-channel" if chosen.default.bits > 6 else "pal6" if chosen.default.bits > 5 else "pal4"
    return min(formats, key=lambda name: abs(scheme(name).default.bits - chosen.default.bits))


WHISPER_ONLY, NOT_WHISPER = ("whisper.cpp",), ("llama.cpp", "ik_llama.cpp", "rapid-mlx", "ncnn")
"""Runtimes that serve Whisper and nothing else, and those that have no Whisper."""


def _runs(runtime: str, model: str) -> bool:
    """Whether a runtime has code for the model at all."""
    return runtime not in (NOT_WHISPER if "whisper" in model.lower() else WHISPER_ONLY)


def _engines(p: Prediction) -> Iterator[Change]:
    """Other engines and runtimes whose profile serves this model."""
    serves = served_as(p.model)
    found: dict[tuple[str, str], None] = {}
    for profile in map(load_profile, (n for n in profile_names() if not n.startswith("_"))):
        if profile.rules.get("serves", "language") == serves:
            found[profile.runtime, profile.engine] = None
    here = (p.profile.runtime, p.profile.engine)
    for runtime, engine in found:
        if (runtime, engine) == here or (engine == "ane" and not p.soc.has_ane) or not _runs(runtime, p.model.name):
            continue
        moved = f"from the {here[1]} to the {engine}" if engine != here[1] else f"on the {engine}"
        yield Change(
            kind="engine", slot="engine", title=f"run it {moved} with {runtime}", card="engine-split",
            risk=Risk.NONE if runtime == here[0] else Risk.LOW,
            effort=Effort.SWITCH if runtime == here[0] else Effort.CONVERT, quality=_quality("engine-split"),
            error_kind="engine", fields=(("runtime", runtime), ("engine", engine)),
        )  # fmt: skip


ACCEPTANCE = 0.7
"""Probability that a drafted token is accepted: an assumption that each recommendation states, not a property of the models."""
DRAFT_TOKENS = (2, 4)
"""Tokens a round drafts, tried in turn; more rows per pass pay on few chips (`speculative` in `orchard technique`)."""


def _drafts(p: Prediction) -> Iterator[Change]:
    """Smaller models of the same vocabulary that draft for this one."""
    for name in drafts(p.model):
        for tokens in DRAFT_TOKENS:
            yield Change(
                kind="draft", slot="draft", title=f"let {name} draft {tokens} tokens a round", risk=Risk.NONE,
                effort=Effort.CONVERT, quality=_quality("speculative"), card="speculative", error_kind="draft",
                apply=(f"speculative:draft={name},tokens={tokens},acceptance={ACCEPTANCE}",),
            )  # fmt: skip


def _batches(p: Prediction) -> Iterator[Change]:
    for factor in (2, 4, 8):
        size = p.request.batch * factor
        yield Change(
            kind="batch", slot="batch", title=f"run {size} sequences at once", risk=Risk.NONE, effort=Effort.SWITCH,
            quality=_quality("batching"), card="batching", error_kind="batch", fields=(("batch", size),),
        )  # fmt: skip


def _models(p: Prediction) -> Iterator[Change]:
    for name, share in smaller_models(p.model):
        yield Change(
            kind="model", slot="model", title=f"take {name}, {share * 100:.0f} % of the parameters", risk=Risk.HIGH,
            effort=Effort.CONVERT, quality="Another model: measure it on your task.", error_kind="model",
            fields=(("model", name),),
        )  # fmt: skip


SHORTEST = 512
"""Tokens; a context below this is not shortened further."""


def _contexts(p: Prediction) -> Iterator[Change]:
    """Half of what the model is given: the cached tokens first, then the prompt."""
    request = p.request
    if p.model.family != "decoder" or request.depth + request.prompt < 2 * SHORTEST:
        return
    name = "depth" if request.depth >= 2 * SHORTEST else "prompt"
    size = getattr(request, name) // 2
    if size < SHORTEST:
        return
    yield Change(
        kind="context", slot="context", title=f"give the model {size:,} tokens of {name} instead of {2 * size:,}",
        risk=Risk.MODERATE, effort=Effort.REWRITE, quality="What is left out is not known to the model.",
        error_kind="context", fields=((name, size),),
    )  # fmt: skip


def _steps(p: Prediction) -> Iterator[Change]:
    steps = p.steps
    for fewer in (steps // 2, 4) if steps else ():
        if steps and 1 <= fewer < steps:
            risk, effort = (Risk.HIGH, Effort.TRAIN) if fewer < 10 else (Risk.MODERATE, Effort.SWITCH)
            yield Change(
                kind="steps", slot="steps", title=f"{fewer} denoising steps instead of {steps}", risk=risk, effort=effort,
                quality=_quality("step-reduction"), card="step-reduction", error_kind="steps", fields=(("steps", fewer),),
            )  # fmt: skip
