"""A prediction as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from orchard.report.layout import bar, cause_legend, heading, indented, number, percent, span, stacked, table
from orchard.studies.predict import KernelShare, Phase, Prediction
from orchard.studies.remedies import Remedies
from orchard.units import format_bytes, format_count, format_joules, format_ops, format_seconds

MOST_KERNELS = 14


def render_prediction(
    prediction: Prediction, remedies: Remedies | None = None, *, breakdown: bool = False
) -> RenderableType:
    """The whole answer; `remedies` are shown when it does not fit."""
    parts: list[RenderableType | None] = [
        _headline(prediction),
        Text(),
        _speed(prediction),
        _totals(prediction),
        Text(),
        heading("what bounds it"),
        indented(_bounds(prediction)),
        Text(),
        heading("memory"),
        indented(_memory(prediction)),
        _remedy_lines(remedies) if remedies and not prediction.memory.fits else None,
    ]
    if breakdown:
        for phase in prediction.phases.values():
            parts += [Text(), _breakdown(phase)]
    return stacked(*parts)


def _headline(p: Prediction) -> RenderableType:
    request = p.request
    model = Text(p.model.name, style="bold")
    model.append(f"  {format_count(p.model.params)} parameters", style="dim")
    chip = Text("on ")
    chip.append(p.soc.name or p.soc.id, style="bold")
    if request.overrides:
        chip.append(f"  with {', '.join(request.overrides)}")
    facts = [
        f"{p.profile.runtime} ({p.profile.version})",
        p.profile.engine,
        f"weights {p.weights} ({p.bits_per_weight:.2f} bits)",
        f"kv {request.kv}" if p.memory.kv_cache else "",
        f"batch {request.batch}" if request.batch > 1 else "",
        f"{request.threads} threads" if request.threads else "",
        request.fidelity,
    ]
    applied = [Text(f"with {text}") for text in p.techniques]
    return stacked(model, chip, Text(" · ".join(f for f in facts if f), style="dim"), *applied)


def phase_notation(name: str, prediction: Prediction) -> str:
    """llama-bench's name of a phase: pp512, tg128 @ d512; the depth is the tokens cached before it."""
    request = prediction.request
    if name == "prefill":
        return f"pp{request.prompt}" + (f" @ d{request.depth}" if request.depth else "")
    if name == "decode":
        depth = request.depth + (request.prompt if "prefill" in prediction.phases else 0)
        return f"tg{request.generate}" + (f" @ d{depth}" if depth else "")
    if name == "inference" and prediction.steps:
        return f"{prediction.steps} steps"
    return ""


def _speed(p: Prediction) -> RenderableType:
    rows: list[list[str | Text]] = []
    for name, phase in p.phases.items():
        low, high = phase.interval_s
        produced = phase.tokens_per_s * phase.latency_s  # tokens of one latency
        label = Text(name, style="bold")
        label.append(f"  {phase_notation(name, p)}", style="dim")
        rows.append(
            [
                label,
                Text(number(phase.tokens_per_s), style="bold green"),
                span(produced / high, produced / low),
                format_seconds(phase.latency_s) + _per(name, p),
                percent(phase.bound_s / phase.latency_s),
            ]
        )
    counts_tokens = "inference" not in p.phases or any(ph.tokens > 1 for ph in p.phases.values())
    unit = "tokens/s" if counts_tokens else "per second"
    return table(["phase", unit, "80 % interval", "time", "of bound"], rows)


def _per(phase: str, p: Prediction) -> str:
    """What one latency of this phase buys, where it is not the phase itself."""
    if phase == p.denoiser:
        return "/step"
    if phase != "decode":
        return ""
    return "/token" if p.request.batch == 1 else "/step"


def _totals(p: Prediction) -> RenderableType:
    prefill, decode = p.phases.get("prefill"), p.phases.get("decode")
    lines: list[Text] = []
    if p.ttft_s is not None and prefill is not None:
        low, high = (format_seconds(t) for t in prefill.interval_s)
        line = Text("time to first token ")
        line.append(format_seconds(p.ttft_s), style="bold green")
        line.append(f"  ({low} - {high})")
        if decode is not None:
            seconds = prefill.latency_s + decode.latency_s * decode.tokens
            line.append(f"   whole request {format_seconds(seconds)}")
        lines.append(line)
    parts = []
    for name, phase in p.phases.items():
        low, high = (format_joules(j) for j in phase.energy_interval_j)
        parts.append(f"{name} {format_joules(phase.energy_j)}{_per(name, p)} ({low} - {high})")
    lines.append(Text("energy  " + ", ".join(parts)))
    return stacked(*lines)


