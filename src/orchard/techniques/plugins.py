"""Plug-ins: techniques of other packages, found by their entry points, with a sentence for each that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint
from typing import Generic, TypeVar

from orchard.techniques.base import GraphPass, Technique

T = TypeVar("T")

ENTRY_POINTS = "orchard.techniques"
"""Group of entry points; each names a subclass of GraphPass that passes orchard.techniques.contract.TechniqueContract."""
TEXTS = ("title", "family", "mechanism", "formula", "helps", "hurts", "quality", "verdict")
LISTS = ("relieves", "sources")
RATED = ("ane", "gpu", "gpu_matrix", "cpu")
RATINGS = ("++", "+", "0", "-", "x")


@dataclass(frozen=True, slots=True)
class Plugin(Generic[T]):
    """A class of another package. `origin` is that package with its version."""

    cls: type[T]
    origin: str


@dataclass(frozen=True, slots=True)
class Plugins(Generic[T]):
    """Classes by the name of their technique, and by the name of its entry point what is wrong with each of the others."""

    found: Mapping[str, Plugin[T]]
    problems: Mapping[str, str]


def load_plugins(group: str, base: type[T], taken: Iterable[str]) -> Plugins[T]:
    """Loads the entry points of a group. A subclass of `base` says with `name` what it is called; `taken` are names in use."""
    from importlib.metadata import entry_points

    used = set(taken)
    found: dict[str, Plugin[T]] = {}
    problems: dict[str, str] = {}
    for entry in sorted(entry_points(group=group), key=lambda e: (e.name, e.value)):
        origin = origin_of(entry)
        where = f"plug-in {entry.name!r} of {origin} (entry point group {group})"
        try:
            cls = entry.load()
        except Exception as error:  # whatever the package does while it loads
            problems[entry.name] = f"{where}: {entry.value} cannot be loaded ({type(error).__name__}: {_one_line(error)})"
            continue
        if not (isinstance(cls, type) and issubclass(cls, base)):
            problems[entry.name] = f"{where}: {entry.value} is no subclass of {base.__name__}"
            continue
        name = getattr(cls, "name", "")
        if not isinstance(name, str) or not name or name in used:
            state = f"a technique {name!r} exists already" if name else f"{entry.value} has no `name`"
            problems[entry.name] = f"{where}: {state}"
            continue
        used.add(name)
        found[name] = Plugin(cls, origin)
    return Plugins(found, problems)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or "no message"


def origin_of(entry: EntryPoint) -> str:
    """`orchard-spectral 0.1`; the module where the package is not known."""
    dist = entry.dist
    return f"{dist.name} {dist.version}" if dist is not None else entry.module


@lru_cache(maxsize=1)
def technique_plugins() -> Plugins[GraphPass]:
    """Techniques of other packages. One with a card that lacks something is a problem, not a technique."""
    from orchard.techniques.registry import NO_RULE, TECHNIQUES

    loaded = load_plugins(ENTRY_POINTS, GraphPass, [*TECHNIQUES, *NO_RULE])  # type: ignore[type-abstract]
    found, problems = dict(loaded.found), dict(loaded.problems)
    for name, plugin in loaded.found.items():
        wrong = shape_problem(plugin.cls) or card_problem(plugin.cls.card)
        if wrong:
            problems[name] = f"plug-in {name!r} of {plugin.origin} (entry point group {ENTRY_POINTS}): {wrong}"
            del found[name]
    return Plugins(found, problems)


def shape_problem(cls: type[Technique]) -> str:
    """Why a class is no record of options; empty where it is one."""
    if getattr(cls, "__abstractmethods__", None):
        return f"{cls.__name__} does not define {', '.join(sorted(cls.__abstractmethods__))}"
    if not is_dataclass(cls) or "__dataclass_fields__" not in vars(cls):
        return f"{cls.__name__} is no dataclass; write @dataclass(frozen=True, slots=True, kw_only=True) above it"
    bare = [f.name for f in fields(cls) if "about" not in f.metadata]
    return f"field {bare[0]} is no option; write {bare[0]} = option(default, what it means)" if bare else ""


def card_problem(card: Mapping[str, object]) -> str:
    """What a card lacks; empty where it is whole."""
    for key in TEXTS:
        if not isinstance(text := card.get(key), str) or not text.strip():
            return f"its card has no text {key!r}"
    for key in LISTS:
        listed = card.get(key)
        if not isinstance(listed, tuple | list) or not listed or not all(isinstance(t, str) and t.strip() for t in listed):
            return f"its card has no list {key!r}"
    ratings = card.get("engines")
    if not isinstance(ratings, Mapping) or set(ratings) != set(RATED) or not set(ratings.values()) <= set(RATINGS):
        return f"its card rates no engines, expected {', '.join(RATED)}, each one of {', '.join(RATINGS)}"
    unknown = sorted(set(card) - {*TEXTS, *LISTS, "engines"})
    return f"its card has an entry {unknown[0]!r} too many" if unknown else ""
