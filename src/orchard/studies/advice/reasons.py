"""Why a change helps, in one sentence: the term of the op whose time shrinks most, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchard.studies.predict import Phase, Prediction
from orchard.units import format_bytes, format_ops, format_seconds

TERMS = ("compute", "memory", "dispatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrinks:
    """The term that saves most. Seconds over one `phase` (one step of decode); `op` is empty for a whole phase."""

    phase: str
    op: str
    term: str
    before_s: float
    after_s: float


def reason(before: Prediction, after: Prediction, figure: str) -> tuple[str, Shrinks | None]:
    """The sentence, and the term it names (None where the figure is memory)."""
    if figure == "memory":
        return _memory_reason(before, after), None
    found = _largest(before, after, "ttft" if figure == "ttft" else figure)
    if found is None:
        return "the sum of many small savings", None
    return _sentence(found, before, after), found


def _phases(p: Prediction, figure: str) -> dict[str, tuple[Phase, int]]:
    """Phases that make up a figure, with how often each runs."""
    if "inference" in p.phases:
        runs = {"inference": 1, "decode": p.phases["decode"].tokens if "decode" in p.phases else 0}
    else:
        runs = {name: ph.tokens if name == "decode" else 1 for name, ph in p.phases.items()}
    wanted = {"ttft": ("prefill",), "tokens_per_s": ("decode",), "throughput": ("decode", "inference")}.get(figure)
    if figure == "throughput" and "decode" in p.phases:
        wanted = ("decode",)
    return {n: (p.phases[n], times) for n, times in runs.items() if n in p.phases and (not wanted or n in wanted)}


def _per(figure: str, p: Prediction) -> float:
    """Throughput counts what one pass costs per sequence."""
    return 1.0 / p.request.batch if figure == "throughput" else 1.0


def _terms(phase: Phase, scale: float) -> dict[tuple[str, str], float]:
    """Seconds by (op, term); what is not in kernels is the submission of calls."""
    found: dict[tuple[str, str], float] = {}
    for k in phase.kernels:
        for term, seconds in zip(TERMS, (k.compute_s, k.memory_s, k.dispatch_s), strict=True):
            found[_plain(k.name), term] = found.get((_plain(k.name), term), 0.0) + seconds * scale
    rest = phase.latency_s - sum(k.seconds for k in phase.kernels)
    if rest > 0:
        found["submitting calls", "dispatch"] = rest * scale
    return found


def _plain(name: str) -> str:
    """`conv_49` and `conv_12` are both `conv`."""
    head, _, tail = name.rpartition("_")
    return head if head and tail.isdigit() else name


def _largest(before: Prediction, after: Prediction, figure: str) -> Shrinks | None:
    best: Shrinks | None = None
    most = 0.0
    now, then = _phases(before, figure), _phases(after, figure)
    for name in now.keys() & then.keys():
        old, new = (_terms(q[name][0], _per(figure, p)) for q, p in ((now, before), (then, after)))
        for (op, term), seconds in sorted(old.items()):
            saved = seconds * now[name][1] - new.get((op, term), 0.0) * then[name][1]
            if saved > most:
                most = saved
                best = Shrinks(phase=name, op=op, term=term, before_s=seconds, after_s=new.get((op, term), 0.0))
    return best


WHAT = {"compute": "arithmetic", "memory": "memory traffic", "dispatch": "launches"}


def _sentence(s: Shrinks, before: Prediction, after: Prediction) -> str:
    step = {"decode": " per token", "prefill": " per prompt"}.get(s.phase, "")
    old, new = before.phases[s.phase], after.phases[s.phase]
    detail = {
        "memory": f"{format_bytes(old.dram_bytes)} to {format_bytes(new.dram_bytes)} moved{step} in all",
        "compute": f"{format_ops(old.ops)} to {format_ops(new.ops)}{step} in all",
        "dispatch": f"{_launches(old)} to {_launches(new)} launches{step} in all",
    }[s.term]
    if s.term == "compute" and abs(new.ops / old.ops - 1.0) < 0.01:
        detail = "the same operations at a higher rate"
    op = s.op if s.op == "submitting calls" else f"{WHAT[s.term]} of {s.op}"
    verb = "shrink" if s.term == "dispatch" else "shrinks"
    after_text = format_seconds(s.after_s) if s.after_s > 0 else "nothing"
    return f"{op} {verb} from {format_seconds(s.before_s)} to {after_text}{step} ({detail})"


def _launches(phase: Phase) -> str:
    return f"{sum(k.count for k in phase.kernels):,}"


def _memory_reason(before: Prediction, after: Prediction) -> str:
    def parts(p: Prediction) -> Mapping[str, int]:
        m = p.memory
        return {"weights": m.weights, "the cache": m.kv_cache, "activations": m.activation_peak}

    old, new = parts(before), parts(after)
    name = max(old, key=lambda n: old[n] - new[n])
    verb = "takes" if name == "the cache" else "take"
    return f"{name} {verb} {format_bytes(new[name])} instead of {format_bytes(old[name])}"
