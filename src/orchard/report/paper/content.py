"""A prediction's dossier as a document: headline, roofline, time by layer, timeline, memory, energy, sensitivities, confidence,
inputs. Only arranges numbers; the studies computed them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchard.report.paper.document import (
    Areas,
    Bar,
    Bars,
    Cell,
    Column,
    Document,
    Dot,
    Fact,
    Figure,
    Lanes,
    Line,
    Piece,
    Scatter,
    Section,
    Table,
    shown,
)
from orchard.studies.dossier import CAUSES, Dossier, Timeline
from orchard.studies.predict import KernelShare
from orchard.units import format_bytes, format_joules, format_ops_rate, format_rate, format_seconds

ENGINE = {"gpu": "GPU", "ane": "Neural Engine", "cpu": "CPU"}
WHAT = {"compute": "arithmetic", "memory": "memory traffic", "dispatch": "launches and submission"}
NAMED_KERNELS = 5
MOST_GROUPS = 14
MOST_KERNELS = 20


def prediction_document(d: Dossier) -> Document:
    """The whole report of one prediction."""
    p = d.prediction
    chip = p["chip"]["name"] or p["chip"]["id"]
    sections = [
        *_roofline(d), *_layers(d), *(_timeline(t, d.bytes_per_s) for t in _timelines(d)), *_memory(d), *_energy(d),
        *_sensitivity(d), _confidence(d), _inputs(d),
    ]  # fmt: skip
    return Document(
        title=f"{p['model']['name']} on {chip}",
        subtitle=f"{p['runtime']} on the {ENGINE[p['engine']]}, weights {p['weights']}, {_workload(p)}; {p['fidelity']}",
        summary=tuple(_summary(p)), facts=tuple(_facts(p)), sections=tuple(_joined(sections)),
        made_by=made_by(d.versions),
    )  # fmt: skip


def made_by(versions: Mapping[str, str]) -> str:
    return f"Made by Orchard {versions.get('orchard', '')}. Times are predictions, not measurements."


def _joined(sections: Sequence[Section]) -> Iterator[Section]:
    """Sections of one id become one."""
    merged: dict[str, Section] = {}
    for s in sections:
        old = merged.get(s.id)
        merged[s.id] = s if old is None else Section(id=s.id, title=s.title, text=old.text, items=old.items + s.items)
    yield from merged.values()


def _workload(p: Mapping[str, Any]) -> str:
    phases = p["phases"]
    parts = [f"batch {p['batch']}"]
    if "prefill" in phases:
        parts.append(f"{phases['prefill']['tokens']:,} tokens of prompt")
    if "decode" in phases:
        parts.append(f"{phases['decode']['tokens']:,} tokens generated")
    if p["depth"]:
        parts.append(f"{p['depth']:,} cached before")
    if p["steps"]:
        parts.append(f"{p['steps']} steps")
    return ", ".join([*parts, *p["techniques"]])


def _summary(p: Mapping[str, Any]) -> Iterator[str]:
    for name, phase in p["phases"].items():
        if name not in ("prefill", "decode", "inference"):
            continue
        cause = max(phase["bound_by"], key=lambda c: phase["bound_by"][c])
        low, high = phase["interval_s"]
        per = " per token" if name == "decode" else ""
        reach = phase["bound_s"] / phase["latency_s"]
        yield (
            f"{name.capitalize()} takes {format_seconds(phase['latency_s'])}{per} (80 % interval {format_seconds(low)} to "
            f"{format_seconds(high)}); {phase['bound_by'][cause] * 100:.0f} % of it is {WHAT[cause]}. Physics would allow "
            f"{format_seconds(phase['bound_s'])}, so {reach * 100:.0f} % of what the silicon could do is reached."
        )
    m = p["memory"]
    verb = "fits" if m["fits"] else "does not fit"
    need, limit = format_bytes(m["total_bytes"]), format_bytes(m["limit_bytes"])
    yield f"It {verb}: {need} of the {limit} that the {ENGINE[p['engine']]} may use."
    yield from (f"Note: {w}." for w in p["warnings"])


def _facts(p: Mapping[str, Any]) -> Iterator[Fact]:
    if p["ttft_s"] is not None:
        low, high = p["phases"]["prefill"]["interval_s"]
        yield Fact(
            "Time to first token", format_seconds(p["ttft_s"]), f"{format_seconds(low)} to {format_seconds(high)}"
        )
    for name, label in (
        ("prefill", "Prompt tokens/s"),
        ("decode", "Generated tokens/s"),
        ("inference", "Inferences/s"),
    ):
        phase = p["phases"].get(name)
        if not phase:
            continue
        if name == "inference":
            low, high = (format_seconds(s) for s in phase["interval_s"])
            yield Fact("Time of one inference", format_seconds(phase["latency_s"]), f"{low} to {high}")
        made = phase["tokens_per_s"] * phase["latency_s"]
        low, high = (shown(made / s, "number") for s in reversed(phase["interval_s"]))
        yield Fact(label, shown(phase["tokens_per_s"], "number"), f"{low} to {high}")
    energy = sum(
        ph["energy_j"] * (ph["tokens"] if n == "decode" else 1)
        for n, ph in p["phases"].items()
        if n in ("prefill", "decode", "inference", "training_step")
    )
    yield Fact("Energy of a request", format_joules(energy), "within a factor of 1.6")
    m = p["memory"]
    yield Fact("Memory", format_bytes(m["total_bytes"]), "fits" if m["fits"] else "does not fit")


def _roofline(d: Dossier) -> Iterator[Section]:
    found = [
        (name, k)
        for name, kernels in d.kernels.items()
        for k in kernels
        if name in _own(d) and k.ops > 0 and k.bytes > 0
    ]
    if not found:
        return
    total = {name: sum(k.seconds for k in d.kernels[name]) for name in d.kernels}
    weight = {id(k): k.seconds / total[name] for name, k in found}
    named = sorted(found, key=lambda item: -weight[id(item[1])])
    dots = tuple(
        Dot(
            x=k.ops / k.bytes, y=k.ops / k.seconds, series=name, weight=weight[id(k)], named=(name, k) in named[:NAMED_KERNELS],
            label=f"{k.name}: {name}, {weight[id(k)] * 100:.0f} % of the time, {format_ops_rate(k.ops / k.seconds)}",
        )
        for name, k in found
        if k.seconds > 0
    )  # fmt: skip
    lines = tuple(_roof(d, dots)) if d.peak_ops_per_s and d.bytes_per_s else ()
    rows = tuple(
        (name, k.name, k.format or "–", k.ops / k.bytes, k.ops / k.seconds, k.bytes / k.seconds, weight[id(k)])
        for name, k in named
        if k.seconds > 0
    )
    data = Table(
        title="Kernels on the roofline", rows=rows,
        columns=(
            Column("phase"), Column("kernel"), Column("weights"), Column("ops per byte", "number"), Column("rate", "ops_per_s"),
            Column("bytes moved per second", "bytes_per_s"), Column("share of the phase", "share"),
        ),
    )  # fmt: skip
    limits = ""
    if lines:
        above = sum(dot.y > 1.001 * d.peak_ops_per_s for dot in dots)
        over = f" {above} marks lie above the peak: their fitted rate is higher than the stated one." if above else ""
        peak, rate = format_ops_rate(d.peak_ops_per_s), format_rate(d.bytes_per_s)
        limits = f" The lines are the peak rate, {peak}, and the memory's {rate}.{over}"
    yield Section(
        id="roofline", title="Roofline", items=(
            Figure(
                id="fig-roofline", title="How close each kernel comes to the limits of the chip", data=data,
                about=(
                    f"{len(dots)} kinds of kernels by operations per byte (across) and by the rate they reach (up); a larger "
                    f"mark takes more of its phase's time.{limits} Bytes that a cache serves can lift a mark above the "
                    f"memory's line."
                ),
                chart=Scatter(
                    dots=dots, lines=lines, x_title="operations per byte moved", y_title="operations per second",
                    x_dimension="number", y_dimension="ops_per_s",
                ),
            ),
        ),
    )  # fmt: skip


def _own(d: Dossier) -> list[str]:
    """Phases that stand for themselves: of a pipeline the components, not the sum of them."""
    names = list(d.kernels)
    components = [n for n in names if n not in ("prefill", "decode", "inference", "training_step")]
    return components or names


def _roof(d: Dossier, dots: Sequence[Dot]) -> Iterator[Line]:
    ridge = d.peak_ops_per_s / d.bytes_per_s
    first = min([*(dot.x for dot in dots), ridge / 4])
    last = max([*(dot.x for dot in dots), ridge * 8])
    yield Line(
        f"memory {format_rate(d.bytes_per_s)}",
        ((first, first * d.bytes_per_s), (ridge, d.peak_ops_per_s)),
        kind="limit",
    )
    yield Line(
        f"peak {format_ops_rate(d.peak_ops_per_s)}", ((ridge, d.peak_ops_per_s), (last, d.peak_ops_per_s)), kind="limit"
    )


def _layers(d: Dossier) -> Iterator[Section]:
    for name in _own(d):
        kernels = d.kernels.get(name, ())
        if not kernels:
            continue
        phase = d.prediction["phases"][name]
        rest = phase["latency_s"] - sum(k.seconds for k in kernels)
        yield Section(
            id="layers", title="Where the time goes",
            items=(_group_figure(name, kernels, rest), _kernel_table(name, kernels, phase["latency_s"])),
        )  # fmt: skip


def _terms(kernels: Sequence[KernelShare]) -> tuple[float, float, float]:
    return sum(k.compute_s for k in kernels), sum(k.memory_s for k in kernels), sum(k.dispatch_s for k in kernels)


def _group_figure(name: str, kernels: Sequence[KernelShare], rest: float) -> Figure:
    by_group: dict[str, list[KernelShare]] = {}
    several = len({k.group for k in kernels}) > 2
    for k in kernels:
        by_group.setdefault(k.group if several else k.name.rstrip("0123456789").rstrip("_") or k.name, []).append(k)
    ordered = sorted(by_group.items(), key=lambda item: -sum(k.seconds for k in item[1]))
    shown_groups, others = ordered[:MOST_GROUPS], [k for _, ks in ordered[MOST_GROUPS:] for k in ks]
    rows: list[tuple[str, float, float, float]] = [(g, *_terms(ks)) for g, ks in shown_groups]
    rows += [("others", *_terms(others))] if others else []
    rows += [("submitting calls", 0.0, 0.0, rest)] if rest > 0 else []
    bars = tuple(Bar(g, tuple(zip(CAUSES, values))) for g, *values in rows)
    most = max(rows, key=lambda r: sum(r[1:]))
    what = "layer groups" if several else "kinds of kernels"
    data = Table(
        title=f"Time of {name} by {what}",
        columns=(Column("part"), *(Column(WHAT[c], "s") for c in CAUSES), Column("sum", "s")),
        rows=tuple((g, *values, sum(values)) for g, *values in rows),
    )
    return Figure(
        id=f"fig-layers-{name}", title=f"{name}: time by {what}", chart=Bars(rows=bars, dimension="s"), data=data,
        about=(
            f"Each bar is split into arithmetic, memory traffic and launches. The largest, {most[0]}, takes "
            f"{format_seconds(sum(most[1:]))}."
        ),
    )  # fmt: skip


def _kernel_table(name: str, kernels: Sequence[KernelShare], total: float) -> Table:
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            k.name if k.group == "other" else f"{k.group}.{k.name}",
            k.format or "–",
            k.count,
            k.seconds,
            k.seconds / total,
            k.ops,
            k.bytes,
        )
        for k in kernels[:MOST_KERNELS]
    )
    hidden = len(kernels) - MOST_KERNELS
    return Table(
        title=f"{name}: the kernels that take longest", rows=rows,
        columns=(
            Column("kernel"), Column("weights"), Column("launches", "number"), Column("time", "s"), Column("share", "share"),
            Column("operations", "ops"), Column("moved", "bytes"),
        ),
        note=f"{hidden} more kinds of kernels take {format_seconds(sum(k.seconds for k in kernels[MOST_KERNELS:]))} together."
        if hidden > 0 else "",
    )  # fmt: skip


def _timelines(d: Dossier) -> Iterator[Timeline]:
    yield from d.timelines


def _timeline(t: Timeline, bytes_per_s: float) -> Section:
    engine = tuple(Piece(t.host_s + s.start_s, s.seconds, s.cause, s.label, s.dram_bytes / s.seconds) for s in t.slices)
    host = (Piece(0.0, t.host_s, "host", "submission of the call"),) if t.host_s else ()
    sizes = ", ".join(f"{k} = {v}" for k, v in t.sizes.items())
    data = Table(
        title=f"Timeline of one pass of {t.phase}",
        columns=(
            Column("from", "s"), Column("for", "s"), Column("lane"), Column("what"), Column("mostly"),
            Column("bytes of DRAM", "bytes"),
        ),
        rows=(
            *((p.start, p.length, "host", p.label, p.series, None) for p in host),
            *((t.host_s + s.start_s, s.seconds, t.engine, s.label, s.cause, s.dram_bytes) for s in t.slices),
        ),
    )  # fmt: skip
    lanes = (*((("host", host),) if host else ()), (ENGINE[t.engine], engine))
    return Section(
        id="timeline", title="Engine timeline", items=(
            Figure(
                id=f"fig-timeline-{t.phase}", title=f"One pass of {t.phase} ({sizes})", data=data,
                about=(
                    f"{t.launches:,} launches in {format_seconds(t.seconds)} on the {ENGINE[t.engine]}, coloured by what "
                    f"each piece waits for most; short neighbours are drawn as one. Below, the traffic with DRAM."
                ),
                chart=Lanes(
                    lanes=lanes, seconds=t.seconds, most=bytes_per_s, rate_title="DRAM bytes per second",
                ),
            ),
        ),
    )  # fmt: skip


def _memory(d: Dossier) -> Iterator[Section]:
    m = d.prediction["memory"]
    parts = Table(
        title="Memory at the longest context", columns=(Column("part"), Column("bytes", "bytes")),
        rows=(
            ("weights", m["weights_bytes"]), ("key/value cache and state", m["kv_cache_bytes"]),
            ("activations, peak", m["activation_peak_bytes"]), ("total", m["total_bytes"]),
            ("what the engine may use", m["limit_bytes"]),
        ),
    )  # fmt: skip
    curve = d.memory
    if curve is None:
        yield Section(id="memory", title="Memory", items=(parts,))
        return
    time = curve.axis.startswith("seconds")
    names = [("weights", curve.weights), ("cache", curve.cache), ("activations", curve.activations)]
    series = tuple((n, v) for n, v in names if any(v))
    data = Table(
        title="Memory over the request",
        columns=(Column("at", "s" if time else "number"), *(Column(n, "bytes") for n, _ in series)),
        rows=tuple(zip(curve.at, *(v for _, v in series), strict=True)),
    )
    yield Section(
        id="memory", title="Memory", items=(
            Figure(
                id="fig-memory", title="Memory over the request" if time else "Memory over one pass", data=data,
                about=(
                    f"Stacked: weights, cache and activations; across, {curve.axis}. At most {format_bytes(m['total_bytes'])} "
                    f"of {format_bytes(m['limit_bytes'])}."
                ),
                chart=Areas(
                    at=curve.at, series=series, x_title=curve.axis, x_dimension="s" if time else "number", dimension="bytes",
                    limit=curve.limit, limit_label="what the engine may use",
                ),
            ),
            parts,
        ),
    )  # fmt: skip


def _energy(d: Dossier) -> Iterator[Section]:
    if not d.energy:
        return
    own = [e for e in d.energy if len(d.energy) == 1 or e.phase in _own(d)]
    label = {e.phase: f"{e.phase}, per token" if e.phase == "decode" else e.phase for e in own}
    bars = tuple(
        Bar(label[e.phase], (("arithmetic", e.compute_j), ("DRAM", e.dram_j), ("active power", e.active_j)))
        for e in own
    )
    data = Table(
        title="Energy by cause",
        columns=(
            Column("phase"),
            Column("arithmetic", "j"),
            Column("DRAM", "j"),
            Column("active power", "j"),
            Column("sum", "j"),
        ),
        rows=tuple(
            (label[e.phase], e.compute_j, e.dram_j, e.active_j, e.compute_j + e.dram_j + e.active_j) for e in own
        ),
        note="Package energy: engine, caches, memory and the host thread. The 80 % interval is a factor of 0.6 to 1.6.",
    )
    yield Section(
        id="energy", title="Energy", items=(
            Figure(
                id="fig-energy", title="Energy by cause", chart=Bars(rows=bars, dimension="j"), data=data,
                about="Joules of arithmetic, of traffic with DRAM, and of the power that flows while the engine is active.",
            ),
            data,
        ),
    )  # fmt: skip


def _sensitivity(d: Dossier) -> Iterator[Section]:
    if not d.sensitive:
        return
    bars = tuple(Bar(s.figure, (("1 % more", s.elasticity / 100),)) for s in d.sensitive)
    first = d.sensitive[0]
    data = Table(
        title="What 1 % more of a figure gives",
        columns=(Column("figure of the chip"), Column("today (SI)", "number"), Column("faster by", "share")),
        rows=tuple((s.figure, s.value, s.elasticity / 100) for s in d.sensitive),
    )
    yield Section(
        id="sensitivity", title="What matters", items=(
            Figure(
                id="fig-sensitivity", title="How much faster the request gets with 1 % more", data=data,
                chart=Bars(rows=bars, dimension="share"),
                about=f"Most by {first.figure}: {first.elasticity:.2f} % faster for 1 % more.",
            ),
        ),
    )  # fmt: skip


def _confidence(d: Dossier) -> Section:
    rows = tuple((c.phase, c.stratum, c.rows, c.low, c.high) for c in d.confidence)
    found = Table(
        title="80 % of measured times lie between these factors of the predicted one",
        columns=(
            Column("phase"), Column("kind of run"), Column("measured rows", "number"), Column("from", "number"),
            Column("to", "number"),
        ),
        rows=rows,
        note="From rows whose chip generation or model family the fit did not see; 0 rows: a judgement. `orchard validate` "
        "prints every row.",
    )  # fmt: skip
    return Section(
        id="confidence", title="How sure this is",
        text=("Times are estimates: what physics allows times what the runtime reached in published measurements.", *d.notes),
        items=(found,) if rows else (),
    )  # fmt: skip


def _inputs(d: Dossier) -> Section:
    p = d.prediction
    overrides = ", ".join(f"{k} = {v}" for k, v in p["chip"]["overrides"].items())
    asked: list[tuple[Cell, ...]] = [
        ("model", p["model"]["name"]), ("parameters", f"{p['model']['params']:,}"), ("chip", p["chip"]["id"]),
        ("changes of the chip", overrides or "none"), ("runtime", f"{p['runtime']} ({p['runtime_builds']})"),
        ("engine", p["engine"]), ("weights", p["weights"]), ("cache", p["kv"]), ("workload", _workload(p)),
        ("kind of number", p["fidelity"]),
    ]  # fmt: skip
    items: list[Table] = [Table(title="What was asked", columns=(Column("input"), Column("value")), rows=tuple(asked))]
    if d.figures:
        columns = (Column("figure"), Column("value"), Column("unit"), Column("kind"), Column("source"))
        rows = tuple((f.path, f.value, f.unit, f.kind, f.source) for f in d.figures)
        items.append(Table(title="Figures of the chip", columns=columns, rows=rows))
    versions = tuple((name, text) for name, text in d.versions.items())
    items.append(Table(title="Versions", columns=(Column("program"), Column("version")), rows=versions))
    text = (f"Again: `{d.command}`",) if d.command else ()
    return Section(id="inputs", title="Inputs and versions", text=text, items=tuple(items))
