"""Runtime profiles: what software makes of silicon. Data files under `profiles/`, fitted by `orchard calibrate`.

A profile names its runtime and engine, the lowering rules (which ops run as one kernel), integer rules of its kernels
(tile sizes, prompt chunk), and fitted parameters, each with value, standard error, unit and meaning. It never names a chip:
a parameter holds for all chips, so that a chip known only from its data sheet can be predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from orchard.cost.errors import ProfileError
from orchard.cost.lower import Lowering
from orchard.units import did_you_mean

_MERGED = ("lowering", "rules", "parameters", "errors")
"""Sections that a profile with `inherits` overlays key by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A fitted number.

    value, sigma   the fit and the standard error of its logarithm (0: set from a source, not fitted)
    prior, width   where the fit starts and how far rows may pull it (standard deviation of the logarithm); `source` says
                   where the prior comes from
    fixed          no row can determine it: the fit leaves it alone
    """

    value: float
    unit: str
    about: str
    prior: float | None = None
    width: float = 0.4
    sigma: float = 0.0
    source: str = "own judgement"
    fixed: bool = False

    @property
    def centre(self) -> float:
        """The prior; the value itself where none is stated."""
        return self.value if self.prior is None else self.prior


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorModel:
    """Spread of ln(measured / predicted) on left-out chips and families: `low` and `high` are its 10 % and 90 % points."""

    low: float
    high: float
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One runtime on one engine, for builds from a date on.

    `parameters` maps dotted names to fitted numbers, `rules` to integers and tables. `owner` says for each parameter which
    file holds it (a profile inherits the rest), `errors` the spread on left-out chips and families per stratum, `rows` the
    measurements of the fit.
    """

    name: str
    runtime: str
    engine: str
    version: str
    builds_from: str
    model: str
    aliases: tuple[str, ...]
    lowering: Lowering
    rules: Mapping[str, Any]
    parameters: Mapping[str, Parameter]
    errors: Mapping[str, ErrorModel] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    about: str = ""
    owner: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """Parameter values by name."""
        return {name: p.value for name, p in self.parameters.items()}

    def with_values(self, values: Mapping[str, float]) -> Profile:
        """The same profile with some parameter values replaced."""
        changed = {n: replace(p, value=values.get(n, p.value)) for n, p in self.parameters.items()}
        return replace(self, parameters=changed)


def profile_names() -> tuple[str, ...]:
    """File names of all profiles, e.g. `llama.cpp-gpu`."""
    folder = files("orchard.cost").joinpath("profiles")
    return tuple(sorted(p.name[: -len(".yaml")] for p in folder.iterdir() if p.name.endswith(".yaml")))


@lru_cache(maxsize=64)
def load_profile(name: str) -> Profile:
    """Read one profile. Raises ProfileError for an unknown name or a malformed file."""
    names = profile_names()
    if name not in names:
        raise ProfileError(f"profile {name!r} is not known{did_you_mean(name, names)}; known: {', '.join(names)}")
    return parse_profile(_inherited(_read(name), name), name)


def _inherited(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`data` laid over what it inherits from, section by section; `owner` records where each parameter stands."""
    own = {"owner": dict.fromkeys(data.get("parameters") or {}, name)}
    if "inherits" not in data:
        return {**data, **own}
    base = _inherited(_read(str(data["inherits"])), str(data["inherits"]))
    merged = {key: {**base.get(key, {}), **(data.get(key) or {})} for key in _MERGED}
    return {**base, **data, **merged, "owner": {**base["owner"], **own["owner"]}}


@lru_cache(maxsize=64)
def _read(name: str) -> Mapping[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = files("orchard.cost").joinpath("profiles", f"{name}.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.load(text, loader)
    return loaded


def parse_profile(data: Mapping[str, Any], name: str) -> Profile:
    """A profile from its YAML mapping. Raises ProfileError naming the field."""
    try:
        rules = dict(data["lowering"])
        lowering = Lowering(
            fused_attention=bool(rules.get("fused_attention", True)),
            fused_head_most=int(rules.get("fused_head_most", 0)),
            chains=tuple(tuple(c) for c in rules.get("chains", ())),
            epilogues=tuple(rules.get("epilogues", ())),
            concurrent=bool(rules.get("concurrent", False)),
            named=bool(rules.get("named", False)),
            free=tuple(rules.get("free", ())),
        )
        parameters = {key: Parameter(**value) for key, value in data["parameters"].items()}
        errors = {key: ErrorModel(**value) for key, value in (data.get("errors") or {}).items()}
        profile = Profile(
            name=name,
            runtime=str(data["runtime"]),
            engine=str(data["engine"]),
            version=str(data["version"]),
            builds_from=str(data.get("builds_from", "")),
            model=str(data["model"]),
            aliases=tuple(data.get("aliases", ())),
            lowering=lowering,
            rules=dict(data.get("rules", {})),
            parameters=parameters,
            errors=errors,
            rows=tuple(data.get("rows", ())),
            about=str(data.get("about", "")),
            owner=dict(data.get("owner", {})),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProfileError(f"profile {name}: {type(error).__name__} at {error}") from None
    bad = [
        n for n, p in profile.parameters.items() if not (isinstance(p.value, (int, float)) and math.isfinite(p.value))
    ]
    if bad:
        raise ProfileError(
            f"profile {name}: parameter {bad[0]!r} is {profile.parameters[bad[0]].value}, expected a number"
        )
    return profile


def format_profile(data: Mapping[str, Any]) -> str:
    """A profile file as text: one parameter a line, so that a refit reads as a small diff."""
    import yaml

    def flow(value: Any) -> str:
        text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
        return text.strip().removesuffix("...").strip()

    lines: list[str] = []
    for key, value in data.items():
        if key in ("parameters", "errors", "rules", "lowering") and value:
            lines.append(f"{key}:")
            lines.extend(f"  {name}: {flow(entry)}" for name, entry in value.items())
        elif key == "rows":
            lines.append("rows:")
            lines.extend(f"  - {flow(entry)}" for entry in value)
        else:
            lines.append(f"{key}: {flow(value)}")
    return "\n".join(lines) + "\n"
