"""Whatever a user calls a model, as a program that can run here."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchard.measure.errors import MeasureError
from orchard.measure.library import library
from orchard.measure.models import MODELS
from orchard.measure.programs import Program, Step, of_module
from orchard.units import did_you_mean

UNSEEN = "unseen"
"""All models that no calibration sees."""
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def programs_of(model: str) -> tuple[Program, ...]:
    """Programs for a model's name, `unseen` for all of the package's own, or `package.module:function`.

    Raises MeasureError for what cannot run here, saying what it would need.
    """
    if model == UNSEEN:
        return tuple(MODELS.values())
    if model in MODELS:
        return (MODELS[model],)
    if FUNCTION.fullmatch(model) and not Path(model).exists():
        return (_from_function(model),)
    suffix = Path(model).suffix.lower()
    if suffix in (".mlpackage", ".mlmodel", ".aimodel"):
        needs = "Core ML" if suffix != ".aimodel" else "Core AI"
        raise MeasureError(
            f"{model}: runs through {needs}, which needs macOS; on this machine `orchard predict` can price it"
        )
    if suffix == ".pt2" and Path(model).is_file():
        return (_from_pt2(Path(model)),)
    known = [UNSEEN, *MODELS]
    raise MeasureError(
        f"model {model!r} cannot run here{did_you_mean(model, known)}; expected a .pt2 file, package.module:function, or one of "
        f"{', '.join(known[:4])}, ... (`orchard measure --list`)"
    )


def _from_function(text: str) -> Program:
    """`package.module:function` returns a module and a mapping of input names to shapes or tensors, as for `orchard predict`."""
    module_name, _, attribute = text.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise MeasureError(f"{text}: cannot be found ({error}); expected package.module:function") from None

    def build() -> Step:
        made = function()
        module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not hasattr(module, "forward") or not isinstance(inputs, Mapping):
            raise MeasureError(
                f"{text}: returned {type(made).__name__}, expected a torch module and a mapping of input shapes"
            )
        return of_module(module.eval(), **{name: example(name, given) for name, given in inputs.items()})

    return Program(name=text, group="model", build=build)


def _from_pt2(path: Path) -> Program:
    def build() -> Step:
        torch = library("torch")

        program = torch.export.load(str(path))
        args, kwargs = program.example_inputs or ((), {})
        return of_module(program.module(), *args, **kwargs)

    return Program(name=path.name, group="model", build=build)


def example(name: str, given: Any) -> Any:
    """A tensor for an input: itself, or ones of the shape given (whole numbers where the name says ids or mask)."""
    torch = library("torch")

    if not isinstance(given, list | tuple):
        return given
    shape = [int(n) for n in given]
    whole = re.search(r"ids$|tokens?$|index|indices|labels|positions?$|mask$", name) is not None
    return torch.ones(shape, dtype=torch.long) if whole else torch.randn(shape)
