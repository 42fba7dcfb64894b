"""Is the advice right? Cases with published times before and after one change, chosen by a rule, not by how well they fit.

The rule, in code below:

1. Sources of pairs, in this order: 8-bit activations on the Neural Engine, compressed weights there, flash attention
   (whisper.cpp), 8-bit weights of Whisper on a GPU, Neural Engine instead of GPU (Stable Diffusion), weight formats of language
   models on a GPU, the same on a CPU, drafting (claims of ReDrafter), several rows at once (claims of llama.cpp).
2. A pair counts where the model is built in, the chip stands in the catalogue, and the change saved 10 % of the time or more:
   advice is about changes that help.
3. Within a source, pairs in the order of their row ids, one for each model and chip.
4. The sources take turns until twelve cases are found.

A case asks for advice with the state before as the request. It passes where the change is among the first three
recommendations and the predicted share of time saved is within 15 percentage points of the measured one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import islice, zip_longest
from typing import Any

from orchard.hw import find_chip
from orchard.studies.advice.figures import figures_of
from orchard.studies.advice.ratios import WIDEST
from orchard.studies.advise import Advice, advise, price
from orchard.studies.predict import answer
from orchard.studies.request import Request
from orchard.studies.suite_case import chip_of
from orchard.studies.technique_pairs import row_pairs
from orchard.techniques import load_claims
from orchard.units import OrchardError
from orchard.workloads.networks import NETWORKS, known_as

Record = Mapping[str, str]
CASES = 12
LEAST_SAVED = 0.1
"""Share of time that a published change saved, for it to be a case."""
TOP = 3
WITHIN = 0.15
"""Predicted share saved less the measured one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceCase:
    """The state before as a request, the change that was made, and the share of time it saved (0 to 1)."""

    source: str
    rows: tuple[str, ...]
    request: Request
    goal: str | None
    change: str
    kind: str
    apply: tuple[str, ...] = ()
    fields: Mapping[str, Any]
    saved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceCheck:
    """A case with what the advice says: `rank` of the change (None where it is not recommended) and the predicted saving."""

    case: AdviceCase
    rank: int | None
    predicted: float
    first: str

    @property
    def in_top(self) -> bool:
        return self.rank is not None and self.rank <= TOP

    @property
    def close(self) -> bool:
        return abs(self.predicted - self.case.saved) <= WITHIN


@dataclass(frozen=True)
class AdviceValidation:
    """Every case; `orchard.advice-validation/1`."""

    checks: tuple[AdviceCheck, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": "orchard.advice-validation/1",
            "cases": [_record(c) for c in self.checks],
            "in_top": sum(c.in_top for c in self.checks),
            "close": sum(c.close for c in self.checks),
            "both": sum(c.in_top and c.close for c in self.checks),
        }


def _record(check: AdviceCheck) -> dict[str, Any]:
    case = check.case
    return {
        "source": case.source, "rows": list(case.rows), "model": case.request.model, "chip": case.request.chip,
        "engine": case.request.engine, "goal": case.goal, "change": case.change, "measured_saved": case.saved,
        "predicted_saved": check.predicted, "rank": check.rank, "first": check.first, "in_top": check.in_top,
        "close": check.close,
    }  # fmt: skip


def validate_advice(cases: Sequence[AdviceCase] | None = None) -> AdviceValidation:
    """Ask for advice in every case. Takes a few seconds for each."""
    return AdviceValidation(tuple(check_case(case) for case in (cases if cases is not None else advice_cases())))


def check_case(case: AdviceCase) -> AdviceCheck:
    """The advice for one case, and where its change stands in it."""
    advice = advise(case.request, case.goal)
    figure = "throughput" if case.goal else "latency"
    before, after = figures_of(answer(case.request)), figures_of(price(case.request, case.apply, case.fields))
    ratio = after[figure] / before[figure]
    predicted = 1.0 - 1.0 / ratio if case.goal else 1.0 - ratio
    first = advice.recommendations[0].title if advice.recommendations else "nothing"
    return AdviceCheck(case=case, rank=_rank(case, advice), predicted=predicted, first=first)


def _rank(case: AdviceCase, advice: Advice) -> int | None:
    """Place of the first recommendation of the same technique, in whatever setting."""
    wanted = {text.partition(":")[0] for text in case.apply}
    for place, r in enumerate(advice.recommendations, 1):
        settings = [(r.apply, r.fields), *((v.apply, v.fields) for v in r.others)]
        for apply, fields in settings:
            names = {text.partition(":")[0] for text in apply}
            if r.kind == case.kind and names == wanted and _same_engine(case, fields):
                return place
    return None


def _same_engine(case: AdviceCase, fields: Mapping[str, Any]) -> bool:
    return case.kind != "engine" or case.fields["engine"] == fields.get("engine")


@lru_cache(maxsize=1)
def advice_cases() -> tuple[AdviceCase, ...]:
    """The twelve, by the rule at the top of this module."""
    turns = zip_longest(*(_distinct(source()) for source in SOURCES))
    return tuple(islice((case for turn in turns for case in turn if case is not None), CASES))


