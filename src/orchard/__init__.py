"""Orchard: how a machine-learning workload will run on a SoC, before the device is in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchard.studies.predict import Prediction, predict
    from orchard.units.errors import OrchardError

__version__ = "0.1.0"
__all__ = ["OrchardError", "Prediction", "__version__", "predict"]


def __getattr__(name: str) -> Any:
    """Load the public names where they are first used, so that `import orchard` stays cheap."""
    if name in ("predict", "Prediction"):
        from orchard.studies import predict as module

        return getattr(module, name)
    if name == "OrchardError":
        from orchard.units.errors import OrchardError

        return OrchardError
    raise AttributeError(f"module 'orchard' has no attribute {name!r}")
