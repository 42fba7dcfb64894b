"""A placement as text: what runs where, why, and how far other choices are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import heading, indented, number, percent, stacked, table
from orchard.studies.compute_plan import PlanDifference
from orchard.studies.place import Placement
from orchard.studies.place_why import Restriction
from orchard.studies.placed import PlacedPhase, Run
from orchard.units import format_bytes, format_joules, format_seconds

UNITS = {"latency": ("ms", 1e3), "energy": ("mJ", 1e3), "edp": ("mJ s", 1e3)}
MOST_RUNS = 12
MOST_DIFFERENCES = 8


def render_placement(p: Placement) -> RenderableType:
    """The whole answer, at most 80 columns."""
    return stacked(
        heading(f"{_model(p)} on {p.placing.soc.name}"), _summary(p), *_phases(p), _caches(p),
        _alternatives(p), _restrictions(p), _difference(p.difference, p.objective), Text(), _memory(p),
    )  # fmt: skip


def _model(p: Placement) -> str:
    """The model as `predict` names it: a pipeline has a graph per part, and none is the whole."""
    return next(iter(p.placing.plans.values())).model.name


def shown(value: float | None, objective: str) -> str:
    """A value of an objective with its unit."""
    if value is None:
        return "none"
    if objective in ("latency", "energy"):
        return format_seconds(value) if objective == "latency" else format_joules(value)
    unit, factor = UNITS[objective]
    return f"{number(value * factor)} {unit}"


def _summary(p: Placement) -> Text:
    a = p.answer
    proof = "proven best" if a.gap == 0 else f"within {a.gap:.3%} of the bound {shown(a.bound, p.objective)}"
    lines = [
        f"least {p.objective}: {shown(a.value, p.objective)} a request ({proof}; {a.method}, {number(p.solve_s)} s,",
        f"{len(p.placing.free_seconds)} units x {len(p.placing.options)} options); an estimate",
        f"time {format_seconds(p.total_s)}, energy {format_joules(p.total_j)}",
    ]
    return Text("\n".join([*lines, *_against_single(p)]))


def _against_single(p: Placement) -> Iterator[str]:
    single = p.best_single
    if single is None or single.value is None:
        return
    note = f", if it took {_ops(single.lifted)} it does not" if single.lifted else ""
    more = single.value / p.answer.value - 1.0
    far = "the same" if abs(more) < 5e-7 else f"{more:.2%} more" if more < 1 else f"{number(more + 1)} times"
    yield f"best single engine: {single.engines[0]}, {far}{note}"
    share = p.handover_share
    if share > 0:
        yield f"hand-overs are {percent(share)} of the {p.objective}; at twice their price: {shown(p.dear_value, p.objective)}"


def _phases(p: Placement) -> Iterator[RenderableType]:
    for phase in p.phases:
        yield Text()
        yield heading(_phase_line(phase))
        yield indented(Text("\n".join(_phase_notes(phase))))
        yield indented(_run_table(phase.runs))
        if len(phase.runs) > MOST_RUNS:
            yield indented(Text(f"... {len(phase.runs) - MOST_RUNS} more segments (--json lists all)"))


def _phase_line(phase: PlacedPhase) -> str:
    per = " a token" if phase.name == "decode" else f" a pass, {phase.times:.0f} passes" if phase.times > 1 else ""
    low, high = (format_seconds(x) for x in phase.interval_s)
    return f"{phase.name}: {format_seconds(phase.latency_s)}{per} ({low} - {high}), {format_joules(phase.energy_j)}"


def _phase_notes(phase: PlacedPhase) -> Iterator[str]:
    parts = [f"{engine} {format_seconds(s)}" for engine, s in phase.engine_s.items()]
    parts += [f"hand-overs {format_seconds(phase.handover_s)}"] if phase.handover_s else []
    yield ", ".join([*parts, f"calls {format_seconds(phase.call_s)}"])
    yield from _side_by_side(phase)
    yield f"activations: {format_bytes(phase.arena.bytes)}, at least {format_bytes(phase.arena.bound)} ({phase.arena.order})"


def _side_by_side(phase: PlacedPhase) -> Iterator[str]:
    """Nothing where no branch can overlap."""
    o = phase.overlap
    if o.latency_s < phase.latency_s * (1 - 1e-6):
        yield f"branches side by side: {format_seconds(o.latency_s)} (no order below {format_seconds(o.bound_s)})"
    if o.moved_ops:
        yield (
            f"moving {o.moved_ops} ops ({o.moved_first}, ...) overlaps to {format_seconds(o.moved_s)} "
            f"(none below {number(o.least_s * 1e3)})"
        )


def _run_table(runs: Sequence[Run]) -> RenderableType:
    rows = []
    for at, run in enumerate(runs[:MOST_RUNS]):
        rows.append(
            [str(at + 1), run.engine, str(run.ops), number(run.seconds * 1e3), number(run.handover_s * 1e3), _short(run.first,
            18), ("! " if run.forced else "") + run.why]
        )  # fmt: skip
    return table(["#", "on", "ops", "ms", "in ms", "from op", "why"], rows, left=(0, 1, 5, 6), gap=1)


def _ops(count: int) -> str:
    return "1 op" if count == 1 else f"{count} ops"


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else "…" + name[-(width - 1) :]


def _caches(p: Placement) -> Text | None:
    if not p.caches:
        return None
    lines = [
        f"cache from {c.source} to {c.target} once a request: {format_bytes(round(c.bytes))} in {c.tensors} tensors, "
        f"{format_seconds(c.seconds)}"
        for c in p.caches
    ]
    return Text("\n".join(["", *lines]))


def _alternatives(p: Placement) -> RenderableType | None:
    if not p.alternatives:
        return None
    rows = [
        [
            ", ".join(p.engines),
            shown(p.answer.value, p.objective),
            "1",
            number(p.total_s * 1e3),
            number(p.total_j * 1e3),
            "",
        ]
    ]
    for a in sorted(p.alternatives, key=lambda a: a.value or float("inf")):
        if a.value is None or a.total_s is None or a.total_j is None:
            rows.append([", ".join(a.engines), "none", "", "", "", "no placement keeps within its limits"])
            continue
        note = f"it took {_ops(a.lifted)} more" if a.lifted else ""
        rows.append(
            [", ".join(a.engines), shown(a.value, p.objective), number(a.value / p.answer.value), number(a.total_s * 1e3),
             number(a.total_j * 1e3), note]
        )  # fmt: skip
    return stacked(
        Text(), heading("other sets of engines"),
        indented(table(["engines", p.objective, "times", "ms", "mJ", "as if"], rows, left=(0, 5))),
    )  # fmt: skip


def _restrictions(p: Placement) -> RenderableType | None:
    if not p.restrictions:
        return None
    rows = [
        [str(r.ops), r.engine, r.rule, _saved(r, p), _why(r)] for r in p.restrictions
    ]  # fmt: skip
    return stacked(
        Text(), heading("what an engine does not take, and what taking it would save"),
        indented(table(["ops", "on", "rule", "saves", "reason"], rows, left=(1, 2, 4), gap=1)),
    )  # fmt: skip


def _saved(r: Restriction, p: Placement) -> str:
    return f"{r.saves / p.answer.value:.2%}" if p.answer.value else "0 %"


def _why(r: Restriction) -> str:
    return f"{r.reason}; {r.change}" if r.change else r.reason


def _difference(d: PlanDifference | None, objective: str) -> RenderableType | None:
    if d is None:
        return None
    names = {"coreml": "Core ML", "coreai": "Core AI"}
    ops = ", ".join(f"{count} on {engine}" for engine, count in d.engines.items())
    far = f"{d.value / d.best - 1:.2%} above the best" if d.best else ""
    head = f"{names[d.source]}'s plan: {shown(d.value, objective)}, {far}\n{ops}; {d.matched} ops of the model matched"
    rows = [
        [str(x.ops), x.system, x.best, f"{x.change / d.value:+.2%}" if d.value else "", _short(x.first, 22),
         f"{_ops(x.blocked)} our rules keep off" if x.blocked else ""]
        for x in sorted(d.differences, key=lambda x: x.change)[:MOST_DIFFERENCES]
    ]  # fmt: skip
    body = (
        table(["ops", "plan", "best", "moving", "from op", "note"], rows, left=(1, 2, 4, 5))
        if rows
        else Text("no difference")
    )
    more = len(d.differences) - MOST_DIFFERENCES
    return stacked(
        Text(), heading(head), indented(body),
        indented(Text(f"... {more} more differences (--json lists all)")) if more > 0 else None,
    )  # fmt: skip


def _memory(p: Placement) -> Text:
    m = p.memory
    parts = [f"weights {format_bytes(m.weights)}"]
    parts += [f"second copy of {format_bytes(m.copies)} for the Neural Engine"] if m.copies else []
    parts += [f"cache {format_bytes(m.kv_cache)}"] if m.kv_cache else []
    parts.append(f"activations {format_bytes(m.arena)}")
    return Text(f"memory: {', '.join(parts)}; {format_bytes(m.total)} of {format_bytes(m.limit)}")