def _distinct(cases: Iterator[AdviceCase]) -> Iterator[AdviceCase]:
    """Rule 2 and 3: what saves enough, once for each model and chip, and can be predicted at all."""
    seen: set[tuple[str, str]] = set()
    for case in cases:
        key = (case.request.model, case.request.chip)
        if case.saved < LEAST_SAVED or key in seen or not _known(case):
            continue
        seen.add(key)
        yield case


def _known(case: AdviceCase) -> bool:
    try:
        price(case.request, case.apply, case.fields)
    except OrchardError:
        return False
    return True


@lru_cache(maxsize=4)
def _rows(suite: str) -> dict[str, Record]:
    text = files("orchard.data").joinpath("measurements", f"{suite}.csv").read_text(encoding="utf-8")
    return {r["id"]: r for r in csv.DictReader(text.splitlines())}


def _chip(text: str) -> str | None:
    try:
        return chip_of(text)
    except OrchardError:
        return None


COMPRESSED = {
    "w8a8": ("w8a8", "activations"), "pal8": ("palettize:bits=8", "weights"), "pal6": ("palettize:bits=6", "weights"),
    "pal4": ("palettize:bits=4", "weights"), "pal2": ("palettize:bits=2", "weights"), "w8": ("rtn:bits=8", "weights"),
    "sparse50_fp16": ("prune:sparsity=0.5", "sparsity"), "sparse75_fp16": ("prune:sparsity=0.75", "sparsity"),
}  # fmt: skip


def _compressed(technique: str) -> Iterator[AdviceCase]:
    """Networks of coremltools' tables on the Neural Engine."""
    rows = _rows("vision")
    for pair in sorted(row_pairs(list(rows.values())), key=lambda p: p.with_it):
        if pair.technique != technique:
            continue
        before, after = rows[pair.without], rows[pair.with_it]
        network, chip = known_as(after["model"]), _chip(after["chip"])
        found = COMPRESSED.get(after["precision"])
        if network is None or chip is None or found is None or after["metric"] != "latency_ms":
            continue
        apply, kind = found
        size = int(after["input_shape"].rpartition("x")[2])
        inputs = () if size == NETWORKS[network].size else (f"image={after['input_shape']}",)
        yield AdviceCase(
            source=after["source"], rows=(before["id"], after["id"]), goal=None, change=apply, kind=kind, apply=(apply,),
            request=Request(model=network, chip=chip, runtime="coreml", engine="ane", inputs=inputs), fields={},
            saved=_saved(before, after),
        )  # fmt: skip


def _saved(before: Record, after: Record) -> float:
    """Share of the time; rates are inverted."""
    ratio = float(after["value"]) / float(before["value"])
    return 1.0 - (1.0 / ratio if after["metric"].endswith("_per_s") else ratio)


def _whisper(technique: str, kind: str, apply: tuple[str, ...], fields: Mapping[str, Any]) -> Iterator[AdviceCase]:
    rows = _rows("vision")
    for pair in sorted(row_pairs(list(rows.values())), key=lambda p: p.with_it):
        before, after = rows[pair.without], rows[pair.with_it]
        model = re.fullmatch(r"whisper-([\w-]+?) encoder", after["model"])
        chip = _chip(after["chip"])
        if pair.technique != technique or model is None or chip is None:
            continue
        name = {"large": "large-v3", "large-v2": "large-v3"}.get(model.group(1), model.group(1))
        off = ("flash-attention:on=false",) if "flash_attn=0" in before["variant"] else ()
        request = Request(
            model=f"openai/whisper-{name}", chip=chip, runtime="whisper.cpp", engine="gpu", generate=0, apply=off
        )
        yield AdviceCase(
            source=after["source"], rows=(before["id"], after["id"]), goal=None, change=technique, kind=kind, apply=apply,
            request=request, fields=fields, saved=_saved(before, after),
        )  # fmt: skip


PIPELINES = {
    "Stable Diffusion v1.5": "stable-diffusion-1.5", "Stable Diffusion 2.1-base": "stable-diffusion-2.1",
    "Stable Diffusion 2-base": "stable-diffusion-2.1",
}  # fmt: skip


def _diffusion() -> Iterator[AdviceCase]:
    """A picture on the GPU, then on the Neural Engine, of one source."""
    groups: dict[tuple[str, ...], dict[str, Record]] = {}
    for r in _rows("vision").values():
        if r["model"] in PIPELINES and r["metric"] == "latency_ms" and r["precision"] == "fp16":
            key = (r["source"], r["chip"], r["os_version"], r["model"], r["batch"])
            groups.setdefault(key, {}).setdefault(r["engine"], r)
    pairs = [(g["cpu+gpu"], g["cpu+ane"]) for g in groups.values() if {"cpu+gpu", "cpu+ane"} <= set(g)]
    for before, after in sorted(pairs, key=lambda p: p[1]["id"]):
        chip, steps = _chip(after["chip"]), re.search(r"(\d+) steps", after["notes"])
        if chip is None or steps is None:
            continue
        request = Request(
            model=PIPELINES[after["model"]], chip=chip, runtime="coreml", engine="gpu", steps=int(steps.group(1))
        )
        yield AdviceCase(
            source=after["source"], rows=(before["id"], after["id"]), goal=None, change="Neural Engine instead of GPU",
            kind="engine", fields={"runtime": "coreml", "engine": "ane"}, request=request, saved=_saved(before, after),
        )  # fmt: skip


