"""Published claims as questions to the model: which chip, which model, which options, which figure. One reading rule per
kind of technique, none per row; what a rule cannot read is a named reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files

from orchard.studies.request import Request
from orchard.techniques import NO_RULE, TECHNIQUES, Claim
from orchard.units import OrchardError


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure as a gain (above 1 is better), low and high end; `kind`: speed, size, cost (a ratio that is better small).

    times_s   (without, with) where the claim gives two times of one call
    """

    kind: str
    low: float
    high: float
    times_s: tuple[float, ...] = ()

    @property
    def middle(self) -> float:
        return float((self.low * self.high) ** 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Two requests whose `figure` is compared: without and with the technique. rows: both are one decode pass, the second
    of so many rows."""

    base: Request
    test: Request
    figure: str
    rows: int = 0


class Unreadable(OrchardError):  # noqa: N818 - a reason, not a failure
    """Why a claim is no question to the model."""


TIMES = ("latency ms", "total ms", "ms", "us", "us per run", "s", "TTFT ms")
RATES = ("tok/s", "images/s", "rows/s", "GPU tok/s", "decode tok/s", "prefill pp512 tok/s")
QUALITY = re.compile(
    r"ppl|top-1|PSNR|score|accuracy|MMLU|VQA|benchmark|retained|finding|named|avg %|logit|zero-shot|\bTV\b"
)


def published(claim: Claim) -> Published:
    """Raises Unreadable for a figure that is no speed, size or cost with both ends."""
    metric = claim.metric
    if QUALITY.search(metric):
        raise Unreadable("quality untestable here: no experiment measures it yet")
    value = _numbers(claim.value)
    if not value:
        raise Unreadable(f"the claim gives no number ({claim.value or 'empty'})")
    if "saved" in metric:
        raise Unreadable(f"{metric!r} is no ratio of sizes")
    if metric == "ratio":
        base = _numbers(claim.baseline) or (1.0,)
        return Published(kind="cost", low=min(value) / base[0], high=max(value) / base[0])
    if (
        "reduction %" in metric
        or "saving" in metric
        or "energy increase" in metric
        or "memory" in metric.lower()
        or "size" in metric
    ):
        return _size(claim, value)
    if "speedup" in metric or "throughput" in metric or "latency reduction" in metric or "max throughput" in metric:
        base = _numbers(claim.baseline) or (1.0,)
        return Published(kind="speed", low=min(value) / base[0], high=max(value) / base[0])
    if metric in ("improvement %", "faster %"):
        return Published(kind="speed", low=1 + min(value) / 100, high=1 + max(value) / 100)
    if "change %" in metric:
        ends = sorted(1 / (1 - abs(v) / 100) for v in value)
        return Published(kind="speed", low=ends[0], high=ends[-1])
    base = _numbers(claim.baseline)
    if not base:
        raise Unreadable("the claim states no baseline to compare with")
    if metric in TIMES:
        unit = 1e-6 if metric.startswith("us") else 1.0 if metric == "s" else 1e-3
        both = (base[0] * unit, value[0] * unit)
        return Published(kind="speed", low=base[0] / max(value), high=base[0] / min(value), times_s=both)
    if metric in ("tok/s", "decode tok/s"):
        both = (1.0 / base[0], 1.0 / value[0])
        return Published(kind="speed", low=min(value) / base[0], high=max(value) / base[0], times_s=both)
    if metric in RATES or metric == "TOPS":
        return Published(kind="speed", low=min(value) / base[0], high=max(value) / base[0])
    raise Unreadable(f"{metric!r} is no speed or size that the model predicts")


def _size(claim: Claim, value: tuple[float, ...]) -> Published:
    base = _numbers(claim.baseline)
    if "%" in claim.metric:
        if not any(word in claim.metric for word in ("memory", "cache")) or "energy" in claim.metric:
            raise Unreadable(f"{claim.metric!r} is no speed or size that the model predicts")
        ends = sorted(1 / (1 - v / 100) for v in value)
        return Published(kind="size", low=ends[0], high=ends[-1])
    if " x" in claim.metric:
        if "train" in claim.metric or "energy" in claim.metric:
            raise Unreadable(f"{claim.metric!r} is no speed or size that the model predicts")
        return Published(kind="size", low=min(value), high=max(value))
    if not base or "GB" not in claim.metric:
        raise Unreadable("the claim states no baseline to compare with")
    return Published(kind="size", low=base[0] / max(value), high=base[0] / min(value))


def _numbers(text: str) -> tuple[float, ...]:
    """`2.2-3.6` as (2.2, 3.6); `>50 / 2x` is no figure."""
    match = re.fullmatch(
        r"[~<>]*\s*(-?\d+(?:\.\d+)?(?:e\d+)?)(?:\s*(?:-|to)\s*(-?\d+(?:\.\d+)?))?\s*(?:x|\(.*\))?", text.strip()
    )
    return tuple(float(g) for g in match.groups() if g is not None) if match else ()


PHONES = {
    "iphone 15 pro": "a17pro", "a17 pro": "a17pro", "iphone 14 pro": "a16", "a16": "a16", "iphone 13 pro": "a15",
    "iphone 12": "a14", "iphone 16 pro": "a18pro", "iphone 17 pro": "a19pro",
}  # fmt: skip
MACS = re.compile(r"\bM([1-6])(?:\s+(Pro|Max|Ultra))?\b")


def chips_of(hardware: str) -> tuple[str, ...]:
    """Catalogue ids of the Apple chips a text names, in order; empty where it names none."""
    text = hardware.lower()
    phone = next((chip for name, chip in PHONES.items() if name in text), None)
    if phone:
        return (phone,)
    found = [f"m{m[1]}{(m[2] or '').lower()}" for m in MACS.finditer(hardware)]
    if found == ["m3ultra"] and "60c" in text:
        return ("m3ultra_cpu28_gpu60",)
    return tuple(found)


def engine_of(claim: Claim) -> str:
    text = f"{claim.hardware} {claim.technique} {claim.setting}"
    if "GPU" in claim.hardware or "GPU" in claim.setting:
        return "gpu"
    if "CPU" in claim.hardware:
        return "cpu"
    phone = bool(re.search(r"iPhone|A1\d", claim.hardware))
    return "ane" if "ANE" in text or "Neural" in text or phone else "gpu"


@lru_cache(maxsize=256)
def model_of(text: str) -> str:
    """The built-in model a claim names. Raises Unreadable."""
    from orchard.studies.sources import open_model

    claimed = text.strip()
    name = text.split("+")[0].split(",")[0].strip()
    name = re.sub(r"\b(I?Q\d\w*|F16|fp16|\d-?b(it)?)\b|\(.*?\)", "", name).strip()
    known = {
        "SD v1.5": "stable-diffusion-1.5", "SDXL": "stable-diffusion-xl", "ViT-B/16": "vit-base-patch16-224", "GPT-2": "gpt2",
        "ViT-L/16@384": "vit-large-patch16-224", "TinyLlama": "tinyllama-1.1b", "Mamba": "mamba-2.8b",
        "13B": "llama-2-13b", "1B": "llama-3.2-1b", "7B": "llama-2-7b", "OPT-1.3B": _stored("opt-1.3b"),
        "SDXL UNet": "stable-diffusion-xl-unet",
    }  # fmt: skip
    short = name.lower().replace(" ", "-").removesuffix("-instruct").replace("r1-distill", "deepseek-r1-distill")
    for candidate in (
        known.get(claimed, "") or known.get(name, ""),
        short,
        f"{short}-1.0",
        short.replace("mobilenetv", "mobilenet-v") + "-1.0",
        _vision(short),
    ):
        if candidate:
            try:
                open_model(Request(model=candidate, chip="m4"))
                return candidate
            except OrchardError:
                continue
    raise Unreadable(f"model {text!r} is not built in")


def known_model(text: str) -> bool:
    """Whether the model a claim names is built in."""
    try:
        model_of(text)
    except Unreadable:
        return False
    return True


def _stored(name: str) -> str:
    """A config.json that ships with the claims."""
    return str(files("orchard.data").joinpath("techniques", f"{name}.json"))


def _vision(short: str) -> str:
    """mobilevitv2-1.0 -> mobilevit-v2-1.0, mobilenetv3-small -> mobilenet-v3-small-1.0."""
    spelled = re.sub(r"(mobilevit|mobilenet)v(\d)", r"\1-v\2", short)
    return spelled if re.search(r"\d\.\d$", spelled) else f"{spelled}-1.0"


def case_of(claim: Claim, chip: str | None = None) -> Case:
    """The question a claim puts, on its own chip, or on `chip`. Raises Unreadable with the reason where there is none."""
    if claim.card in NO_RULE and claim.card != "matrix-units":
        raise Unreadable(f"{claim.card} has no cost rule: {NO_RULE[claim.card]}")
    chips = (chip,) if chip else chips_of(claim.hardware)
    if not chips or chips[0] is None:
        raise Unreadable("the claim names no chip of the catalogue")
    if claim.card == "w8a8" and "microbench" in claim.model:
        chip_only = Request(model="", chip=chips[-1], engine="ane")
        return Case(base=chip_only, test=chip_only, figure="int8")
    try:
        model = model_of(claim.model)
    except Unreadable:
        if not chip:
            raise
        model = STAND_IN.get(claim.card, "llama-3.1-8b")
    base = Request(
        model=model, chip=chips[-1], engine=engine_of(claim) if not chip else "auto", weights=_weights(claim.model),
        runtime=_runtime(claim) if not chip else None, prompt=64, generate=64,
    )  # fmt: skip
    if claim.card == "matrix-units":
        return _two_chips(claim, base, chips)
    if claim.card == "batching":
        return _rows(claim, base)
    if claim.card == "redrafter" and claim.metric == "ratio":
        return _beams(claim, replace(base, runtime="mlx", engine="gpu", weights="f16"))
    if claim.card == "prefill-decode-split":
        tokens = re.search(r"(\d+)-token", claim.setting)
        if not tokens:
            raise Unreadable("the claim gives no length of a prompt")
        split = replace(base, engine="gpu", runtime="mlx", prompt=int(tokens[1]))
        return Case(base=split, test=replace(split, apply=(claim.card,)), figure="prefill")
    text = _technique(claim)
    if base.runtime is None and base.engine == "gpu" and claim.card in SPECULATIVE:
        base = replace(base, runtime="mlx")
    figure = "prefill" if "prefill" in claim.technique or "prefill" in claim.metric else "decode"
    if figure == "prefill":
        base = replace(base, prompt=512, generate=0)
    if published(claim).kind == "size":
        figure = "kv_cache" if claim.card.startswith("kv") else "weights"
    return Case(base=base, test=replace(base, apply=(text,)), figure=figure)


STAND_IN = {
    "token-merging": "vit-base-patch16-224", "feature-cache": "stable-diffusion-1.5", "depthwise": "resnet50",
    "reparameterize": "resnet50", "expert-offload": "qwen3-30b-a3b",
}  # fmt: skip
"""Models that answer on the target where the claim's own is not built in; the others: llama-3.1-8b."""

SPECULATIVE = ("speculative", "redrafter", "multi-token-heads", "eagle", "prompt-lookup", "early-exit")


def _weights(model: str) -> str:
    """The format of the target as the model column names it: `13B Q4_0`, `Qwen2.5-72B 4b`; f16 without."""
    match = re.search(r"\b(I?Q\d(?:_\w+)?)\b", model)
    if match:
        return match[1].lower() if "_" in match[1] else "q4_0"
    bits = re.search(r"\b(\d)-?b(?:it)?\b(?!-)", model.split("+")[0])
    return f"mlx-{bits[1]}bit-g64" if bits and bits[1] in "48" else "f16"


BUILDS = {"PR 10491": "2024-11-25"}
"""Pull requests of llama.cpp that were measured on their own branch, by the day they were merged."""


def _runtime(claim: Claim) -> str | None:
    if "llama.cpp" in claim.paper:
        dated = next((date for part, date in BUILDS.items() if part in claim.paper), f"{claim.year}-12")
        return f"llama.cpp@{dated}"
    return "mlx" if "MLX" in claim.setting or "mlx" in claim.source_ref else None


def _two_chips(claim: Claim, base: Request, chips: tuple[str, ...]) -> Case:
    if len(chips) != 2:
        raise Unreadable("the claim compares builds of one runtime; there is no profile of the earlier one")
    wide = replace(base, runtime="mlx", engine="gpu", weights="mlx-4bit-g64", prompt=512)
    figure = "prefill" if "first token" in f"{claim.metric} {claim.setting}" else "decode"
    return Case(base=replace(wide, chip=chips[1]), test=replace(wide, chip=chips[0]), figure=figure)


def _rows(claim: Claim, base: Request) -> Case:
    match = re.search(r"(\d+) rows vs 1 row", claim.setting)
    if not match:
        raise Unreadable("one kernel on its own, or a new tile: the claim is about a build without a profile")
    return Case(base=base, test=base, figure="rows", rows=int(match[1]))


def _beams(claim: Claim, base: Request) -> Case:
    found = re.findall(r"beam (\d+), length (\d+)", claim.setting)
    if not found:
        raise Unreadable("no beam and length stated")
    applied = [f"redrafter:beams={b},length={n},acceptance=0" for b, n in found]
    first = replace(base, apply=(applied[1],)) if len(found) == 2 else base
    return Case(base=first, test=replace(base, apply=(applied[0],)), figure="decode")


def _technique(claim: Claim) -> str:
    """The `--apply` text of a claim: bits, groups and shares as the setting states them, the pass's defaults for the rest."""
    text, card = f"{claim.setting} {claim.technique}", claim.card
    if card not in TECHNIQUES:
        raise Unreadable(f"{card} has no cost rule")
    bits = (
        re.search(r"\b(\d)b\b", claim.setting)
        or re.search(r"\b(?:int|W)(\d)", text)
        or re.search(r"\b(\d)[- ]?bit", text)
    )
    group = re.search(r"\bgroup\s?(\d+)|\bg(\d+)\b|\bblock(\d+)", claim.setting)
    share = re.search(r"(\d+)\s?%", claim.setting)
    size = next((g for g in group.groups() if g), "0") if group else "1" if "per-channel" in claim.setting else "0"
    if card == "k-quant":
        return f"k-quant:type={claim.setting.split()[0].lower()}"
    if card.startswith("palett") or card in ("palette-dkm", "palette-sensitive"):
        if card == "palette-mixed":
            raise Unreadable("the allocation of bits to layers is not stated")
        return f"palettize:bits={bits[1] if bits else 4},group={size}"
    if card in ("rtn", "gptq", "awq", "hqq"):
        quant = re.fullmatch(r"I?Q\d\w*", claim.setting)
        if quant:
            return f"k-quant:type={quant[0].lower()}"
        if card == "rtn" and not bits:
            return _eight_bits(claim)
        return f"{card}:bits={bits[1] if bits else 4},group={size if group else 0 if card == 'rtn' else 128}"
    if card in ("prune", "activation-sparsity"):
        return f"{card}:sparsity={int(share[1]) / 100 if share else 0.5:g}"
    if card == "sparse-palette":
        return f"sparse-palette:sparsity={int(share[1]) / 100 if share else 0.5:g},bits={bits[1] if bits else 4}"
    if card == "kv-quant":
        return _kv(claim)
    if card == "token-merging":
        merged = re.search(r"r=(\d+)", claim.setting)
        return f"token-merging:merge={merged[1]}" if merged else "token-merging"
    if card in SPECULATIVE:
        return _speculation(claim)
    return card


def _eight_bits(claim: Claim) -> str:
    if "W8" in claim.technique:
        return "rtn:bits=8"
    raise Unreadable("a better kernel, not a technique: the claim is about a build without a profile")


def _kv(claim: Claim) -> str:
    match = re.search(r"K(\d)V(\d)", claim.setting + claim.technique)
    if match:
        return f"kv-quant:bits={match[1]},v_bits={match[2]}"
    bits = re.search(r"(\d)-?bit|int(\d)", claim.setting + " " + claim.technique)
    return f"kv-quant:bits={(bits[1] or bits[2]) if bits else 4}"


DEFAULT_DRAFT = 3
"""Tokens per round where a report of MLX does not say: mlx-lm's own default for --num-draft-tokens."""


def _speculation(claim: Claim) -> str:
    """Acceptance as stated: accepted over drafted, which is (E - 1) / g of the formula's a."""
    accepted = re.search(r"(\d+(?:\.\d+)?)\s?%\s*accepted|acceptance (0\.\d+)", f"{claim.model} {claim.setting}")
    depth = re.search(r"(?:depth|n=|n_max)\s?(\d+)|(\d+) drafts", claim.setting)
    tokens = int(next(g for g in depth.groups() if g)) if depth else DEFAULT_DRAFT
    if not tokens:
        raise Unreadable("no token is drafted in this run")
    if claim.card == "redrafter":
        beams = re.search(r"beam width (\d+)", claim.setting)
        return f"redrafter:beams={beams[1] if beams else 1},length=5"
    if claim.card in ("prompt-lookup", "eagle"):
        return claim.card
    if accepted is None:
        raise Unreadable("the share of accepted tokens, which decides the gain, is not stated")
    share = float(accepted[1]) / 100 if accepted[1] else float(accepted[2])
    a = acceptance_of(min(share, 1.0), tokens)
    if claim.card == "speculative":
        draft = re.search(r"\+\s*(?:([\w.]+)-)?(\d+(?:\.\d+)?B)", claim.model)
        family = re.search(r"(Qwen|Llama)", claim.model)
        if not draft or not family:
            raise Unreadable("the draft model is not stated")
        name = f"llama-3.2-{draft[2].lower()}" if family[1] == "Llama" else f"qwen2.5-{draft[2].lower()}"
        return f"speculative:draft={name},tokens={tokens},acceptance={a:.4g}"
    if claim.card == "early-exit":
        leave = re.search(r"exit (\d+)", claim.setting)
        return f"early-exit:exit={leave[1] if leave else 8},tokens={tokens},acceptance={a:.4g}"
    return f"multi-token-heads:tokens={tokens},acceptance={a:.4g}"


def acceptance_of(share: float, tokens: int) -> float:
    """The a with (a + a^2 + ... + a^g) / g = share; by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        a = (low + high) / 2
        low, high = (a, high) if sum(a**i for i in range(1, tokens + 1)) / tokens < share else (low, a)
    return (low + high) / 2
