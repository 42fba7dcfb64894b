"""The scenario file: what runs, when it arrives, what it must keep, and who else uses the memory.

    name: video-call
    about: one sentence
    chassis: phone                    # optional: phone, fanless-laptop, fan-laptop, desktop, none
    seconds: 30                       # optional
    streams:
      - name: segmentation
        model: mobilenet-v4-conv-m    # any MODEL of `orchard predict`; or `load:`, a sized piece of work
        engine: ane                   # cpu, gpu, ane, auto (the best one) or split (each op where it is best)
        every: 33.3ms                 # or poisson: 5 (per second), think: 4s (closed loop), times: file.csv, after: other
        deadline: 33ms
        priority: 2
      - name: chat
        model: qwen3-4b
        weights: q4_0
        prompt: 128
        generate: 200
        think: 5s
    memory_users:
      - {name: camera, rate: 1.2GB/s}
      - {name: display, width: 2556, height: 1179, bytes_per_pixel: 4, fps: 120}

Everything is checked when read: a ScenarioError names the file, the place, what was found and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from orchard.units import UnitError, did_you_mean, parse_quantity
from orchard.workloads.errors import ModelError

LONGEST_S = 86_400.0
MOST_STREAMS = 64
SHORTEST_S = 1e-6
ENGINES = ("auto", "split", "cpu", "gpu", "ane")
_ARRIVALS = ("every", "poisson", "think", "times", "after")


class ScenarioError(ModelError):
    """A scenario that cannot be run as it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When requests come. Exactly one kind:

    every      period in seconds, with `offset` and `jitter` (±)
    poisson    requests a second
    think      seconds between the end of a request and the next one
    times      stated arrival times in seconds
    after      none of its own: see Cascade
    """

    kind: str
    every_s: float = 0.0
    offset_s: float = 0.0
    jitter_s: float = 0.0
    per_s: float = 0.0
    think_s: float = 0.0
    times_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Cascade:
    """Runs `count` times, each with `probability`, whenever a request of `after` ends."""

    after: str
    probability: float = 1.0
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Work of stated size in place of a model: seconds alone, bytes of DRAM, watts above idle while it runs."""

    engine: str
    seconds: float
    bytes: float = 0.0
    watts: float | None = None
    ops: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """One stream. Model fields as in `orchard predict`. `grow`: each turn continues the conversation, up to `context` tokens,
    then a new one starts. `limit`: requests that may be unfinished at once; what comes on top is dropped."""

    name: str
    arrival: Arrival
    model: str = ""
    load: Load | None = None
    engine: str = "auto"
    runtime: str | None = None
    weights: str | None = None
    activations: str = "f16"
    kv: str = "f16"
    batch: int = 1
    prompt: int = 0
    generate: int = 0
    depth: int = 0
    threads: int | None = None
    steps: int | None = None
    inputs: tuple[str, ...] = ()
    grow: bool = False
    context: int = 4096
    priority: int = 0
    deadline_s: float | None = None
    limit: int = 64
    cascade: Cascade | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSpec:
    """Somebody who moves bytes at a constant rate and is served first. `to_s` None: to the end."""

    name: str
    bytes_per_s: float
    from_s: float = 0.0
    to_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A checked scenario."""

    name: str
    about: str
    streams: tuple[StreamSpec, ...]
    users: tuple[UserSpec, ...] = ()
    chassis: str | None = None
    seconds: float = 30.0
    sources: Mapping[str, str] = field(default_factory=dict)


def scenario_names() -> tuple[str, ...]:
    """Names of the scenarios that come with Orchard."""
    folder = files("orchard.workloads.scenarios")
    return tuple(sorted(p.name[: -len(".yaml")] for p in folder.iterdir() if p.name.endswith(".yaml")))


def load_scenario(text: str) -> Scenario:
    """A shipped scenario by name, or a YAML file. Raises ScenarioError."""
    names = scenario_names()
    if text in names:
        path = Path(str(files("orchard.workloads.scenarios").joinpath(f"{text}.yaml")))
        return parse_scenario(_read(path), text, path.parent)
    path = Path(text)
    if len(text) <= 1000 and path.is_dir():
        raise ScenarioError(f"scenario {text[-100:]!r} is a folder, expected a YAML file in it or a name: {', '.join(names)}")
    if len(text) > 1000 or path.suffix not in (".yaml", ".yml"):
        raise ScenarioError(
            f"scenario {text[:60]!r} is not known{did_you_mean(text[:60], names)}; known: {', '.join(names)}, "
            f"or a file that ends with .yaml"
        )
    return parse_scenario(_read(path), text, path.parent)


def _read(path: Path) -> Mapping[str, Any]:
    from orchard.hw.errors import HardwareError
    from orchard.hw.yamlfile import read_untrusted

    try:
        return read_untrusted(path)
    except HardwareError as error:
        message = str(error).replace("the chip file", "the scenario file").replace("a chip file", "a scenario file")
        message = message.replace("chip files", "scenario files").replace("one chip", "one scenario")
        raise ScenarioError(message.replace("such as base, name, gpu, dram", "name and streams")) from None


_TOP = ("name", "about", "chassis", "seconds", "streams", "memory_users", "sources")
_STREAM = (
    "name", "model", "load", "engine", "runtime", "weights", "activations", "kv", "batch", "prompt", "generate", "depth",
    "threads", "steps", "input", "grow", "context", "priority", "deadline", "limit", "offset", "jitter", "probability", "count",
    *_ARRIVALS,
)  # fmt: skip
_LOAD = ("engine", "time", "bytes", "watts", "ops")
_USER = ("name", "rate", "width", "height", "bytes_per_pixel", "fps", "passes", "from", "to")


def parse_scenario(data: Mapping[str, Any], where: str, folder: Path) -> Scenario:
    """A scenario from its YAML mapping; `folder` is where trace files are looked for. Raises ScenarioError."""
    _known(data, _TOP, where)
    streams = _rows(data.get("streams"), f"{where}: streams", MOST_STREAMS)
    if not streams:
        raise ScenarioError(f"{where}: has no streams; a scenario needs one at least")
    parsed = tuple(_stream(s, f"{where}: streams[{i}]", folder) for i, s in enumerate(streams))
    users = _rows(data.get("memory_users"), f"{where}: memory_users", MOST_STREAMS)
    chassis = data.get("chassis")
    if chassis is not None and not isinstance(chassis, str):
        raise ScenarioError(f"{where}: chassis is {str(chassis)[:40]!r}, expected a name such as phone")
    found = Scenario(
        name=_text(data.get("name", where), f"{where}: name"), about=_text(data.get("about", ""), f"{where}: about"),
        streams=parsed, users=tuple(_user(u, f"{where}: memory_users[{i}]") for i, u in enumerate(users)),
        chassis=chassis, seconds=_seconds(data.get("seconds", 30), f"{where}: seconds", LONGEST_S),
        sources={str(k): str(v) for k, v in (data.get("sources") or {}).items()},
    )  # fmt: skip
    _check_names(found, where)
    _check_cascades(found, where)
    return found


def _stream(data: Mapping[str, Any], where: str, folder: Path) -> StreamSpec:
    _known(data, _STREAM, where)
    name = _text(data.get("name", ""), f"{where}: name")
    if not name:
        raise ScenarioError(f"{where}: has no name")
    where = f"{where} ({name})"
    if ("model" in data) == ("load" in data):
        raise ScenarioError(f"{where}: expected either model or load")
    text = partial(_optional_text, data, where)
    whole = partial(_whole, data, where)
    load = _load(data["load"], f"{where}: load") if "load" in data else None
    engine = load.engine if load else str(data.get("engine", "auto")).lower()
    if engine not in ENGINES or (load and engine in ("auto", "split")):
        raise ScenarioError(
            f"{where}: engine {engine!r} is not known; expected cpu, gpu, ane{'' if load else ', auto or split'}"
        )
    deadline = data.get("deadline")
    return StreamSpec(
        name=name, arrival=_arrival(data, where, folder), model=text("model") or "", load=load, engine=engine,
        runtime=text("runtime"), weights=text("weights"), activations=text("activations") or "f16",
        kv=text("kv") or "f16", batch=whole("batch", 1, 1), prompt=whole("prompt", 0, 0),
        generate=whole("generate", 0, 0), depth=whole("depth", 0, 0),
        threads=whole("threads", 1, 1) if "threads" in data else None,
        steps=whole("steps", 1, 1) if "steps" in data else None, inputs=_inputs(data.get("input"), where),
        grow=_flag(data.get("grow", False), f"{where}: grow"), context=whole("context", 4096, 1),
        priority=whole("priority", 0, -100, 100), limit=whole("limit", 64, 1, 100_000),
        deadline_s=None if deadline is None else _seconds(deadline, f"{where}: deadline", LONGEST_S),
        cascade=_cascade(data, where),
    )  # fmt: skip


def _arrival(data: Mapping[str, Any], where: str, folder: Path) -> Arrival:
    kinds = [k for k in _ARRIVALS if k in data]
    if len(kinds) != 1:
        got = " and ".join(kinds) if kinds else "none"
        raise ScenarioError(f"{where}: got {got} of every, poisson, think, times, after; expected exactly one")
    kind = kinds[0]
    offset = _seconds(data.get("offset", 0), f"{where}: offset", LONGEST_S, zero=True)
    if kind == "every":
        period = _seconds(data["every"], f"{where}: every", LONGEST_S)
        if period < SHORTEST_S:
            raise ScenarioError(f"{where}: every {data['every']!r} is more than a million requests a second")
        jitter = _seconds(data.get("jitter", 0), f"{where}: jitter", period, zero=True)
        return Arrival(kind=kind, every_s=period, offset_s=offset, jitter_s=jitter)
    if kind == "poisson":
        rate = data["poisson"]
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1 / SHORTEST_S:
            raise ScenarioError(f"{where}: poisson is {str(rate)[:40]!r}, expected requests a second, 0 to a million")
        return Arrival(kind=kind, per_s=float(rate))
    if kind == "think":
        return Arrival(
            kind=kind, think_s=_seconds(data["think"], f"{where}: think", LONGEST_S, zero=True), offset_s=offset
        )
    if kind == "times":
        return Arrival(kind=kind, times_s=_times(data["times"], where, folder))
    return Arrival(kind=kind)


def _times(given: Any, where: str, folder: Path) -> tuple[float, ...]:
    """A list of seconds, or a text file with one time in seconds per line (the first column of a CSV; a header is skipped)."""
    if isinstance(given, str):
        path = folder / given
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:1_000_001]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ScenarioError(f"{where}: times {given[:100]!r}: cannot be read ({reason})") from None
        cells = [line.split(",")[0].strip() for line in lines]
        given = [c for i, c in enumerate(cells) if c and not (i == 0 and not _is_number(c))]
    if not isinstance(given, list) or not given:
        raise ScenarioError(f"{where}: times holds no arrival times")
    if not all(_is_number(x) for x in given):
        bad = next(x for x in given if not _is_number(x))
        raise ScenarioError(f"{where}: times holds {str(bad)[:40]!r}, expected seconds")
    found = tuple(float(x) for x in given)
    if any(b < a for a, b in zip(found, found[1:])) or found[0] < 0:
        raise ScenarioError(f"{where}: times must be >= 0 and in order")
    return found


def _is_number(text: Any) -> bool:
    try:
        return not isinstance(text, bool) and math.isfinite(float(text))
    except (TypeError, ValueError):
        return False


def _cascade(data: Mapping[str, Any], where: str) -> Cascade | None:
    if "after" not in data:
        if "probability" in data or "count" in data:
            raise ScenarioError(f"{where}: probability and count belong to a stream with `after`")
        return None
    probability = data.get("probability", 1.0)
    if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 < probability <= 1:
        raise ScenarioError(f"{where}: probability is {str(probability)[:40]!r}, expected above 0, at most 1")
    return Cascade(str(data["after"]), float(probability), _whole(data, where, "count", 1, 1, 1000))


def _load(data: Any, where: str) -> Load:
    if not isinstance(data, Mapping):
        raise ScenarioError(f"{where}: expected engine and time")
    _known(data, _LOAD, where)
    if "engine" not in data or "time" not in data:
        raise ScenarioError(f"{where}: expected engine and time")
    watts = data.get("watts")
    return Load(
        engine=str(data["engine"]).lower(), seconds=_seconds(data["time"], f"{where}: time", LONGEST_S),
        bytes=_quantity(data.get("bytes", 0), "bytes", f"{where}: bytes"), ops=_whole(data, where, "ops", 1, 1, 100_000),
        watts=None if watts is None else _quantity(watts, "w", f"{where}: watts"),
    )  # fmt: skip


def _user(data: Mapping[str, Any], where: str) -> UserSpec:
    _known(data, _USER, where)
    name = _text(data.get("name", ""), f"{where}: name")
    if not name:
        raise ScenarioError(f"{where}: has no name")
    where = f"{where} ({name})"
    start = _seconds(data.get("from", 0), f"{where}: from", LONGEST_S, zero=True)
    end = None if data.get("to") is None else _seconds(data["to"], f"{where}: to", LONGEST_S)
    if end is not None and end <= start:
        raise ScenarioError(f"{where}: ends at {end:g} s, before it starts at {start:g} s")
    return UserSpec(name=name, bytes_per_s=_rate(data, where), from_s=start, to_s=end)


def _rate(data: Mapping[str, Any], where: str) -> float:
    """`rate`, or pictures: width x height x bytes per pixel x fps x passes (reads and writes of each picture)."""
    if "rate" in data:
        return _quantity(data["rate"], "bytes_per_s", f"{where}: rate", positive=True)
    needed = ("width", "height", "bytes_per_pixel", "fps")
    missing = [key for key in needed if key not in data]
    if missing:
        raise ScenarioError(
            f"{where}: expected rate, or width, height, bytes_per_pixel and fps; {missing[0]} is missing"
        )
    product = 1.0
    for key in (*needed, "passes"):
        value = data.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e6:
            raise ScenarioError(f"{where}: {key} is {str(value)[:40]!r}, expected a number above 0")
        product *= float(value)
    return product


def _check_names(scenario: Scenario, where: str) -> None:
    names = [s.name for s in scenario.streams] + [u.name for u in scenario.users]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ScenarioError(f"{where}: the name {twice[0]!r} is there twice")


def _check_cascades(scenario: Scenario, where: str) -> None:
    """Every `after` names a stream, and no chain leads back to itself."""
    before = {s.name: s.cascade.after for s in scenario.streams if s.cascade}
    names = [s.name for s in scenario.streams]
    for name, after in before.items():
        if after not in names:
            raise ScenarioError(f"{where}: {name} runs after {after!r}, which is no stream{did_you_mean(after, names)}")
    for name in before:
        seen, at = [name], before[name]
        while at in before:
            if at in seen:
                raise ScenarioError(
                    f"{where}: a cycle: {' after '.join([*seen[seen.index(at) :], at])}; nothing starts it"
                )
            seen.append(at)
            at = before[at]


# --- fields


def _known(data: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    unknown = [k for k in data if k not in keys]
    if unknown:
        bad = str(unknown[0])[:40]
        raise ScenarioError(f"{where}: {bad!r} is not known{did_you_mean(bad, keys)}; expected {', '.join(keys)}")


def _rows(value: Any, where: str, most: int) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise ScenarioError(f"{where}: expected a list of entries with name and so on")
    if len(value) > most:
        raise ScenarioError(f"{where}: {len(value)} entries, expected at most {most}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > 500:
        raise ScenarioError(f"{where}: got {str(value)[:40]!r}, expected text")
    return value


def _optional_text(data: Mapping[str, Any], where: str, key: str) -> str | None:
    value = data.get(key)
    return None if value is None else _text(str(value) if isinstance(value, int | float) else value, f"{where}: {key}")


def _inputs(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    listed = value if isinstance(value, list) else [value]
    return tuple(_text(x, f"{where}: input") for x in listed)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ScenarioError(f"{where}: got {str(value)[:40]!r}, expected true or false")
    return value


def _whole(data: Mapping[str, Any], where: str, key: str, default: int, least: int, most: int = 2**24) -> int:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ScenarioError(f"{where}: {key} is {str(value)[:40]!r}, expected a whole number, {least} to {most}")
    return value


def _quantity(value: Any, dimension: str, where: str, *, positive: bool = False) -> float:
    try:
        return parse_quantity(value, dimension, where=where, positive=positive)
    except UnitError as error:
        raise ScenarioError(str(error)) from None


def _seconds(value: Any, where: str, most: float, *, zero: bool = False) -> float:
    seconds = _quantity(value, "s", where, positive=not zero)
    if seconds > most:
        raise ScenarioError(f"{where}: {seconds:g} s, expected at most {most:g} s")
    return seconds
