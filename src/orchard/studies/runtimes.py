"""Which profile answers for a runtime, an engine and a build date."""

from __future__ import annotations

import re

from orchard.cost.profile import Profile, load_profile, parse_profile, profile_names
from orchard.hw import SoC
from orchard.studies.errors import StudyError
from orchard.units import did_you_mean

ENGINES = {
    "auto": "auto", "cpu": "cpu", "gpu": "gpu", "ane": "ane",
    "all": "auto", "cpu_only": "cpu", "cpu_and_gpu": "gpu", "cpu_and_ne": "ane",
}  # fmt: skip
"""Engine names people use, Core ML's compute units included."""

PREFERENCE = {"llama.cpp": ("gpu", "cpu"), "mlx": ("gpu",), "coreml": ("ane", "gpu", "cpu")}
"""Engines `auto` tries, best first, per runtime."""


LANGUAGE = "language"
"""What a profile serves that does not say: language models and their encoders."""


def engine_name(name: str) -> str:
    """`auto`, `cpu`, `gpu` or `ane`. Raises StudyError with the nearest name."""
    found = ENGINES.get(name.lower().replace("-", "_"))
    if found is None:
        raise StudyError(f"engine {name!r} is not known{did_you_mean(name, ENGINES)}; expected auto, cpu, gpu or ane")
    return found


def runtime_names() -> tuple[str, ...]:
    """Runtimes with a profile."""
    named = [load_profile(n) for n in profile_names() if not n.startswith("_")]
    return tuple(sorted({p.runtime for p in named if p.rules.get("serves") != "ops"}))


def choose_profile(runtime: str | None, engine: str, weights: str | None = None, serves: str = LANGUAGE) -> Profile:
    """The profile for a request.

    `runtime` may carry a build: a date (`llama.cpp@2023-11`) or a llama.cpp build number (`llama.cpp@b4465`); without one
    the newest profile answers. `serves`: `network` prefers profiles fitted to image networks, `ops` those of single
    operations; the rest answers for language models. None picks by engine and weight format: Core ML for the ANE, MLX for
    MLX formats, llama.cpp otherwise. Raises StudyError for names not known and for an engine the runtime does not use.
    """
    engine = engine_name(engine)
    name, _, text = (runtime or _default_runtime(engine, weights)).lower().partition("@")
    build = build_date(text) if text else ""
    profiles = [load_profile(n) for n in profile_names() if not n.startswith("_")]
    others = [p for p in profiles if p.rules.get("serves") == "network"]  # Whisper, BERT: runtimes that serve nothing else
    profiles = [p for p in profiles if p.rules.get("serves", LANGUAGE) in (LANGUAGE, serves)]
    mine = [p for p in profiles if name == p.runtime or name in p.aliases]
    if not mine:
        mine = [p for p in others if name == p.runtime or name in p.aliases]
        profiles = others if mine else profiles
    if not mine:
        known = sorted({p.runtime for p in profiles} | {a for p in profiles for a in p.aliases})
        raise StudyError(f"runtime {runtime!r} is not known{did_you_mean(name, known)}; known: {', '.join(known)}")
    mine = [p for p in profiles if p.runtime == mine[0].runtime]  # an alias of one engine's profile means the runtime
    wanted = PREFERENCE.get(mine[0].runtime, ("gpu", "cpu", "ane")) if engine == "auto" else (engine,)
    for candidate in wanted:
        serving = sorted((p for p in mine if p.engine == candidate), key=lambda p: p.builds_from)
        serving = [p for p in serving if p.rules.get("serves", LANGUAGE) == serves] or serving
        if serving:
            return _by_build(serving, build)
    engines = ", ".join(sorted({p.engine for p in mine}))
    raise StudyError(f"runtime {mine[0].runtime} has no profile for engine {engine!r}, only for {engines}")


def machine_profile(soc: SoC, runtime: str | None, engine: str) -> Profile | None:
    """The profile a calibrated machine brings along, if the request leaves the runtime open or names it."""
    wanted = engine_name(engine)
    name = (runtime or "").lower().partition("@")[0]
    for key, data in soc.runtimes.items():
        profile = parse_profile(data, f"{soc.id}: runtimes.{key}")
        if wanted in ("auto", profile.engine) and name in ("", profile.runtime, *profile.aliases):
            return profile
    return None


def network_runtime(engine: str, serves: str = "network") -> str:
    """The runtime for a network or a model file when none is asked for: Core ML where it has a profile for the engine and for
    what the model is, else what has one."""
    wanted = engine_name(engine)
    coreml = [p for p in map(load_profile, profile_names()) if p.runtime == "coreml"]
    served = {p.engine for p in coreml if p.rules.get("serves", LANGUAGE) in (LANGUAGE, serves)}
    if wanted == "auto" or wanted in served:
        return "coreml"
    return "llama.cpp" if wanted == "cpu" else "mlx"


def _default_runtime(engine: str, weights: str | None) -> str:
    if engine == "ane":
        return "coreml"
    text = (weights or "").lower()
    is_mlx = engine in ("auto", "gpu") and ("mlx" in text or text.startswith(("int4-g", "int8-g", "int6-g", "int3-g")))
    return "mlx" if is_mlx else "llama.cpp"


BUILD_DATES = ((1, "2023-06"), (1500, "2023-11"), (4200, "2024-11-26"), (6400, "2025-09"))
"""llama.cpp build numbers and when they appeared; a number in between gets the earlier date."""


def build_date(text: str) -> str:
    """The date in a build text: `2023`, `2023-11`, `2024-11-29`, or a llama.cpp build number `b4465`.

    Raises StudyError for a text with neither.
    """
    date = re.search(r"20\d\d(?:-\d\d){0,2}", text)
    if date:
        return date.group(0)
    number = re.fullmatch(r"b?(\d{1,6})", text.strip())
    if number is None:
        raise StudyError(f"build {text!r}: expected a date such as 2023-11 or a build number such as b4465")
    return max(when for first, when in BUILD_DATES if int(number.group(1)) >= first or first == 1)


def _by_build(profiles: list[Profile], build: str) -> Profile:
    """The last profile that starts at or before the build date; the newest without a date."""
    if not build:
        return profiles[-1]
    earlier = [p for p in profiles if p.builds_from <= build]
    return earlier[-1] if earlier else profiles[0]
