"""Optional libraries, loaded where they are used. They come without types, so what they give is Any."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from orchard.measure.errors import MeasureError

INSTALL = {
    "torch": "pip install 'orchard[torch]'",
    "transformers": "pip install transformers",
    "mlx.core": "pip install mlx (on Linux: mlx[cpu])",
}


def library(name: str) -> Any:
    """A module by name, or a sentence that says how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        if name.partition(".")[0] not in str(error):
            raise
        raise MeasureError(
            f"this measurement needs {name}; install it with {INSTALL.get(name, f'pip install {name}')}"
        ) from None
