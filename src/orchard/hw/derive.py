"""What a chip file does not say: peaks from cores and clocks, and documented assumptions for what nobody has published.

Two tables, applied in order:
- FILLS: a constant for a figure that is missing, with source, kind and the chips it holds for.
- RULES: arithmetic on other figures, in SI. A rule always wins over a stored value of the same figure, so that
  `--set gpu.cores=60` moves every peak that follows from it; a figure the user states stays as stated. A rule with
  `only_missing` steps back when the file has a value.

The formulas use + - * / and comparisons only, so they hold for floats and for NumPy arrays alike. A figure that neither
table gives stays unknown, and whoever needs it gets a HardwareError that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchard.hw.figure import Figure, si_factor
from orchard.hw.schema import FIGURES, TIERS

GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Identity:
    """What tables may look at besides figures. `tier`: base, pro, max, ultra (Macs), phone (A series), "" (others)."""

    family: str = ""
    tier: str = ""
    ane_generation: int = 0  # 13 for H13; 0 = not an Apple engine


def identity_of(chip_id: str, family: str, ane_generation: str) -> Identity:
    """`chip_id` is the catalogue id the chip is, or is based on; "" for a chip described from nothing."""
    found = re.match(r"(?:(a)|m)\d+(pro|max|ultra)?", chip_id)
    tier = "" if found is None else "phone" if found[1] else found[2] or "base"
    h = re.match(r"H(\d+)", ane_generation)
    return Identity(family, tier, int(h[1]) if h else 0)


@dataclass(frozen=True, slots=True)
class Fill:
    """Constant for a missing figure. It applies when `when` holds, `needs` is known and not 0, `without` is not."""

    path: str
    value: float
    unit: str
    source: str
    kind: str
    note: str
    when: Callable[[Identity], bool] = lambda _: True
    needs: str = ""
    without: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """`path` = formula(inputs), all SI. Applies when every input is known."""

    path: str
    inputs: tuple[str, ...]
    formula: Callable[..., Any]
    note: str
    kind: str = "derived"
    source: str = "formula"
    only_missing: bool = False
    when: Callable[[Identity], bool] = lambda _: True


def _tier(*tiers: str) -> Callable[[Identity], bool]:
    return lambda i: i.tier in tiers


def _ane(first: int, last: int, *tiers: str) -> Callable[[Identity], bool]:
    return lambda i: first <= i.ane_generation <= last and (not tiers or i.tier in tiers)


def _gpu_from(a_series: int, m_series: int) -> Callable[[Identity], bool]:
    """GPUs of these generations of phone and Mac chips, and later ones."""

    def holds(i: Identity) -> bool:
        found = re.match(r"([AM])(\d+)", i.family)
        return found is not None and int(found[2]) >= (a_series if found[1] == "A" else m_series)

    return holds


def _family(family: str, *tiers: str) -> Callable[[Identity], bool]:
    return lambda i: i.family == family and (not tiers or i.tier in tiers)


_APPLE = _tier("base", "pro", "max", "ultra", "phone")
_MAC = _tier("base", "pro", "max", "ultra")

FILLS: tuple[Fill, ...] = (
    Fill("gpu.coissue", 2, "count", "apple-talk-g15", "vendor", "FP32, FP16 and integer in parallel", _gpu_from(17, 3)),
    Fill("gpu.coissue", 1, "count", "metal-benchmarks", "measured", "one instruction a cycle up to A16 and M2", _APPLE),
    Fill("gpu.coissue", 1, "count", "formula", "estimate", "one unless the file says otherwise"),
    Fill("package.dies", 1, "count", "formula", "derived", "the GPU is on one die unless the file says otherwise"),
    *(
        Fill(
            f"cpu.{tier}.{leaf}", 0, unit, "formula", "derived", "tier absent", without=f"cpu.{tier}.cores",
        )
        for tier in TIERS
        for leaf, unit in (("cores", "count"), ("clusters", "count"), ("neon_fp32", "GFLOPS"))
    ),
    # CPU: clocks and caches of tiers nobody has read yet
    Fill("cpu.s.clock", 4.608, "GHz", "siliconscope", "estimate", "not known; as M5", _family("M6"), "cpu.s.cores"),
    Fill("cpu.s.clock", 4.26, "GHz", "wikipedia", "estimate", "not known; as A19 P", _family("A20"), "cpu.s.cores"),
    Fill("cpu.p.clock", 4.38, "GHz", "siliconscope", "estimate", "not known; as M5 Pro", _family("M6"), "cpu.p.cores"),
    Fill("cpu.e.clock", 2.89, "GHz", "topcpu", "estimate", "not known; as M4", _tier("base"), "cpu.e.cores"),
    Fill("cpu.e.clock", 2.6, "GHz", "wikipedia", "estimate", "not known; as A19", _tier("phone"), "cpu.e.cores"),
    Fill("cpu.s.l1d", 128, "KiB", "wikipedia", "estimate", "not known; as earlier P cores", _APPLE, "cpu.s.cores"),
    Fill("cpu.p.l1d", 128, "KiB", "wikipedia", "estimate", "not known; as earlier P cores", _APPLE, "cpu.p.cores"),
    Fill("cpu.e.l1d", 64, "KiB", "wikipedia", "estimate", "not known; as earlier E cores", _APPLE, "cpu.e.cores"),
    Fill("cpu.s.l2", 16, "MiB", "wikipedia", "estimate", "not known; as M5", _APPLE, "cpu.s.cores"),
    Fill("cpu.p.l2", 16, "MiB", "wikipedia", "estimate", "not known; as M4", _APPLE, "cpu.p.cores"),
    Fill("cpu.e.l2", 4, "MiB", "wikipedia", "estimate", "not known; as earlier E clusters", _APPLE, "cpu.e.cores"),
    # GPU: memories that nobody has measured from M3 on; those cores share one pool for all three
    Fill("gpu.l1", 8, "KiB", "metal-benchmarks", "estimate", "read on G13 and G14", _APPLE),
    Fill("gpu.registers", 208, "KiB", "metal-benchmarks", "estimate", "read on G13 and G14", _APPLE),
    Fill("gpu.l2", 1536, "KiB", "metal-benchmarks", "estimate", "not measured; as M2 and M6", _tier("base")),
    Fill("gpu.l2", 768, "KiB", "metal-benchmarks", "estimate", "not measured; as M1", _tier("phone")),
    Fill("gpu.l2", 512, "KiB", "metal-benchmarks", "estimate", "not measured; as M2 Pro", _tier("pro")),
    Fill("gpu.l2", 1024, "KiB", "metal-benchmarks", "estimate", "not measured; as M2 Max", _tier("max")),
    Fill("gpu.l2", 2048, "KiB", "metal-benchmarks", "estimate", "not measured; twice M2 Max", _tier("ultra")),
    Fill("slc.size", 48, "MiB", "gpu-forge", "estimate", "not known; as M4 Max", _tier("max")),
    Fill("slc.size", 96, "MiB", "gpu-forge", "estimate", "not known; twice M4 Max", _tier("ultra")),
    Fill("slc.size", 32, "MiB", "wikipedia", "estimate", "not known; as A19 Pro", _tier("phone")),
    # ANE
    Fill(
        "ane.int8_op_core_cycle", 512, "MAC/cycle", "751k-m6", "measured", "W8A8 doubles the rate from H16 on",
        _ane(16, 99), "ane.cores",
    ),
    Fill(
        "ane.int8_op_core_cycle", 256, "MAC/cycle", "751k-m6", "measured", "no INT8 rate gain before A17 Pro / M4",
        _ane(1, 15), "ane.cores",
    ),
    Fill("ane.align", 64, "B", "apple-ane-transformers", "vendor", "last axis is padded", _ane(1, 99), "ane.cores"),
    Fill(
        "ane.activation_bandwidth", 24, "GB/s", "bryngelson-ane", "estimate", "read on M1 class and M5 Pro",
        _ane(1, 99), "ane.cores",
    ),
    Fill("ane.dispatch", 0.21, "ms", "bryngelson-ane", "estimate", "read on M1 Max", _ane(1, 13), "ane.cores"),
    Fill("ane.dispatch", 0.15, "ms", "bryngelson-ane", "estimate", "between M1 and M4", _ane(14, 15), "ane.cores"),
    Fill("ane.dispatch", 0.09, "ms", "maderix-ane", "estimate", "read on M4 and M5 Pro", _ane(16, 99), "ane.cores"),
    # energy per byte: the only figures found for these chips
    Fill("dram.energy", 44, "pJ/B", "751k-m6", "estimate", "read on M6 for ANE weight reads, 42-46", _APPLE),
    Fill("slc.energy", 10, "pJ/B", "751k-m6", "estimate", "constant of the ANE compiler", _APPLE),
    # memory of the machine, where the options are not known
    Fill("dram.capacity_max", 36, "GiB", "apple-techspecs", "estimate", "not known; as M4 Max", _family("M5", "max")),
    Fill("dram.capacity_max", 16, "GiB", "formula", "estimate", "assumed; options not settled", _family("M6", "base")),
    Fill(
        "dram.gpu_share", 0.5, "fraction", "formula", "estimate", "iOS limits one app to about half of the RAM",
        _tier("phone"),
    ),
)  # fmt: skip


def _rules() -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for tier in TIERS:
        rules.append(
            Rule(
                f"cpu.{tier}.neon_fp32",
                (f"cpu.{tier}.neon_fma_pipes", "cpu.neon.width", f"cpu.{tier}.clock"),
                lambda pipes, width_bytes, clock: pipes * (width_bytes / 4) * 2 * clock,
                "pipes x lanes x 2 x clock",
            )
        )  # fmt: skip
    totals = [path for tier in TIERS for path in (f"cpu.{tier}.cores", f"cpu.{tier}.neon_fp32")]
    rules.append(
        Rule(
            "cpu.neon.fp32", tuple(totals), lambda *x: x[0] * x[1] + x[2] * x[3] + x[4] * x[5], "sum over tiers",
        )
    )  # fmt: skip
    rules.append(Rule("cpu.neon.fp16", ("cpu.neon.fp32",), lambda fp32: 2 * fp32, "twice FP32"))
    rules.append(
        Rule(
            "cpu.neon.int8", ("cpu.neon.fp32",), lambda fp32: 4 * fp32,
            "dot product: 16 MACs per 128-bit pipe and cycle", kind="estimate", source="dougallj",
        )
    )  # fmt: skip
    return (*rules, *_DRAM, *_CPU, *_GPU, *_ANE)  # no rule needs a figure that a later one gives


_CPU: tuple[Rule, ...] = (
    Rule(
        "cpu.matrix.units", ("cpu.s.clusters", "cpu.p.clusters", "cpu.e.clusters"), lambda s, p, e: s + p + e,
        "one per CPU cluster", kind="estimate", only_missing=True,
    ),
    # SME chips without a measurement: the M4 unit (2.0 TFLOPS FP32 at 4.46 GHz), scaled by the clock of the top tier
    Rule(
        "cpu.matrix.main_fp32", ("cpu.s.clock",), lambda clock: 2.0e12 * clock / 4.46e9, "M4 unit scaled by clock",
        kind="estimate", source="tzakharko-sme", only_missing=True, when=_APPLE,
    ),
    Rule(
        "cpu.matrix.main_fp32", ("cpu.p.clock",), lambda clock: 2.0e12 * clock / 4.46e9, "M4 unit scaled by clock",
        kind="estimate", source="tzakharko-sme", only_missing=True, when=_APPLE,
    ),
    Rule(
        "cpu.matrix.main_fp16", ("cpu.matrix.main_fp32",), lambda fp32: fp32, "FP16 at the FP32 rate, as on M4",
        kind="estimate", source="tzakharko-sme", only_missing=True, when=_ane(17, 99),
    ),
    Rule(
        "cpu.matrix.main_bf16", ("cpu.matrix.main_fp32",), lambda fp32: fp32, "BF16 at the FP32 rate, as on M4",
        kind="estimate", source="tzakharko-sme", only_missing=True, when=_ane(17, 99),
    ),
    Rule(
        "cpu.matrix.main_int8", ("cpu.matrix.main_fp32",), lambda fp32: 2 * fp32, "twice FP32, as on M4",
        kind="estimate", source="tzakharko-sme", only_missing=True, when=_ane(17, 99),
    ),
    Rule(
        "cpu.matrix.main_fp64", ("cpu.matrix.main_fp32",), lambda fp32: fp32 / 4, "a quarter of FP32, as on M4",
        kind="estimate", source="tzakharko-sme", only_missing=True, when=_ane(17, 99),
    ),
    Rule(
        "cpu.matrix.eff_fp32", ("cpu.matrix.main_fp32", "cpu.e.clusters"), lambda fp32, e: 0.18 * fp32 * (e > 0),
        "0.18 of a main unit, as on M4", kind="estimate", source="tzakharko-sme", only_missing=True, when=_APPLE,
    ),
    Rule(
        "cpu.matrix.main_units", ("cpu.matrix.units", "cpu.e.clusters"), lambda units, e: units - e,
        "units outside the efficiency clusters",
    ),
    Rule(
        "cpu.matrix.fp32", ("cpu.matrix.main_units", "cpu.matrix.main_fp32", "cpu.matrix.eff_fp32", "cpu.e.clusters"),
        lambda n, main, eff, e: n * main + e * eff, "main units plus efficiency units",
    ),
    Rule("cpu.matrix.fp16", ("cpu.matrix.main_units", "cpu.matrix.main_fp16"), lambda n, x: n * x, "units x rate"),
    Rule("cpu.matrix.bf16", ("cpu.matrix.main_units", "cpu.matrix.main_bf16"), lambda n, x: n * x, "units x rate"),
    Rule("cpu.matrix.int8", ("cpu.matrix.main_units", "cpu.matrix.main_int8"), lambda n, x: n * x, "units x rate"),
)  # fmt: skip

_CORE_CYCLE = "cores x ops per core and cycle x clock"
_GPU: tuple[Rule, ...] = (
    Rule("gpu.fp32", ("gpu.cores", "gpu.fp32_flop_core_cycle", "gpu.clock"), lambda n, f, c: n * f * c, _CORE_CYCLE),
    Rule("gpu.fp16", ("gpu.cores", "gpu.fp16_flop_core_cycle", "gpu.clock"), lambda n, f, c: n * f * c, _CORE_CYCLE),
    Rule(
        "gpu.matrix.fp16", ("gpu.cores", "gpu.matrix.fp16_flop_core_cycle", "gpu.clock"), lambda n, f, c: n * f * c,
        _CORE_CYCLE,
    ),
    Rule("gpu.matrix.bf16", ("gpu.matrix.fp16",), lambda fp16: fp16, "at the FP16 rate (from OS 26.1 on)"),
    Rule(
        "gpu.matrix.int8", ("gpu.cores", "gpu.matrix.int8_op_core_cycle", "gpu.clock"), lambda n, f, c: n * f * c,
        _CORE_CYCLE,
    ),
)  # fmt: skip

_ANE: tuple[Rule, ...] = (
    Rule("ane.fp16", ("ane.cores", "ane.fp16_op_core_cycle", "ane.clock"), lambda n, f, c: n * f * c, _CORE_CYCLE),
    Rule("ane.int8", ("ane.cores", "ane.int8_op_core_cycle", "ane.clock"), lambda n, f, c: n * f * c, _CORE_CYCLE),
    Rule(
        "ane.weight_bandwidth", ("ane.coreml_weight_bandwidth",), lambda x: x, "as reached through Core ML",
        kind="estimate", source="anemll-bench", only_missing=True,
    ),
    Rule(
        "ane.weight_bandwidth", ("dram.bandwidth", "ane.cores"), lambda dram, _: 0.7 * dram,
        "0.7 of DRAM; M1 reaches 0.75, M6 0.88", kind="estimate", only_missing=True, when=_tier("phone"),
    ),
    *(
        Rule(
            "ane.weight_bandwidth", ("dram.bandwidth", "ane.cores"),
            lambda dram, _, gbs=gbs: gbs * 1e9 + 0 * dram, note, kind="estimate", source=source, only_missing=True,
            when=when,
        )
        for gbs, note, source, when in (
            (120.2, "as M3 Max", "anemll-bench", _ane(15, 15, "max", "ultra")),
            (145.0, "as M5 Max", "bryngelson-ane", _ane(17, 17, "pro", "max", "ultra")),
            (60.5, "as M2", "anemll-bench", _ane(14, 14)),
            (63.1, "as M3", "anemll-bench", _ane(15, 15)),
            (67.0, "as M4", "751k-m6", _ane(16, 17)),
            (150.0, "as M6", "751k-m6", _ane(18, 99)),
        )
    ),
)  # fmt: skip

_DRAM: tuple[Rule, ...] = (
    Rule("dram.bandwidth", ("dram.transfer_rate", "dram.bus_width"), lambda t, w: t * w, "data rate x bus width"),
    Rule("dram.capacity", ("dram.capacity_max",), lambda c: c, "the largest option", only_missing=True),
    Rule(
        "dram.gpu_share", ("dram.capacity",), lambda c: 0.78 - 0.08 * (c <= 36 * GIB),
        "macOS default: 0.70 of RAM up to 36 GiB, 0.78 above", kind="estimate", source="gpu-llm-bench",
        only_missing=True, when=_MAC,
    ),
    Rule(
        "dram.gpu_share", ("dram.capacity",), lambda c: 1.0 + 0 * c, "no operating-system limit known",
        kind="estimate", only_missing=True,
    ),
    Rule("dram.gpu_limit", ("dram.capacity", "dram.gpu_share"), lambda c, s: c * s, "capacity x share"),
    Rule(
        "cpu.bandwidth", ("dram.cpu_bandwidth_measured",), lambda x: x, "as measured", only_missing=True,
    ),
    *(
        Rule(
            "cpu.bandwidth", ("dram.bandwidth",), lambda dram, share=share: share * dram, note, kind="estimate",
            source=source, only_missing=True, when=_tier(*tiers),
        )
        for share, note, source, tiers in (
            (0.87, "0.87 of DRAM, as M1 to M4", "kth", ("base", "phone")),
            (0.8, "0.8 of DRAM; M5 Pro reaches 0.42", "kth", ("pro",)),
            (0.6, "0.6 of DRAM, as M1 Max and M4 Max", "anandtech-m1max", ("max",)),
            (0.38, "0.38 of DRAM, as M2 Ultra", "device-bench", ("ultra",)),
            (1.0, "all of DRAM", "formula", ("",)),
        )
    ),
)  # fmt: skip


RULES: tuple[Rule, ...] = _rules()


def complete(
    figures: Mapping[str, Figure], identity: Identity, stated: frozenset[str]
) -> tuple[dict[str, Figure], frozenset[str]]:
    """`figures` with fills and rules applied, and the paths whose value a rule computed.

    `stated` are paths the user set: no rule touches them.
    """
    done = dict(figures)
    for fill in FILLS:
        if not _known(done, fill.path) and _fill_applies(fill, done, identity):
            done[fill.path] = Figure(
                path=fill.path, value=fill.value, unit=fill.unit, source=fill.source, kind=fill.kind, note=fill.note
            )
    values = {path: figure.si for path, figure in done.items() if isinstance(figure.value, int | float)}
    applied = dict(_apply(values, identity, stated))
    for path, rule in applied.items():
        done[path] = _derived(rule, float(values[path]), done.get(path))
    return done, frozenset(applied)


def recompute(
    values: Mapping[str, Any],
    changed: Mapping[str, Any],
    *,
    identity: Identity,
    stated: frozenset[str],
    computed: frozenset[str],
) -> dict[str, Any]:
    """`values` (SI, floats or arrays) with some of them changed, and everything the rules say about the new state.

    `stated` and the changed paths are left alone; `computed` are paths whose old value came from a rule.
    """
    done = {path: value for path, value in values.items() if path not in computed} | dict(changed)
    for _ in _apply(done, identity, stated | changed.keys()):
        pass
    return done


def _apply(values: dict[str, Any], identity: Identity, stated: frozenset[str]) -> Iterator[tuple[str, Rule]]:
    """Run the rules over `values` in place; yields each path with the rule that gave its value."""
    for rule in RULES:
        if rule.path in stated or (rule.only_missing and rule.path in values) or not rule.when(identity):
            continue
        if all(path in values for path in rule.inputs):
            values[rule.path] = rule.formula(*(values[path] for path in rule.inputs))
            yield rule.path, rule


def _derived(rule: Rule, si: float, stored: Figure | None) -> Figure:
    unit = FIGURES[rule.path].unit
    value = si / si_factor(unit)
    if stored is not None and isinstance(stored.value, int | float) and abs(stored.si - si) <= 0.005 * abs(si):
        return Figure(path=rule.path, value=value, unit=unit, source=stored.source, kind=stored.kind, note=stored.note)
    return Figure(path=rule.path, value=value, unit=unit, source=rule.source, kind=rule.kind, note=rule.note)


def _fill_applies(fill: Fill, figures: Mapping[str, Figure], identity: Identity) -> bool:
    if fill.needs and not (_known(figures, fill.needs) and figures[fill.needs].value):
        return False
    if fill.without and _known(figures, fill.without) and figures[fill.without].value:
        return False
    return fill.when(identity)


def _known(figures: Mapping[str, Figure], path: str) -> bool:
    figure = figures.get(path)
    return figure is not None and figure.known