SAME = ("source", "chip", "gpu_cores", "cpu_cores", "runtime", "runtime_version", "model", "context_depth", "gen_tokens", "batch")


def _formats(engine: str) -> Iterator[AdviceCase]:
    """Decode of one language model in its widest format, then in another one, of one source."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for r in _rows("llm").values():
        if r["engine"] == engine and r["phase"] == "decode" and r["metric"] == "tokens_per_s":
            groups.setdefault(tuple(r[n] for n in SAME), []).append(r)
    pairs = []
    for rows in groups.values():
        wide = next((r for name in WIDEST for r in rows if r["weight_format"] == name), None)
        pairs += [(wide, r) for r in rows if wide is not None and r["weight_format"] != wide["weight_format"]]
    for before, after in sorted(pairs, key=lambda p: p[1]["id"]):
        case = _format_case(engine, before, after)
        if case is not None:
            yield case


def _format_case(engine: str, before: Record, after: Record) -> AdviceCase | None:
    def cores(name: str) -> float | None:
        return float(after[name]) if after[name] else None

    gpu = cores("gpu_cores")
    try:
        chip = find_chip(after["chip"], gpu, cores("cpu_cores") if gpu is None else None)
    except OrchardError:
        return None
    request = Request(
        model=after["model"], chip=chip, runtime=f"{after['runtime']}@{after['date']}", engine=engine,
        weights=before["weight_format"], prompt=0, generate=int(float(after["gen_tokens"] or 128)),
        depth=int(float(after["context_depth"] or 0)),
    )  # fmt: skip
    return AdviceCase(
        source=after["source"], rows=(before["id"], after["id"]), goal=None, request=request,
        change=f"{before['weight_format']} to {after['weight_format']}", kind="weights",
        fields={"weights": after["weight_format"]}, saved=_saved(before, after),
    )  # fmt: skip


def _drafting() -> Iterator[AdviceCase]:
    """Claims of ReDrafter on Apple GPUs: best beam of one prompt, as a factor."""
    for claim in sorted(load_claims(), key=lambda c: c.id):
        beams = re.search(r"best beam width (\d+)", claim.setting)
        chip = re.match(r"(M\d(?: \w+)?) GPU", claim.hardware)
        if claim.card != "redrafter" or beams is None or chip is None:
            continue
        technique = f"redrafter:beams={beams.group(1)},length=5"
        name = _chip(chip.group(1))
        if name is not None:
            request = Request(
                model="lmsys/vicuna-7b-v1.3", chip=name, runtime="mlx", engine="gpu", weights="f16", prompt=0, generate=200,
                depth=66,
            )  # fmt: skip
            yield AdviceCase(
                source=claim.paper, rows=(claim.id,), goal=None, change=technique, kind="draft", apply=(technique,),
                request=request, fields={}, saved=1.0 - 1.0 / float(claim.value),
            )  # fmt: skip


MODELS = {"13B": "llama-2-13b", "1B": "llama-3.2-1b", "Mistral-7B": "mistral-7b"}


def _batching() -> Iterator[AdviceCase]:
    """Rows a second of passes with several rows against one; the goal is what was published."""
    for claim in sorted(load_claims(), key=lambda c: c.id):
        model = re.fullmatch(r"(\S+) (Q\d_0)", claim.model)
        rows = re.match(r"(\d+) rows vs 1 row", claim.setting)
        chip = re.match(r"(M\d(?: \w+)?) GPU", claim.hardware)
        if claim.metric != "rows/s" or model is None or rows is None or chip is None or model.group(1) not in MODELS:
            continue
        name = _chip(chip.group(1))
        if name is None:
            continue
        size = int(rows.group(1))
        request = Request(
            model=MODELS[model.group(1)], chip=name, runtime=f"llama.cpp@{claim.year}", engine="gpu",
            weights=model.group(2).lower(), prompt=0, generate=128,
        )  # fmt: skip
        yield AdviceCase(
            source=claim.paper, rows=(claim.id,), goal=f"throughput>{claim.value}", change=f"{size} rows at once",
            kind="batch", fields={"batch": size}, request=request, saved=1.0 - float(claim.baseline) / float(claim.value),
        )  # fmt: skip


SOURCES: Sequence[Callable[[], Iterator[AdviceCase]]] = (
    lambda: _compressed("INT8 weights and activations, ANE"),
    lambda: _compressed("compressed weights, ANE"),
    lambda: _whisper("flash attention", "attention", ("flash-attention:on=true",), {}),
    lambda: _whisper("8-bit weights on a GPU", "weights", (), {"weights": "q8_0"}),
    _diffusion,
    lambda: _formats("gpu"),
    lambda: _formats("cpu"),
    _drafting,
    _batching,
)
"""Rule 1."""
