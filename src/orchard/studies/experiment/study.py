"""What an experiment is: fixtures, factors, a design, how cells become techniques, and what was said beforehand would hold.

A file names them (see docs/experiments.md); built-in ones stand in `builtin.yaml`. `apply` is a text of techniques with
`{factor}` for what a level stands for. Three factors are understood by the run itself: `fixture`, and `calibration` and
`calibration_draw` (how many sequences the techniques may look at, and which).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from orchard.studies.errors import StudyError
from orchard.studies.experiment.design import KINDS, Cell, Factor, Kind, fractional, full, hypercube, split_plot
from orchard.units import did_you_mean

Scale = Literal["quick", "full"]
OWN_FACTORS = ("fixture", "calibration", "calibration_draw")
KEYS = (
    "name", "about", "fixtures", "seeds", "sequences", "calibration", "factors", "design", "apply", "arms", "points", "whole",
    "tests", "data",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Said before the run: `first` relates to `second` on a fixture. `most` bounds the ratio of their losses, `least` from below,
    `margin` says that they (or `first` and nothing) differ by no more."""

    id: str
    about: str
    fixture: str
    first: str
    second: str = ""
    most: float | None = None
    least: float | None = None
    margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Frozen inputs of a run. `arms` is a plain list of technique texts instead of factors; `held` is which text is scored."""

    name: str
    about: str = ""
    fixtures: tuple[str, ...] = ("fx1",)
    seeds: tuple[int, ...] = (0, 1, 2)
    sequences: int = 64
    calibration: int = 32
    factors: tuple[Factor, ...] = ()
    design: Kind = "full"
    points: int = 200
    whole: tuple[str, ...] = ()
    apply: str = ""
    arms: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    scale: Scale = "full"
    held: Literal["held_out", "fresh"] = "held_out"

    def cells(self) -> list[Cell]:
        """Combinations of levels, or one cell per arm."""
        if not self.factors:
            return [(arm,) for arm in self.arms]
        if self.design == "full":
            return full(self.factors)
        if self.design == "fractional":
            return fractional(self.factors)
        if self.design == "latin-hypercube":
            return hypercube(self.factors, self.points, seed=0)
        return split_plot(self.factors, self.whole, seed=0)

    @property
    def factor_names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.factors) or ("arm",)

    def technique(self, cell: Cell) -> str:
        """The text of techniques of a cell."""
        if not self.factors:
            return cell[0]
        text = self.apply
        for factor, level in zip(self.factors, cell):
            text = text.replace("{" + factor.name + "}", factor.text(level))
        parts = [p.strip() for p in text.split("+")]
        return " + ".join(p for p in parts if p and p != "none") or "none"

    def setting(self, cell: Cell, name: str, default: str) -> str:
        """The level of a factor the run itself understands."""
        return next((f.text(level) for f, level in zip(self.factors, cell) if f.name == name), default)


@lru_cache(maxsize=1)
def builtin() -> Mapping[str, Experiment]:
    import yaml

    text = files("orchard.studies.experiment").joinpath("builtin.yaml").read_text(encoding="utf-8")
    return {name: parse({"name": name, **entry}, f"builtin {name}") for name, entry in yaml.safe_load(text).items()}


def find(name: str) -> Experiment:
    """A built-in experiment, or one in a YAML file. Raises StudyError for neither."""
    if name.endswith((".yaml", ".yml")) or Path(name).is_file():
        return read(Path(name))
    known = {key.lower(): e for key, e in builtin().items()}
    if name.lower() not in known:
        hint = did_you_mean(name.lower(), known)
        raise StudyError(f"experiment {name!r} is not known{hint}; expected {', '.join(builtin())} or a .yaml file")
    return known[name.lower()]


def read(path: Path) -> Experiment:
    import yaml

    try:
        entry = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: no YAML: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(entry, dict):
        raise StudyError(f"{path}: expected a mapping with {', '.join(KEYS[:7])}, ...")
    return parse({"name": path.stem, **entry}, str(path))


def parse(entry: Mapping[str, Any], where: str) -> Experiment:
    """An experiment from plain values. Raises StudyError naming the key, what it got and what it takes."""
    for key in entry:
        if key not in KEYS:
            raise StudyError(f"{where}: key {key!r} is not known{did_you_mean(key, KEYS)}; expected {', '.join(KEYS)}")
    listed = _mapping(entry.get("factors") or {}, f"{where}: factors")
    factors = tuple(_factor(name, levels, where) for name, levels in listed.items())
    design = entry.get("design", "full")
    if design not in KINDS:
        raise StudyError(f"{where}: design {design!r} is not known; expected {', '.join(KINDS)}")
    made = Experiment(
        name=str(entry["name"]), about=str(entry.get("about", "")),
        fixtures=_texts(entry.get("fixtures", ["fx1"]), where, "fixtures"),
        seeds=tuple(int(t) for t in _texts(entry.get("seeds", [0, 1, 2]), where, "seeds")),
        sequences=_whole(entry.get("sequences", 64), where, "sequences", 2),
        calibration=_whole(entry.get("calibration", 32), where, "calibration", 1),
        factors=factors, design=design, points=_whole(entry.get("points", 200), where, "points", 2),
        whole=_texts(entry.get("whole", []), where, "whole"), apply=str(entry.get("apply", "")),
        arms=_texts(entry.get("arms", []), where, "arms"), held="fresh" if entry.get("data") == "fresh" else "held_out",
        claims=tuple(_claim(c, where) for c in entry.get("tests") or ()),
    )  # fmt: skip
    return _checked(made, where)


def _checked(made: Experiment, where: str) -> Experiment:
    if bool(made.factors) == bool(made.arms):
        raise StudyError(f"{where}: expected either factors with apply, or arms")
    names = {f.name for f in made.factors}
    asked = set(re.findall(r"\{([^{}]*)\}", made.apply))
    for name in asked - names:
        raise StudyError(f"{where}: apply names {{{name}}}, which is no factor{did_you_mean(name, names)}")
    for name in names - asked - set(OWN_FACTORS):
        raise StudyError(f"{where}: factor {name!r} stands nowhere in apply, so it would change nothing")
    made.cells()
    return replace(made, claims=_with_arms(made))


def _with_arms(made: Experiment) -> tuple[Claim, ...]:
    known = {made.technique(cell) for cell in made.cells()} | {"none"}
    for claim in made.claims:
        for arm in (claim.first, claim.second):
            if arm and arm not in known:
                raise StudyError(f"test {claim.id}: {arm!r} is no arm of the experiment{did_you_mean(arm, known)}")
    return made.claims


def _factor(name: str, levels: Any, where: str) -> Factor:
    if isinstance(levels, Mapping):
        labels, texts = tuple(map(_label, levels)), tuple(map(_label, levels.values()))
    elif isinstance(levels, list):
        labels = texts = tuple(map(_label, levels))
    else:
        raise StudyError(
            f"{where}: factor {name!r} is {levels!r}, expected a list of levels or a mapping of labels to texts"
        )
    if not labels or len(set(labels)) < len(labels):
        raise StudyError(f"{where}: factor {name!r} has {'no levels' if not labels else 'a level twice'}")
    return Factor(str(name), labels, texts)


def _label(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError(f"{where}: expected a mapping, got {value!r}")
    return value


def _texts(value: Any, where: str, key: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise StudyError(f"{where}: {key} is {value!r}, expected a list")
    return tuple(map(_label, value))


def _whole(value: Any, where: str, key: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise StudyError(f"{where}: {key} is {value!r}, expected a whole number, at least {least}")
    return value


def _claim(entry: Any, where: str) -> Claim:
    try:
        return Claim(**entry)
    except TypeError as error:
        raise StudyError(
            f"{where}: a test is {entry!r}: {error}; expected id, about, fixture, first and a bound"
        ) from None
