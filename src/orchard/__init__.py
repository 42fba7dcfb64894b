"""Orchard: how a machine-learning workload will run on a SoC, before the device is in hand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchard.studies.compare import Comparison, compare
    from orchard.studies.place import Placement, place
    from orchard.studies.predict import Prediction, predict, predict_variants
    from orchard.studies.request import Request
    from orchard.studies.simulate import Simulation, simulate
    from orchard.units.errors import OrchardError

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "OrchardError",
    "Placement",
    "Prediction",
    "Request",
    "Simulation",
    "__version__",
    "compare",
    "place",
    "predict",
    "predict_variants",
    "simulate",
]

_HOMES = {
    "Comparison": "orchard.studies.compare",
    "OrchardError": "orchard.units.errors",
    "Placement": "orchard.studies.place",
    "Prediction": "orchard.studies.predict",
    "compare": "orchard.studies.compare",
    "Request": "orchard.studies.request",
    "place": "orchard.studies.place",
    "Simulation": "orchard.studies.simulate",
    "predict": "orchard.studies.predict",
    "predict_variants": "orchard.studies.predict",
    "simulate": "orchard.studies.simulate",
}


def __getattr__(name: str) -> Any:
    """Load the public names where they are first used, so that `import orchard` stays cheap."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'orchard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
