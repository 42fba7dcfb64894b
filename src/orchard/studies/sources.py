"""Open whatever a user calls a model: a built-in name, a configuration, a model file, or `package.module:function`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchard.ir import Graph
from orchard.studies.errors import StudyError
from orchard.studies.request import Request
from orchard.workloads import Model, apply_weights, load_model, weight_bytes
from orchard.workloads.diffusion.pipelines import PIPELINES
from orchard.workloads.networks import NETWORKS
from orchard.workloads.registry import load_network, load_pipeline

if TYPE_CHECKING:
    from orchard.workloads.importers import Imported

DECODER_SYMBOLS = frozenset({"B", "T", "S"})
LONGEST_NAME = 255
"""Longer texts are no file names; file systems refuse them."""
BATCH_NAMES = re.compile(r"(?:b|n|batch.*)\Z", re.I)
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
TOKEN_NAMES = re.compile(r"(?:t|s|seq.*|tokens?|len.*|.*seq.*len.*|sequence.*)\Z", re.I)


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A model file as a model: its graph is what the file holds, weights in the formats it stores.

    family: `decoder` where the importer rebuilt a language model with symbols B, T and S (GGUF), else `imported`.
    stored: parameters as the source counts them, where the graph holds some in another form (tables that are spread).
    """

    name: str
    source: str
    base: Graph
    warnings: tuple[str, ...] = ()
    default_weights: str | None = None
    others: tuple[str, ...] = ()
    stored: int | None = None
    _graphs: dict[str, Graph] = field(default_factory=dict, repr=False)

    @property
    def family(self) -> str:
        return "decoder" if set(self.base.symbols) >= DECODER_SYMBOLS else "imported"

    @property
    def params(self) -> int:
        """All weight elements of the file."""
        return self.base.parameters if self.stored is None else self.stored

    def weight_bytes(self, scheme: str | None = None) -> int:
        """Bytes of all weights, as stored or in the weight scheme `scheme`."""
        return weight_bytes(self.graph(weights=scheme))

    def graph(self, *, weights: str | None = None, **unused: object) -> Graph:
        """The graph of the file; with `weights` its weights take the formats of that scheme."""
        del unused  # a file fixes its own cache and activation formats
        if weights is None:
            return self.base
        if weights not in self._graphs:
            self._graphs[weights] = apply_weights(self.base, weights)
        return self._graphs[weights]


KEPT: dict[str, Model | ImportedModel] = {}
"""Models that this process was handed under a name, such as those a server imported in a process of their own."""


def keep_model(name: str, model: Model | ImportedModel, most: int = 16) -> None:
    """Let requests name this model; beyond `most` models the one kept longest is forgotten."""
    KEPT.pop(name, None)
    while len(KEPT) >= most:
        del KEPT[next(iter(KEPT))]
    KEPT[name] = model


def open_model(request: Request) -> Model | ImportedModel:
    """The model of a request. Raises an OrchardError for what cannot be opened."""
    if request.model in KEPT:
        if request.inputs:
            raise StudyError(f"--input {request.inputs[0][:60]!r}: the sizes of an uploaded model are fixed when it is read")
        return KEPT[request.model]
    if not is_import(request.model):
        if request.assume_elementwise:
            raise StudyError(
                f"--assume-elementwise {request.assume_elementwise[0][:60]!r}: {request.model} is no model file; "
                f"every op of it has a rule"
            )
        if request.inputs and request.model.lower() in NETWORKS:
            return load_network(request.model, *_image_size(request.inputs))
        if request.inputs and request.model.lower() in PIPELINES:
            return load_pipeline(request.model, *_image_size(request.inputs))
        if request.inputs:
            raise StudyError(
                f"--input {request.inputs[0]!r}: {request.model} is built in; its sizes are --batch and --prompt"
            )
        return load_model(request.model)
    path = Path(request.model)
    stamp = path.stat().st_mtime_ns if path.exists() else 0
    return _imported(request.model, request.inputs, request.assume_elementwise, stamp)


def live_model(model: object, inputs: object, assume_elementwise: Sequence[str] = ()) -> ImportedModel:
    """A live module, exported program or MLX function as a model. `inputs`: {name: shape or tensor}, or input texts."""
    from orchard.workloads.importers import import_model

    shapes = inputs if isinstance(inputs, Mapping) else parse_inputs(tuple(str(i) for i in inputs))  # type: ignore[attr-defined]
    found = import_model(model, shapes or None, assume_elementwise)
    return _model_of(found, found.name)


