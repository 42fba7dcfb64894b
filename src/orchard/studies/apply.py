"""Make a recommendation real: a Core ML package through coremltools, a PyTorch module through torchao or coreai-opt.

Each result is read back and predicted.

The user's file is opened for reading only; the result is a new package in another place, and an existing one is never replaced.
What no library here can make on the user's machine (a conversion by llama.cpp or MLX, calibration that has to run the model,
training) is answered by its recipe: the commands of the advice.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchard.ir import Graph
from orchard.ir.weights import weight_bytes
from orchard.studies import apply_coreai, apply_torch
from orchard.studies.advice.figures import figures_of
from orchard.studies.errors import StudyError
from orchard.studies.predict import answer
from orchard.studies.request import Request
from orchard.studies.sources import ImportedModel, open_model
from orchard.techniques import GraphPass, Technique, parse_all
from orchard.techniques.formats import PaletteGrouped, Palettize, Prune, RoundToNearest, SparsePalette
from orchard.units import OrchardError

SCHEMA = "orchard.applied/1"
CLOSE = 0.05
"""Bytes of an artefact within 5 % of what the pass says are confirmed: vectors and small tensors stay as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A file that was made and read back. Bytes are of weights; `expected_bytes` what the technique's pass says for the same
    graph; `formats` elements by number format; times in seconds are predictions for the original and for the artefact."""

    file: str
    before_bytes: int
    after_bytes: int
    expected_bytes: int
    formats: Mapping[str, int]
    before_s: float
    after_s: float

    @property
    def confirmed(self) -> bool:
        """Whether the bytes are those that the pass says."""
        return abs(self.after_bytes / self.expected_bytes - 1.0) <= CLOSE

    @property
    def factor(self) -> float:
        return self.before_s / self.after_s


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of a recommendation. `artefact` is None where only a recipe can be given; `why` says so."""

    title: str
    advised_factor: float
    recipe: tuple[str, ...]
    artefact: Artefact | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        a = self.artefact
        return {
            "schema": SCHEMA,
            "title": self.title,
            "advised_factor": self.advised_factor,
            "recipe": list(self.recipe),
            "why": self.why,
            "artefact": None if a is None else {
                "file": a.file, "before_bytes": a.before_bytes, "after_bytes": a.after_bytes,
                "expected_bytes": a.expected_bytes, "confirmed": a.confirmed, "formats": dict(a.formats),
                "before_s": a.before_s, "after_s": a.after_s, "factor": a.factor,
            },
        }  # fmt: skip


def apply_advice(record: Mapping[str, Any], model: str, folder: Path, *, pick: str = "1", to: str = "pt2") -> Applied:
    """Apply recommendation `pick` (a place from 1, or `combination`) of an `orchard.advice/1` mapping to a model file.

    to: what a PyTorch module becomes, `pt2` (torchao) or `aimodel` (coreai-opt); a Core ML package stays one.

    Raises StudyError for a choice or a file that cannot be, and for what the library refuses.
    """
    if to not in MODULES:
        raise StudyError(f"--to {to[:20]!r}: expected {' or '.join(MODULES)}")
    chosen = _picked(record, pick)
    techniques = parse_all(chosen["apply"])
    why = _recipe_only(chosen, techniques, model, to)
    artefact = None
    if not why:
        artefact = _made(record, model, folder, techniques, to)
    return Applied(
        title=chosen["title"], advised_factor=float(chosen["gain"]["factor"]), recipe=tuple(chosen["how"]), artefact=artefact,
        why=why,
    )  # fmt: skip


def _picked(record: Mapping[str, Any], pick: str) -> Mapping[str, Any]:
    found: Sequence[Mapping[str, Any]] = record["recommendations"]
    if pick == "combination":
        if record["combination"] is None:
            raise StudyError("--pick combination: this advice holds none; give the number of a recommendation")
        combination: Mapping[str, Any] = record["combination"]
        return combination
    if not pick.isdigit() or not 1 <= int(pick) <= len(found):
        most = f"1 to {len(found)}" if found else "nothing: this advice recommends nothing"
        raise StudyError(f"--pick {pick[:20]!r}: expected {most}, or combination")
    return found[int(pick) - 1]


Maker = Callable[[Any, Any, Technique], Any]


def _linear(model: Any, cto: Any, technique: Technique) -> Any:
    assert isinstance(technique, RoundToNearest)
    grain = {"granularity": "per_block", "block_size": technique.group} if technique.group else {"granularity": "per_channel"}
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype=f"int{technique.bits}", **grain)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))


def _palette_config(cto: Any, bits: int, group: int, vector: int = 1) -> Any:
    grain = {"granularity": "per_grouped_channel", "group_size": group} if group else {}
    wide = {"cluster_dim": vector} if vector > 1 else {}
    return cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(mode="kmeans", nbits=bits, **grain, **wide))


def _palettes(model: Any, cto: Any, technique: Technique) -> Any:
    assert isinstance(technique, Palettize | PaletteGrouped)
    vector = technique.vector if isinstance(technique, Palettize) else 1
    return cto.palettize_weights(model, _palette_config(cto, technique.bits, technique.group, vector))


