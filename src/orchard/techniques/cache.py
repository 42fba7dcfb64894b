"""Techniques for what a decoder keeps per token: fewer heads, fewer bits, fewer tokens, shared layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from orchard.ir import Graph, Op, Role, Size, Tensor, minimum, parse_einsum, symbol
from orchard.ir.masks import causal_pairs
from orchard.techniques.base import GraphPass, Stage, option
from orchard.techniques.errors import TechniqueError
from orchard.techniques.rewrite import layer_of, rebuilt, renamed

CACHES = ("k_cache", "v_cache")


def caches(graph: Graph, name: str) -> tuple[Tensor, ...]:
    """States of keys and values. Raises TechniqueError for a model without."""
    found = tuple(t for t in graph.of_role(Role.STATE) if t.part in CACHES)
    if not found:
        raise TechniqueError(f"{name}: {graph.name} keeps no keys and values")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class KvQuant(GraphPass):
    """before:  %k_cache: f16[B, S, 8, 128] = state part=k_cache
    after:   %k_cache: q8_0[B, S, 8, 128] = state part=k_cache   # a scale per 32
    """

    name: ClassVar[str] = "kv-quant"
    stage: ClassVar[Stage] = Stage.CACHE
    bits: int = option(8, "bits per element", among=(2, 4, 8))
    v_bits: int = option(0, "bits of the values; 0: as the keys", among=(0, 2, 4, 8, 16))

    FORMATS: ClassVar[Mapping[int, str]] = {2: "int2-g32", 4: "q4_0", 8: "q8_0", 16: "f16"}

    def apply(self, graph: Graph) -> Graph:
        found = {t.name: self._bits(t) for t in caches(graph, self.name)}
        for op in graph.ops:
            if op.kind in ("update", "view") and op.inputs[0] in found:
                found |= dict.fromkeys(op.outputs, found[op.inputs[0]])
        return graph.with_formats({n: self.FORMATS[b] for n, b in found.items()})

    def _bits(self, cache: Tensor) -> int:
        return self.v_bits if cache.part == "v_cache" and self.v_bits else self.bits


def windowed(graph: Graph, layers: Iterable[int], limit: int) -> Graph:
    """Attention of some layers over at most `limit` tokens: the cache holds no more, and the mask leaves no more pairs."""
    chosen = set(layers)
    context, tokens = symbol("S"), symbol("T")
    short = minimum(context, limit)
    names = {n for op in graph.ops if layer_of(op) in chosen for n in (*op.inputs, *op.outputs)}

    def cut(size: Size) -> Size:
        return short if size == context else size

    tensors = {
        n: replace(t, shape=tuple(cut(s) for s in t.shape)) if n in names else t for n, t in graph.tensors.items()
    }
    pairs = causal_pairs(tokens, context, limit)
    ops = [
        replace(op, attrs={**op.attrs, "pairs": pairs, "window": limit}) if layer_of(op) in chosen and "pairs" in op.attrs else op
        for op in graph.ops
    ]  # fmt: skip
    return rebuilt(graph, ops, tensors)


def _full_layers(graph: Graph, name: str) -> list[int]:
    """Layers that attend to everything. Raises TechniqueError where there is none."""
    found = [
        layer for op in graph.ops
        if "pairs" in op.attrs and op.kind == "softmax" and "window" not in op.attrs and (layer := layer_of(op)) is not None
    ]  # fmt: skip
    if not found or "S" not in graph.symbols:
        raise TechniqueError(f"{name}: {graph.name} has no layer that attends to its whole context")
    return sorted(set(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow(GraphPass):
    """before:  %k_cache: f16[B, S, 8, 128] = state, %scores = einsum(...) pairs={S*T - ...}
    after:   %k_cache: f16[B, min(S, 1024), 8, 128] = state, %scores = einsum(...) window=1024
    """

    name: ClassVar[str] = "sliding-window"
    stage: ClassVar[Stage] = Stage.CACHE
    window: int = option(1024, "tokens a local layer attends to", least=1, most=2**20)
    every: int = option(6, "each such layer stays global; 0: none does", least=0, most=1000)

    def apply(self, graph: Graph) -> Graph:
        full = _full_layers(graph, self.name)
        local = [layer for i, layer in enumerate(full) if not self.every or (i + 1) % self.every]
        return windowed(graph, local, self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvEvict(GraphPass):
    """before:  %k_cache: f16[B, S, 8, 128] = state
    after:   %k_cache: f16[B, min(S, 1024), 8, 128] = state   # sinks and the latest tokens

    Priced as a ring buffer of `budget` tokens; a prompt longer than the budget is computed under the same window.
    """

    name: ClassVar[str] = "kv-evict"
    stage: ClassVar[Stage] = Stage.CACHE
    budget: int = option(1024, "tokens kept per layer, sinks included", least=1, most=2**20)

    def apply(self, graph: Graph) -> Graph:
        return windowed(graph, _full_layers(graph, self.name), self.budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShare(GraphPass):
    """before:  %k1 = update(%layers.1.k_cache, ...), %scores = einsum(%q1, %k1)
    after:   %scores = einsum(%q1, %k0)   # layer 1 reads the keys and values of layer 0
    """

    name: ClassVar[str] = "kv-share"
    every: int = option(2, "layers that share one cache", least=2, most=16)

    def apply(self, graph: Graph) -> Graph:
        _full_layers(graph, self.name)
        written: dict[int, dict[str, str]] = {}
        for op in graph.ops:
            cache = graph.tensors[op.inputs[0]] if op.inputs else None
            layer = layer_of(op)
            if op.kind == "update" and cache is not None and cache.part in CACHES and layer is not None:
                written.setdefault(layer, {})[cache.part] = op.outputs[0]
        names: dict[str, str] = {}
        own = sorted(written)
        for position, layer in enumerate(own):
            owner = written[own[position - position % self.every]]
            for part, name in written[layer].items():
                same = part in owner and graph.tensors[owner[part]].shape == graph.tensors[name].shape
                if same and owner[part] != name:
                    names[name] = owner[part]
        if not names:
            raise TechniqueError(f"{self.name}: {graph.name} has no two layers with equal caches")
        return rebuilt(graph, [renamed(op, names) for op in graph.ops], graph.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedHeads(GraphPass):
    """before:  %q: f16[B, T, 32, 1, 128], %k: f16[B, T, 32, 128]
    after:   %q: f16[B, T, 8, 4, 128], %k: f16[B, T, 8, 128]   # groups=8
    """

    name: ClassVar[str] = "gqa"
    groups: int = option(8, "key/value heads; 1 is multi-query", least=1, most=1024)

    def apply(self, graph: Graph) -> Graph:
        letters = _labels(graph)
        sizes = {(n, a): graph.tensors[n].shape[a] for (n, a), letter in letters.items() if letter == "g"}
        groups = {s for s in sizes.values() if isinstance(s, int)}
        if not groups:
            raise TechniqueError(f"{self.name}: {graph.name} has no grouped attention heads")
        heads = {g: max(_repeats(graph, letters, g)) * g for g in groups}
        bad = [h for h in heads.values() if h % self.groups]
        if bad or any(g < self.groups for g in groups):
            raise TechniqueError(
                f"{self.name}: groups={self.groups}, {graph.name} has {', '.join(map(str, sorted(groups)))} key/value heads for "
                f"{', '.join(map(str, sorted(heads.values())))} query heads; expected a divisor, and no more than it has"
            )
        changed: dict[str, list[Size]] = {}
        for (name, axis), letter in letters.items():
            shape = changed.setdefault(name, list(graph.tensors[name].shape))
            old = shape[axis]
            assert isinstance(old, int)
            shape[axis] = self.groups if letter == "g" else old * max(groups) // self.groups
        tensors = {n: replace(t, shape=tuple(changed[n])) if n in changed else t for n, t in graph.tensors.items()}
        return rebuilt(graph, graph.ops, tensors)


def _repeats(graph: Graph, letters: Mapping[tuple[str, int], str], groups: int) -> list[int]:
    del groups
    found = [graph.tensors[n].shape[a] for (n, a), letter in letters.items() if letter == "r"]
    return [s for s in found if isinstance(s, int)] or [1]


SAME_SHAPE = ("elementwise", "softmax", "norm", "rope", "update")


def _labels(graph: Graph) -> dict[tuple[str, int], str]:
    """Which axes count key/value heads (`g`) and query heads per group (`r`): from Einsums, through ops that keep axes."""
    found: dict[tuple[str, int], str] = {}
    for op in graph.ops:
        if op.kind == "einsum" and "pairs" in op.attrs:
            _from_einsum(op, found)
    before = -1
    while before != len(found):
        before = len(found)
        for op in graph.ops:
            if op.kind in SAME_SHAPE:
                _carry(graph, op, found)
            elif op.kind == "einsum" and any((n, a) in found for n in (*op.inputs, *op.outputs) for a in range(8)):
                _from_einsum(op, found)
            elif op.kind in ("view", "move") and any(
                (n, a) in found for n in (*op.inputs, *op.outputs) for a in range(8)
            ):
                raise TechniqueError(
                    f"gqa: {op.name} splits or moves the heads of {graph.name}; this pass handles separate q, k and v"
                )
    return found


def _from_einsum(op: Op, found: dict[tuple[str, int], str]) -> None:
    einsum = parse_einsum(str(op.attrs["spec"]))
    for name, access in zip((*op.inputs, *op.outputs), (*einsum.inputs, einsum.output)):
        for axis, entry in enumerate(access):
            if entry.is_plain and entry.dims[0] in ("g", "r"):
                found[name, axis] = entry.dims[0]


def _carry(graph: Graph, op: Op, found: dict[tuple[str, int], str]) -> None:
    out = op.outputs[0]
    ndim = len(graph.tensors[out].shape)
    names = [out, *op.inputs]
    for axis in range(-ndim, 0):
        known = {
            found[n, axis + len(graph.tensors[n].shape)]
            for n in names
            if (n, axis + len(graph.tensors[n].shape)) in found
        }
        for name in names if len(known) == 1 else ():
            place = axis + len(graph.tensors[name].shape)
            if place >= 0 and graph.tensors[name].shape[place] == graph.tensors[out].shape[axis]:
                found[name, place] = next(iter(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttention(GraphPass):
    """before:  %y = softmax attention over %k_cache: f16[B, S, 8, 128]
    after:   %y, %s = scan(%q, %k, %v, %state) fn="gated_delta", %state: f32[B, 32, 128, 128] = state

    `every` keeps one layer in that many as it is (a hybrid). 7 ops per state element and step, as gated DeltaNet
    (arXiv 2412.06464).
    """

    name: ClassVar[str] = "linear-attention"
    every: int = option(4, "each such layer keeps its attention; 0: none does", least=0, most=1000)

    def apply(self, graph: Graph) -> Graph:
        full = _full_layers(graph, self.name)
        chosen = {layer for i, layer in enumerate(full) if not self.every or (i + 1) % self.every}
        tensors, ops = dict(graph.tensors), []
        producers = {n: op for op in graph.ops for n in op.outputs}
        for op in graph.ops:
            is_values = (
                op.kind == "einsum" and "pairs" in op.attrs and graph.tensors[op.inputs[0]].shape[-1:] == (symbol("S"),)
            )
            if layer_of(op) not in chosen or not is_values:
                ops.append(op)
                continue
            ops.append(self._scan(graph, op, producers, tensors))
        return rebuilt(graph, ops, tensors)

    def _scan(self, graph: Graph, values: Op, producers: Mapping[str, Op], tensors: dict[str, Tensor]) -> Op:
        scores = producers[values.inputs[0]]
        while scores.kind != "einsum":
            scores = producers[scores.inputs[0]]
        q = graph.tensors[scores.inputs[0]]
        rows = [
            producers[n].inputs[1] if n in producers and producers[n].kind == "update" else n
            for n in (scores.inputs[1], values.inputs[1])
        ]
        _, _, groups, repeats, width = q.shape
        heads, out = groups * repeats, graph.tensors[values.outputs[0]].shape[-1]
        if not all(isinstance(s, int) for s in (heads, width, out)):
            raise TechniqueError(f"{self.name}: heads of {values.name} have no fixed size")
        state = Tensor(
            name=f"{values.name}.state",
            shape=(q.shape[0], heads, width, out),
            format="f32",
            role=Role.STATE,
            part="recurrent",
            layer=layer_of(values),
        )
        after = replace(state, name=f"{values.name}.state_after", role=Role.ACTIVATION)
        tensors[state.name], tensors[after.name] = state, after
        size = heads * width * out
        return Op(
            name=values.name, kind="scan", inputs=(q.name, *rows, state.name), outputs=(*values.outputs, after.name),
            scope=values.scope,
            attrs={"fn": "gated_delta", "state": size, "ops_per_step": size * 7},
        )  # fmt: skip


__all__ = ["GroupedHeads", "KvEvict", "KvQuant", "KvShare", "LinearAttention", "SlidingWindow"]