def shape_text(given: object) -> str:
    """`1x3x224x224` of a shape or of something that has one; other values as they print."""
    shape = getattr(given, "shape", given)
    return "x".join(str(s) for s in shape) if isinstance(shape, Iterable) and not isinstance(shape, str) else str(shape)


def served_as(model: Model | ImportedModel) -> str:
    """Which profiles answer for a model: `network` for image networks (two or more convolutions over two axes)."""
    if isinstance(model, Model):
        return model.serves
    windows = sum(op.kind == "einsum" and str(op.attrs.get("spec", "")).count("(") >= 2 for op in model.base.ops)
    return "network" if windows >= 2 else "language"


def _image_size(inputs: tuple[str, ...]) -> tuple[int, int]:
    """Height and width of `image=1x3x224x224`. Raises StudyError for another form."""
    found = re.fullmatch(r"image=1x3x(\d{1,5})x(\d{1,5})", inputs[0])
    if found is None or len(inputs) > 1 or not all(32 <= int(n) <= 8192 for n in found.groups()):
        raise StudyError(
            f"--input {inputs[0][:80]!r}: expected image=1x3xHxW with 32 to 8192 pixels a side; --batch sets the batch"
        )
    return int(found.group(1)), int(found.group(2))


def is_import(model: str) -> bool:
    """Whether a text names a model file or a function rather than a built-in model or a configuration."""
    from orchard.workloads.importers import source_format_of

    if any(len(part) > LONGEST_NAME for part in model.split("/")) or len(model) > 4000 or "\0" in model:
        return False
    path = Path(model)
    if path.suffix == ".json" or (path.is_dir() and (path / "config.json").is_file()):
        return False
    if source_format_of(path) is not None:
        return True
    return FUNCTION.fullmatch(model) is not None and not path.exists()


@lru_cache(maxsize=32)
def _imported(model: str, inputs: tuple[str, ...], assumed: tuple[str, ...], stamp: int) -> ImportedModel:
    """`stamp`: modification time, so that a changed file is read again."""
    from orchard.workloads.importers import import_model

    del stamp
    found = import_model(model, parse_inputs(inputs) or None, assumed)
    return _model_of(found, found.name or Path(model).name)


def _model_of(found: Imported, name: str) -> ImportedModel:
    stored = found.weights.parameters or None  # none counted: a rebuilt graph is all there is
    return ImportedModel(name=name, source=found.source_format, base=found.graph, warnings=found.warnings, stored=stored)


def parse_inputs(texts: tuple[str, ...]) -> dict[str, tuple[int | str, ...]]:
    """`image=1x3x224x224` or `ids=1xseq` as {name: shape}; a word is a symbolic size. Raises StudyError."""
    shapes: dict[str, tuple[int | str, ...]] = {}
    for text in texts:
        name, found, sizes = text.partition("=")
        parts = [p.strip() for p in sizes.split("x")] if sizes else []
        if (
            not found
            or not name.strip()
            or not parts
            or not all(re.fullmatch(r"\d{1,9}|[A-Za-z_]\w*", p) for p in parts)
        ):
            raise StudyError(f"--input {text[:60]!r}: expected name=shape, for example image=1x3x224x224")
        shapes[name.strip()] = tuple(int(p) if p.isdigit() else p for p in parts)
        if 0 in shapes[name.strip()]:
            raise StudyError(f"--input {text[:60]!r}: a size is 0, expected sizes of at least 1")
    return shapes


def bind_symbols(graph: Graph, request: Request) -> Mapping[str, int]:
    """Values for the symbols of an imported graph: batch-like names take --batch, sequence-like ones --prompt.

    Raises StudyError naming the symbols it has no value for, and how to fix them.
    """
    values: dict[str, int] = {}
    unknown: list[str] = []
    for name in graph.symbols:
        if BATCH_NAMES.match(name):
            values[name] = request.batch
        elif TOKEN_NAMES.match(name):
            values[name] = max(1, request.prompt)
        else:
            unknown.append(name)
    if unknown:
        many = len(unknown) > 1
        which = f"size{'s' * many} {', '.join(unknown[:4])} {'are' if many else 'is'} not fixed; fix {'them' if many else 'it'}"
        raise StudyError(
            f"{graph.name}: {which} with --input name=shape "
            f"(inputs: {', '.join(t.name for t in graph.tensors.values() if t.role == 'input')})"
        )
    return values
