"""Every technique with a cost rule, by name, plug-ins too; their texts (`palettize:bits=4,group=16`); order and conflicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from orchard.ir import Graph, verify
from orchard.techniques import cache, formats, runs, structure, vision
from orchard.techniques.base import GraphPass, RunTechnique, Stage, Technique, Value, range_text
from orchard.techniques.errors import TechniqueError
from orchard.techniques.plugins import technique_plugins
from orchard.units import OrchardError, did_you_mean

TECHNIQUES: Mapping[str, type[Technique]] = {
    cls.name: cls
    for cls in (
        formats.RoundToNearest, formats.Gptq, formats.Awq, formats.Hqq, formats.LearnedRounding, formats.Qat, formats.KQuant,
        formats.Palettize, formats.PaletteGrouped, formats.PaletteScale, formats.PaletteSensitive, formats.PaletteDkm,
        formats.PaletteMixed, formats.VectorCodebook, formats.Prune, formats.PruneNm, formats.SparsePalette,
        formats.MixedPrecision, formats.W8a8, formats.W4a8,
        structure.LayerDrop, structure.PruneStructured, structure.LowRank, structure.Lora, structure.LlmInt8,
        structure.DenseAndSparse, structure.Rotation,
        cache.KvQuant, cache.SlidingWindow, cache.KvEvict, cache.KvShare, cache.GroupedHeads, cache.LinearAttention,
        vision.Reparameterize, vision.Layout, vision.Depthwise, vision.TokenMerging,
        runs.Speculative, runs.ParallelDraft, runs.MultiTokenHeads, runs.Eagle, runs.ReDrafter, runs.PromptLookup,
        runs.EarlyExit, runs.Batching, runs.StepReduction, runs.FeatureCache, runs.FlashAttention, runs.Fusion, runs.PrefillChunk,
        runs.ActivationSparsity, runs.ExpertOffload, runs.FlashOffload, runs.PrefillDecodeSplit,
    )
}  # fmt: skip

NO_RULE: Mapping[str, str] = {
    "ternary-lut": "no profile of a runtime with table kernels is fitted; the bytes alone are `rtn:bits=2`",
    "w4a4": "no Apple engine multiplies 4-bit integers, so there is no rate to price; `w4a8` is what remains",
    "distill": "at run time there is only the student: predict that model",
    "mla": "a model with latent attention is another model: predict deepseek-v2-lite and the like",
    "moe": "a model with experts is another model: predict qwen3-30b-a3b and the like",
    "kv-paged": "it changes what fits when many streams are served, not the time of one; `orchard simulate` serves streams",
    "kv-in-place": "every profile writes its cache in place already; there is none of a runtime that copies it",
    "split-einsum": "the profile of Core ML on the Neural Engine was fitted to graphs in that layout already",
    "block-sparse": "no runtime with a profile picks cache blocks at run time; `sliding-window` prices fixed ones",
    "resolution": "the input size belongs to the model: give another size with --input to a model file",
    "engine-split": "`orchard place` finds the best engine for each op and proves it",
    "weight-share": "it changes the size of a package on disk, not the memory or time of one program",
    "matrix-units": "a property of the chip: predict on m5 or a19 and compare",
    "checkpointing": "there is no graph of a training step yet",
    "qlora": "there is no graph of a training step yet; `lora` prices the adapter at run time",
    "gradient-accumulation": "there is no graph of a training step yet",
}
"""Why a card has no pass."""

CONFLICTS: Sequence[tuple[str, str, str]] = (
    (
        "activation-sparsity",
        "batching",
        "rows of several sequences are rarely zero together: 1 - s^r of the weights are read",
    ),
    ("kv-evict", "sliding-window", "both limit the tokens a layer keeps; give one of them"),
    ("kv-evict", "linear-attention", "a layer without attention keeps no tokens to evict"),
    ("flash-offload", "expert-offload", "both say which weights lie in flash; give one of them"),
)


def technique_class(name: str) -> type[Technique]:
    """Raises TechniqueError with the nearest name, with the reason why a technique has no cost rule, or with what is wrong
    with the plug-in of that name."""
    found = TECHNIQUES.get(name)
    if found is not None:
        return found
    if name in NO_RULE:
        raise TechniqueError(f"technique {name!r} has no cost rule: {NO_RULE[name]}")
    plugins = technique_plugins()
    if name in plugins.found:
        return plugins.found[name].cls
    if name in plugins.problems:
        raise TechniqueError(plugins.problems[name])
    hint = did_you_mean(name, [*TECHNIQUES, *plugins.found, *NO_RULE]) or "; `orchard technique list` has them all"
    if plugins.problems:
        hint += f"; not loaded: {next(iter(plugins.problems.values()))}"
    raise TechniqueError(f"technique {name!r} is not known{hint}")


def parse_technique(text: str) -> Technique:
    """`palettize:bits=4,group=16`. Raises TechniqueError naming the option, what it got and what it takes."""
    name, _, rest = text.strip().partition(":")
    return read_options(technique_class(name.strip()), rest)


def read_options(cls: type[Technique], text: str) -> Technique:
    """`bits=4,group=16` as options of a technique. Raises TechniqueError as `parse_technique` does."""
    values: dict[str, Value] = {}
    known = {f.name: f for f in fields(cls)}
    for part in (p.strip() for p in text.split(",") if p.strip()):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or key not in known:
            takes = f"; it takes {', '.join(known)}" if known else "; it takes no options"
            raise TechniqueError(f"{cls.name}: option {part[:40]!r} is not known{did_you_mean(key, known)}{takes}")
        if key in values:
            raise TechniqueError(f"{cls.name}: option {key} stands twice")
        values[key] = _value(cls.name, key, value, known[key].default)
    return cls(**values)


def _value(name: str, key: str, text: str, default: object) -> Value:
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise TechniqueError(f"{name}: {key}={text[:40]}, expected true or false")
        return text.lower() == "true"
    kind, wanted = (int, "a whole number") if isinstance(default, int) else (float, "a number")
    try:
        value = kind(text)
    except ValueError:
        raise TechniqueError(f"{name}: {key}={text[:40]}, expected {wanted}") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise TechniqueError(f"{name}: {key}={text[:40]}, expected {wanted}")
    return value


def parse_all(texts: Iterable[str]) -> tuple[Technique, ...]:
    """Techniques in the order given, checked against each other. Raises TechniqueError for a conflict or a wrong order."""
    found = tuple(parse_technique(text) for text in texts)
    names = [t.name for t in found]
    for name in names:
        if names.count(name) > 1:
            raise TechniqueError(f"technique {name} stands twice; it applies once")
    _check_order(found)
    for first, second, reason in CONFLICTS:
        if first in names and second in names:
            raise TechniqueError(f"{first} and {second} do not go together: {reason}")
    if sum(isinstance(t, runs.Speculation) for t in found) > 1:
        both = [t.name for t in found if isinstance(t, runs.Speculation)]
        raise TechniqueError(f"{both[0]} and {both[1]} do not go together: one of them proposes the tokens of a round")
    return found


COMMUTING = (Stage.CACHE, Stage.RUN)
"""Stages that touch nothing the others touch."""


def _check_order(found: Sequence[Technique]) -> None:
    ordered = [t for t in found if t.stage not in COMMUTING]
    for before, after in zip(ordered, ordered[1:]):
        if before.stage <= after.stage:
            continue
        if after.stage is Stage.SPARSITY and before.name.startswith("palett"):
            raise TechniqueError(
                f"{after.name} on a palettized tensor: a palette stores an index for every weight, zero or not; put {after.name} "
                f"before {before.name}, or use sparse-palette"
            )
        raise TechniqueError(
            f"{after.name} comes after {before.name}, expected before it: techniques apply in the order "
            f"{', '.join(s.name.lower() for s in Stage if s not in COMMUTING)}; cache and run techniques may stand anywhere"
        )


def check_engine(found: Iterable[Technique], engine: str) -> None:
    """Raises TechniqueError where a technique has no cost rule on an engine."""
    for technique in found:
        if engine in technique.refused:
            raise TechniqueError(
                f"technique {technique.name} has no cost rule on {engine}: {technique.refused[engine]}"
            )


def apply_passes(graph: Graph, found: Iterable[Technique]) -> Graph:
    """The graph after the passes among them, in the order given."""
    for technique in found:
        if isinstance(technique, GraphPass):
            graph = apply_pass(technique, graph)
    return graph


def apply_pass(technique: GraphPass, graph: Graph) -> Graph:
    """The graph after one pass. What a plug-in raises becomes a TechniqueError that names it, and its graph is verified."""
    if type(technique).__module__.startswith("orchard."):
        return technique.apply(graph)
    try:
        return verify(technique.apply(graph))
    except OrchardError as error:
        text = str(error)
        raise TechniqueError(text if text.startswith(technique.name) else f"{technique.name}: {text}") from error
    except Exception as error:  # whatever a plug-in does
        raise TechniqueError(
            f"{technique.name}: the plug-in failed on {graph.name} ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error


def run_techniques(found: Iterable[Technique]) -> tuple[RunTechnique, ...]:
    return tuple(t for t in found if isinstance(t, RunTechnique))


__all__ = [
    "CONFLICTS",
    "NO_RULE",
    "TECHNIQUES",
    "apply_pass",
    "apply_passes",
    "check_engine",
    "parse_all",
    "parse_technique",
    "range_text",
    "read_options",
    "run_techniques",
    "technique_class",
]