def _pruned(model: Any, cto: Any, technique: Technique) -> Any:
    assert isinstance(technique, Prune | SparsePalette)
    config = cto.OpMagnitudePrunerConfig(target_sparsity=technique.sparsity)
    return cto.prune_weights(model, cto.OptimizationConfig(global_config=config))


def _pruned_palettes(model: Any, cto: Any, technique: Technique) -> Any:
    assert isinstance(technique, SparsePalette)
    config = _palette_config(cto, technique.bits, 0)
    return cto.palettize_weights(_pruned(model, cto, technique), config, joint_compression=True)


MAKERS: Mapping[type[Technique], Maker] = {
    RoundToNearest: _linear, Palettize: _palettes, PaletteGrouped: _palettes, Prune: _pruned, SparsePalette: _pruned_palettes,
}  # fmt: skip
"""Techniques that coremltools applies to a package without running the model."""


MODULES: Mapping[str, tuple[Callable[[str, Sequence[Technique]], str], Callable[[Request, Path, Sequence[Technique]], int]]] = {
    "pt2": (apply_torch.refusal, apply_torch.make_module), "aimodel": (apply_coreai.refusal, apply_coreai.make_program),
}  # fmt: skip
"""What a PyTorch module can become: why not, and its maker, which tells the bytes of the weights it stored."""


def _recipe_only(chosen: Mapping[str, Any], techniques: Sequence[Technique], model: str, to: str) -> str:
    """Why no file can be made; "" where one can."""
    if chosen["fields"] or not techniques:
        return "it changes how the model is run or converted, not a file that can be rewritten here"
    if any(getattr(t, "skip", "") for t in techniques):
        return "parts to skip are Orchard's names, which the library does not know"
    if apply_torch.is_module(model):
        return MODULES[to][0](model, techniques)
    if Path(model).suffix != ".mlpackage":
        what = f"{Path(model).name[:60]} is no Core ML package or PyTorch module"
        return f"{what}; the recipe makes the change where the model is converted"
    unknown = [t for t in techniques if type(t) not in MAKERS]
    if unknown:
        return f"{unknown[0].name} needs data, training or a change of the model's code"
    return ""


def _made(record: Mapping[str, Any], source: str, folder: Path, techniques: Sequence[Technique], to: str) -> Artefact:
    request = _request(record, source)
    before = answer(request)
    graph = _graph(request)
    expected = graph
    for technique in techniques:
        expected = technique.apply(expected) if isinstance(technique, GraphPass) else expected
    if apply_torch.is_module(source):
        target = _target(apply_torch.stem_of(source), f".{to}", folder, techniques)
        stored = MODULES[to][1](request, target, techniques)
    else:
        target = _target(Path(source).stem, ".mlpackage", folder, techniques)
        _convert(Path(source), target, techniques)
        stored = None
    made = replace(request, model=str(target))
    after, result = answer(made), _graph(made)
    return Artefact(
        file=str(target), before_bytes=weight_bytes(graph), after_bytes=weight_bytes(result) if stored is None else stored,
        expected_bytes=weight_bytes(expected), formats=_formats(result), before_s=figures_of(before)["latency"],
        after_s=figures_of(after)["latency"],
    )  # fmt: skip


def _request(record: Mapping[str, Any], source: str) -> Request:
    """The advice's request, for the file. Its techniques are those the file already holds, so none stays."""
    asked: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["request"].items()}
    return replace(Request(**asked), model=source, apply=(), weights=None)


def _graph(request: Request) -> Graph:
    opened = open_model(request)
    if not isinstance(opened, ImportedModel):
        raise StudyError(f"--model {request.model[:80]!r}: expected a Core ML package or package.module:function")
    return opened.base


def _formats(graph: Graph) -> dict[str, int]:
    found: dict[str, int] = {}
    for w in graph.weights:
        size = w.elements if isinstance(w.elements, int) else 0
        found[w.format] = found.get(w.format, 0) + size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _target(stem: str, suffix: str, folder: Path, techniques: Sequence[Technique]) -> Path:
    """A new name beside nothing that exists."""
    if not folder.is_dir():
        raise StudyError(f"--out {str(folder)[:200]!r}: the folder does not exist")
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(map(str, techniques))).strip("-")
    target = folder / f"{stem}-{slug}{suffix}"
    if target.exists():
        raise StudyError(f"{target}: exists already and is left alone; remove it or give another --out")
    return target


def _convert(source: Path, target: Path, techniques: Sequence[Technique]) -> None:
    """Works on a copy: coremltools writes into the package it opens. Raises StudyError with what coremltools says."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    try:
        import coremltools as ct
        import coremltools.optimize.coreml as cto
    except ImportError:
        remedy = "pip install 'orchard[coreml]'"
        raise StudyError(f"Core ML packages are made with coremltools, which is not installed: {remedy}") from None
    try:
        with tempfile.TemporaryDirectory(prefix="orchard-apply-") as folder:
            copy = shutil.copytree(source, Path(folder) / source.name)
            model = ct.models.MLModel(str(copy), skip_model_load=True)
            for technique in techniques:
                model = MAKERS[type(technique)](model, cto, technique)
            model.save(str(target))
    except OrchardError:
        raise
    except Exception as error:  # coremltools raises whatever its passes raise
        said = " ".join(str(error).split())[:300]
        raise StudyError(f"coremltools cannot apply {techniques[0].name} to {source.name}: {said}") from None
