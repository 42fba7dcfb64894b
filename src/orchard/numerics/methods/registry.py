"""Every technique with numerics by name, plug-ins among them; texts such as `rotation + rtn:bits=4 + activations:bits=4`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache

from torch import nn

from orchard.numerics.errors import NumericsError
from orchard.numerics.methods import others, weights
from orchard.numerics.methods.base import Evidence, Numeric
from orchard.techniques.base import Value
from orchard.techniques.plugins import load_plugins
from orchard.units import did_you_mean

ENTRY_POINTS = "orchard.numerics"
"""Group of entry points; each names a subclass of Numeric that passes orchard.numerics.contract.NumericContract."""
OWN: tuple[type[Numeric], ...] = (
    weights.Rtn,
    weights.LeadingBits, weights.Gptq, weights.Awq, weights.Hqq, weights.Palettize, weights.DenseAndSparse,
    weights.LowRankCorrection,
    weights.Prune, weights.PruneNm, weights.LowRank,
    others.Rotation, others.Smooth, others.Activations, others.W8a8, others.W4a8, others.ActivationSparsity,
    others.LayerDrop, others.PruneStructured, others.KvQuant, others.SlidingWindow, others.KvEvict,
)  # fmt: skip


@lru_cache(maxsize=1)
def methods() -> Mapping[str, type[Numeric]]:
    """Own and plugged-in techniques. Raises NumericsError for a plug-in that cannot be loaded, is none, or takes a name
    that is taken."""
    own = {cls.name: cls for cls in OWN}
    plugins = load_plugins(ENTRY_POINTS, Numeric, own)  # type: ignore[type-abstract]
    for problem in plugins.problems.values():
        raise NumericsError(problem)
    return {**own, **{name: plugin.cls for name, plugin in plugins.found.items()}}


def parse_methods(text: str) -> tuple[Numeric, ...]:
    """Techniques in the order they apply, joined by +; an empty text or `none` is no technique."""
    parts = [part.strip() for part in text.split("+")]
    if parts in ([""], ["none"]):
        return ()
    return tuple(parse_method(part) for part in parts)


def parse_method(text: str) -> Numeric:
    """Raises NumericsError naming the option, what it got and what it takes."""
    name, _, rest = text.partition(":")
    known = methods()
    cls = known.get(name.strip())
    if cls is None:
        hint = did_you_mean(name, known)
        raise NumericsError(f"technique {name.strip()!r} has no numerics{hint}; those with: {', '.join(known)}")
    options = {f.name: f.default for f in fields(cls)}
    values: dict[str, Value] = {}
    for part in (p.strip() for p in rest.split(",") if p.strip()):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or key not in options:
            raise NumericsError(
                f"{cls.name}: option {part[:40]!r} is not known; it takes {', '.join(options) or 'no options'}"
            )
        values[key] = _value(f"{cls.name}: {key}", value, options[key])
    return cls(**values)


def _value(where: str, text: str, default: object) -> Value:
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise NumericsError(f"{where}={text[:40]}, expected true or false")
        return text.lower() == "true"
    try:
        return int(text) if isinstance(default, int) else float(text)
    except ValueError:
        raise NumericsError(
            f"{where}={text[:40]}, expected a {'whole ' if isinstance(default, int) else ''}number"
        ) from None


def apply_methods(model: nn.Module, found: tuple[Numeric, ...], evidence: Evidence) -> None:
    """Change the model in place, technique by technique; each sees the model as those before it left it."""
    for method in found:
        method.apply(model, evidence)
