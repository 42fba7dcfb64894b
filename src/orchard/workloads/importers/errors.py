"""Errors of the importers.

OrchardError                (orchard.units)
└── ImportError_            a file or object that cannot become a graph: what, where, and what helps
    ├── UnsupportedOps      ops without a rule, all of them at once with counts
    └── MissingExtra        an optional library is not installed; the message has the command that installs it
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType

from orchard.units.errors import OrchardError


class ImportError_(OrchardError):
    """A model file or object that cannot be imported. The message is one sentence with a remedy."""


class UnsupportedOps(ImportError_):
    """Ops without a rule. `ops` maps each op type to how often it occurs."""

    def __init__(self, where: str, ops: Mapping[str, int]) -> None:
        self.ops = dict(ops)
        ranked = sorted(ops.items(), key=lambda kv: (-kv[1], kv[0]))
        listed = ", ".join(f"{_shown(name)} ×{count}" for name, count in ranked)
        first = _shown(ranked[0][0])
        super().__init__(
            f"{where}: {len(ops)} op type(s) without a rule: {listed}. If they only touch each element once, "
            f"go on with --assume-elementwise {first} (Python: assume_elementwise=[{first!r}, ...])"
        )


def _shown(name: str) -> str:
    """The name of an op; of a damaged file it may be anything."""
    return name if name.isprintable() and len(name) <= 80 else ascii(name[:40])


class MissingExtra(ImportError_):
    """A library of an optional extra is missing."""


def need(module: str, extra: str, what: str) -> ModuleType:
    """Import `module` where it is used. Raises MissingExtra that names the extra, also where the module does not load."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name.split(".")[0]):
            raise
        raise MissingExtra(f"{what} needs {module.split('.')[0]}: pip install 'orchard[{extra}]'") from None
    except ImportError as error:  # its own shared library is missing (mlx without mlx-cpu on Linux) or needs a newer system
        raise MissingExtra(
            f"{what} needs {module.split('.')[0]}, which is there but does not load ({str(error).strip()[:200]}): "
            f"pip install 'orchard[{extra}]'"
        ) from None


def torchvision_clash(where: str, error: BaseException) -> ImportError_ | None:
    """The explanation when a CUDA build of torchvision takes torch, timm and transformers' classes down with it."""
    if "torchvision::" not in str(error):
        return None
    return ImportError_(
        f"{where}: a CUDA build of torchvision sits beside the CPU build of torch (operator torchvision::nms does not "
        f"exist); uninstall torchvision or install the build that matches torch"
    )