def _bounds(p: Prediction) -> RenderableType:
    grid = table(["", "", ""], [], left=(0, 1, 2))
    grid.show_header = False
    for name, phase in p.phases.items():
        width = 18 - max(0, max(map(len, p.phases)) - 9)  # the legend needs the rest of 80 columns
        grid.add_row(name, bar(phase.bound_by, max(4, width)), cause_legend(phase.bound_by))
    lines = [
        Text(
            f"{name}: {format_ops(phase.ops)}, {format_bytes(phase.dram_bytes)} moved"
            f"{' per step' if _per(name, p) else ''}; physics allows {format_seconds(phase.bound_s)}",
            style="dim",
        )
        for name, phase in p.phases.items()
    ]
    return Group(grid, *lines)


def _memory(p: Prediction) -> RenderableType:
    m = p.memory
    rows: list[list[str | Text]] = [
        ["weights", format_bytes(m.weights), ""],
        ["activations", format_bytes(m.activation_peak), "peak"],
    ]
    if m.kv_cache:
        rows.insert(1, ["kv cache", format_bytes(m.kv_cache), f"{p.request.kv}, at the longest context"])
    verdict = Text("fits", style="bold green") if m.fits else Text("does not fit", style="bold red")
    verdict.append(
        f"  {percent(m.total / m.limit)} of {format_bytes(m.limit)} the {p.profile.engine} may use", style=""
    )
    rows.append([Text("total", style="bold"), Text(format_bytes(m.total), style="bold"), verdict])
    grid = table(["", "", ""], rows, left=(0, 2))
    grid.show_header = False
    if "dram.capacity" in p.soc.stated:
        return grid
    assumed = f"of the largest option, {format_bytes(p.soc['dram.capacity'])}; for yours --set dram.capacity=16GiB"
    return Group(grid, Text(assumed, style="dim"))


def _remedy_lines(r: Remedies) -> RenderableType:
    lines: list[str] = []
    if r.weights:
        lines.append(f"--weights {r.weights[0]} needs {format_bytes(r.weights[1])}")
    if r.kv:
        lines.append(f"--kv {r.kv[0]} needs {format_bytes(r.kv[1])}")
    if r.batch:
        lines.append(f"--batch {r.batch}")
    if r.tokens:
        lines.append(f"at most {r.tokens:,} tokens of depth, prompt and answer together")
    if r.chips:
        listed = ", ".join(f"{chip} ({format_bytes(limit)})" for chip, limit in r.chips)
        lines.append(f"--chip {listed}")
    if not lines:
        lines.append("nothing found: no usual weight format, context or chip of the catalogue holds it")
    return Group(heading("what would fit"), *(indented(Text(line)) for line in lines))


def _breakdown(phase: Phase) -> RenderableType:
    total = phase.latency_s
    groups = table(["layer group", "time", "share", ""], list(_groups(phase)), left=(0, 3))
    shown = phase.kernels[:MOST_KERNELS]
    rows: list[list[str | Text]] = [
        [
            f"{k.group}.{k.name}", k.format, str(k.count), format_seconds(k.seconds), percent(k.seconds / total),
            _worst(k), format_ops(k.ops), format_bytes(k.bytes),
        ]
        for k in shown
    ]  # fmt: skip
    rest = sum(k.seconds for k in phase.kernels[MOST_KERNELS:])
    if rest > 0:
        hidden = len(phase.kernels) - len(shown)
        rows.append([f"{hidden} others", "", "", format_seconds(rest), percent(rest / total), "", "", ""])
    calls = total - sum(k.seconds for k in phase.kernels)
    if calls > 1e-9 * total:
        rows.append(["submitting calls", "", "", format_seconds(calls), percent(calls / total), "dispatch", "", ""])
    kernels = table(["kernel", "format", "count", "time", "share", "bound by", "ops", "moved"], rows, left=(0, 1, 5))
    return Group(heading(phase.name), indented(groups), Text(), indented(kernels))


def _groups(phase: Phase) -> Iterator[list[str | Text]]:
    sums: dict[str, dict[str, float]] = {}
    for k in phase.kernels:
        into = sums.setdefault(k.group, {"compute": 0.0, "memory": 0.0, "dispatch": 0.0})
        into["compute"] += k.compute_s
        into["memory"] += k.memory_s
        into["dispatch"] += k.dispatch_s
    for group, causes in sorted(sums.items(), key=lambda item: -sum(item[1].values())):
        seconds = sum(causes.values())
        share = seconds / phase.latency_s
        shares = {cause: value / seconds if seconds else 0.0 for cause, value in causes.items()}
        yield [group, format_seconds(seconds), percent(share), bar(shares, max(1, round(share * 30)))]


def _worst(k: KernelShare) -> str:
    causes = {"compute": k.compute_s, "memory": k.memory_s, "dispatch": k.dispatch_s}
    return max(causes, key=lambda c: causes[c])
