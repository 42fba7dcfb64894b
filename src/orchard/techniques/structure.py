"""Techniques that change the shape of a model: fewer layers, narrower parts, factors, adapters, paths beside a product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from orchard.ir import Graph, Op, Role, Size, Tensor, parse_einsum
from orchard.techniques.base import GraphPass, option
from orchard.techniques.errors import TechniqueError
from orchard.techniques.formats import NO_GATHER
from orchard.techniques.rewrite import layer_count, layer_of, rebuilt, renamed


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDrop(GraphPass):
    """before:  %x1 = layer 0(%x0), %x2 = layer 1(%x1), %x3 = layer 2(%x2)
    after:   %x1 = layer 0(%x0), %x3 = layer 2(%x1)

    The `count` layers before the last one go: the first is never expendable, the last rarely (arXiv 2403.03853).
    """

    name: ClassVar[str] = "layer-drop"
    count: int = option(4, "layers to remove", least=1, most=1000)

    def apply(self, graph: Graph) -> Graph:
        layers = layer_count(graph)
        if self.count > layers - 2:
            raise TechniqueError(
                f"{self.name}: count={self.count}, {graph.name} has {layers} layers; keep the first and the last"
            )
        return drop_layers(self.name, graph, range(layers - 1 - self.count, layers - 1))


def drop_layers(name: str, graph: Graph, gone: range) -> Graph:
    """The graph without these layers: what each was given goes on to whoever read its result."""
    names: dict[str, str] = {}
    for layer in gone:
        names |= _bridge(name, graph, layer, names)
    return rebuilt(graph, [renamed(op, names) for op in graph.ops if layer_of(op) not in gone], graph.tensors)


def _bridge(name: str, graph: Graph, layer: int, names: Mapping[str, str]) -> dict[str, str]:
    """{what the layer hands on: what it was given}."""
    inside = [op for op in graph.ops if layer_of(op) == layer]
    made = {n for op in inside for n in op.outputs}
    handed = sorted({n for op in graph.ops if layer_of(op) != layer for n in op.inputs if n in made})
    if len(handed) != 1:
        raise TechniqueError(
            f"{name}: layer {layer} hands on {len(handed)} tensors ({', '.join(handed)}), expected one"
        )
    shape = graph.tensors[handed[0]].shape
    given = [
        n for op in inside for n in op.inputs
        if n not in made and graph.tensors[n].role is Role.ACTIVATION and graph.tensors[n].shape == shape
    ]  # fmt: skip
    if not given:
        raise TechniqueError(f"{name}: layer {layer} gets no tensor of the shape it hands on")
    return {handed[0]: names.get(given[0], given[0])}


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneStructured(GraphPass):
    """before:  %h: f16[B, T, 8192] = einsum(%x, %w_up), %w_up: f16[2048, 8192]
    after:   %h: f16[B, T, 6144] = einsum(%x, %w_up), %w_up: f16[2048, 6144]   # keep=0.75
    """

    name: ClassVar[str] = "prune-structured"
    keep: float = option(0.75, "share of feed-forward channels that stay", least=0.05, most=0.99)
    multiple: int = option(64, "channels are a multiple of this", among=(1, 16, 32, 64, 128))

    def apply(self, graph: Graph) -> Graph:
        widths = {_contracted(graph, op) for op in graph.ops if _reads(graph, op, ("ffn_down",))}
        widths.discard(None)
        if not widths:
            raise TechniqueError(f"{self.name}: {graph.name} has no feed-forward part with a weight ffn_down")
        new = {
            w: max(self.multiple, round(w * self.keep / self.multiple) * self.multiple) for w in widths if w is not None
        }
        touched = {n for op in graph.ops if op.scope.endswith(".ffn") for n in (*op.inputs, *op.outputs)}
        others = {s for op in graph.ops if op.kind == "norm" for s in graph.tensors[op.outputs[0]].shape[-1:]}
        if others & set(new):
            raise TechniqueError(
                f"{self.name}: {graph.name} has feed-forward parts as wide as its norms; channels cannot be told apart"
            )
        tensors = {
            n: replace(t, shape=tuple(new.get(s, s) if isinstance(s, int) else s for s in t.shape)) if n in touched else t
            for n, t in graph.tensors.items()
        }  # fmt: skip
        return rebuilt(graph, graph.ops, tensors)


def _reads(graph: Graph, op: Op, parts: tuple[str, ...]) -> bool:
    return op.kind == "einsum" and any(graph.tensors[n].part in parts for n in op.inputs)


def _contracted(graph: Graph, op: Op) -> int | None:
    """Length of the reduction of a product with one reduced dim of fixed size."""
    einsum = parse_einsum(str(op.attrs["spec"]))
    shapes = [graph.tensors[n].shape for n in op.inputs]
    if "routed" in op.attrs or len(einsum.reduced_dims) != 1:
        return None
    size = einsum.sizes(shapes, graph.tensors[op.outputs[0]].shape)[einsum.reduced_dims[0]]
    return size if isinstance(size, int) else None


@dataclass(frozen=True, slots=True)
class Product:
    """An op that multiplies an activation with a weight over plain dims. rows: the activation's kept dims."""

    op: Op
    x: Tensor
    w: Tensor
    y: Tensor
    x_dims: tuple[str, ...]
    w_dims: tuple[str, ...]
    y_dims: tuple[str, ...]

    @property
    def inner(self) -> tuple[str, ...]:
        """Contracted dims, in the weight's order."""
        return tuple(d for d in self.w_dims if d not in self.y_dims)

    @property
    def outer(self) -> tuple[str, ...]:
        return tuple(d for d in self.w_dims if d in self.y_dims)

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(d for d in self.x_dims if d not in self.inner)

    def sizes(self, dims: tuple[str, ...]) -> tuple[Size, ...]:
        known = dict(zip(self.w_dims, self.w.shape)) | dict(zip(self.x_dims, self.x.shape))
        return tuple(known[d] for d in dims)

    def count(self, dims: tuple[str, ...]) -> int:
        return prod(s for s in self.sizes(dims) if isinstance(s, int))


def products(graph: Graph, skip: tuple[str, ...] = ("head", "embedding", "router")) -> Iterator[Product]:
    """Products with weights that techniques can factor or add to: plain dims, no routed experts, no dims on all sides."""
    for op in graph.ops:
        if op.kind != "einsum" or len(op.inputs) != 2 or "routed" in op.attrs:
            continue
        x, w = (graph.tensors[n] for n in op.inputs)
        einsum = parse_einsum(
            str(op.attrs["spec"]), str(op.attrs.get("combine", "mul")), str(op.attrs.get("reduce", "sum"))
        )
        if w.role is not Role.WEIGHT or w.part in skip or einsum.combine != "mul":
            continue
        if not all(axis.is_plain for access in einsum.inputs for axis in access):
            continue
        x_dims, w_dims = (tuple(axis.dims[0] for axis in access) for access in einsum.inputs)
        found = Product(op, x, w, graph.tensors[op.outputs[0]], x_dims, w_dims, tuple(a.dims[0] for a in einsum.output))
        shared = set(x_dims) & set(w_dims) & set(found.y_dims)
        if found.inner and found.outer and not shared:
            yield found


def _spec(left: tuple[str, ...], right: tuple[str, ...], out: tuple[str, ...]) -> str:
    return f"{' '.join(left)}, {' '.join(right)} -> {' '.join(out)}"


def _fresh_dim(p: Product) -> str:
    return next(c for c in "zyxwuj" if c not in {*p.x_dims, *p.w_dims, *p.y_dims})


def _factors(p: Product, rank: int, output: str) -> tuple[list[Op], list[Tensor]]:
    """Two products through `rank` channels, ending in the tensor `output`."""
    z = _fresh_dim(p)
    base = p.op.name
    u = Tensor(
        name=f"{base}.u",
        shape=(*p.sizes(p.inner), rank),
        format=p.w.format,
        role=Role.WEIGHT,
        part=p.w.part,
        layer=p.w.layer,
    )
    v = Tensor(
        name=f"{base}.v",
        shape=(rank, *p.sizes(p.outer)),
        format=p.w.format,
        role=Role.WEIGHT,
        part=p.w.part,
        layer=p.w.layer,
    )
    h = Tensor(name=f"{base}.rank", shape=(*p.sizes(p.rows), rank), format=p.y.format)
    first = Op(
        name=h.name, kind="einsum", inputs=(p.x.name, u.name), outputs=(h.name,), scope=p.op.scope,
        attrs={"spec": _spec(p.x_dims, (*p.inner, z), (*p.rows, z))},
    )  # fmt: skip
    second = Op(
        name=output, kind="einsum", inputs=(h.name, v.name), outputs=(output,), scope=p.op.scope,
        attrs={"spec": _spec((*p.rows, z), (z, *p.outer), p.y_dims)},
    )  # fmt: skip
    return [first, second], [u, v, h]


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank(GraphPass):
    """before:  %y = einsum(%x, %w) spec="b t m, m n -> b t n"
    after:   %h = einsum(%x, %u) spec="b t m, m z -> b t z"
             %y = einsum(%h, %v) spec="b t z, z n -> b t n"   # z (m + n) = keep m n
    """

    name: ClassVar[str] = "low-rank"
    keep: float = option(0.8, "share of the weights of a matrix that its factors have", least=0.02, most=1.0)

    def apply(self, graph: Graph) -> Graph:
        found = {p.op.name: p for p in products(graph)}
        if not found:
            raise TechniqueError(f"{self.name}: {graph.name} has no product with a plain weight matrix")
        ops: list[Op] = []
        tensors = dict(graph.tensors)
        for op in graph.ops:
            p = found.get(op.name)
            if p is None:
                ops.append(op)
                continue
            i, o = p.count(p.inner), p.count(p.outer)
            made, new = _factors(p, max(1, round(self.keep * i * o / (i + o))), op.outputs[0])
            ops += made
            tensors |= {t.name: t for t in new}
        return rebuilt(graph, ops, tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class SidePath(GraphPass, ABC):
    """Products with something added to their result."""

    def apply(self, graph: Graph) -> Graph:
        found = {p.op.name: p for p in products(graph)}
        if not found:
            raise TechniqueError(f"{self.name}: {graph.name} has no product with a plain weight matrix")
        ops: list[Op] = []
        tensors = dict(graph.tensors)
        for op in graph.ops:
            p = found.get(op.name)
            if p is None:
                ops.append(op)
                continue
            main, side = f"{op.name}.main", f"{op.name}.side"
            tensors[main], tensors[side] = replace(p.y, name=main), replace(p.y, name=side)
            made, new = self.path(p, side)
            tensors |= {t.name: t for t in new}
            joined = Op(
                name=op.name,
                kind="elementwise",
                inputs=(main, side),
                outputs=op.outputs,
                attrs={"fn": "add"},
                scope=op.scope,
            )
            ops += [replace(op, name=main, outputs=(main,)), *made, joined]
        return rebuilt(graph, ops, tensors)

    @abstractmethod
    def path(self, p: Product, output: str) -> tuple[list[Op], list[Tensor]]:
        """Ops that end in `output`, and the tensors they need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora(SidePath):
    """before:  %y = einsum(%x, %w) spec="b t m, m n -> b t n"
    after:   %a = einsum(%x, %w), %h = einsum(%x, %u), %s = einsum(%h, %v)
             %y = elementwise(%a, %s) fn="add"
    """

    name: ClassVar[str] = "lora"
    rank: int = option(16, "channels of the adapter", least=1, most=1024)

    def path(self, p: Product, output: str) -> tuple[list[Op], list[Tensor]]:
        return _factors(p, self.rank, output)


def _columns(p: Product, rows: int, output: str, format: str) -> tuple[list[Op], list[Tensor]]:
    """`rows` gathered inputs times a weight of their own."""
    z = _fresh_dim(p)
    base = p.op.name
    w = Tensor(
        name=f"{base}.few",
        shape=(rows, *p.sizes(p.outer)),
        format=format,
        role=Role.WEIGHT,
        part=p.w.part,
        layer=p.w.layer,
    )
    x = Tensor(name=f"{base}.gathered", shape=(*p.sizes(p.rows), rows), format=p.x.format)
    take = Op(name=x.name, kind="move", inputs=(p.x.name,), outputs=(x.name,), attrs={"fn": "gather"}, scope=p.op.scope)
    spec = _spec((*p.rows, z), (z, *p.outer), p.y_dims)
    multiply = Op(
        name=output, kind="einsum", inputs=(x.name, w.name), outputs=(output,), attrs={"spec": spec}, scope=p.op.scope
    )
    return [take, multiply], [w, x]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmInt8(SidePath):
    """before:  %y = einsum(%x, %w), %w: f16[4096, 4096]
    after:   %a = einsum(%x, %w), %w: int8-channel[4096, 4096]
             %g: f16[B, T, 41] = move(%x) fn="gather"
             %s = einsum(%g, %few), %few: f16[41, 4096]
             %y = elementwise(%a, %s) fn="add"
    """

    name: ClassVar[str] = "llm-int8"
    refused: ClassVar[Mapping[str, str]] = {"ane": NO_GATHER}
    outliers: float = option(0.01, "share of the inputs that stay in 16 bits", least=0.0001, most=0.5)

    def apply(self, graph: Graph) -> Graph:
        weights = {p.w.name: "int8-channel" for p in products(graph)}
        return super(LlmInt8, self).apply(graph.with_formats(weights))

    def path(self, p: Product, output: str) -> tuple[list[Op], list[Tensor]]:
        return _columns(p, max(1, round(self.outliers * p.count(p.inner))), output, "f16")


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseAndSparse(SidePath):
    """before:  %y = einsum(%x, %w)
    after:   %a = einsum(%x, %w), %s = einsum(%g, %few)   # a second launch with the bytes of values and indices
             %y = elementwise(%a, %s) fn="add"

    A value and its index take 48 bits, so the sparse part counts as 3 weights of 16 bits each.
    """

    name: ClassVar[str] = "dense-and-sparse"
    refused: ClassVar[Mapping[str, str]] = {"ane": NO_GATHER}
    outliers: float = option(0.0045, "share of the weights kept apart", least=0.0001, most=0.2)

    def path(self, p: Product, output: str) -> tuple[list[Op], list[Tensor]]:
        return _columns(p, max(1, round(3 * self.outliers * p.count(p.inner))), output, "f16")


HADAMARD = 64
"""Channels of one online Hadamard block: block-diagonal transforms are what engines run as a product (QuaRot, sec. 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation(GraphPass):
    """before:  %y = einsum(%x, %w_down)
    after:   %blocks = view(%x), %t = einsum(%blocks, %hadamard) spec="b t k m, m n -> b t k n"
             %rotated = view(%t), %y = einsum(%rotated, %w_down)

    The rotations that fold into weights cost nothing; these are the two per layer that do not.
    """

    name: ClassVar[str] = "rotation"

    def apply(self, graph: Graph) -> Graph:
        ops: list[Op] = []
        tensors = dict(graph.tensors)
        count = 0
        for op in graph.ops:
            x = graph.tensors[op.inputs[0]] if op.inputs else None
            width = prod(s for s in x.shape[2:] if isinstance(s, int)) if x is not None else 0
            if x is None or not _reads(graph, op, ("ffn_down", "attn_o")) or width % HADAMARD:
                ops.append(op)
                continue
            count += 1
            made, new = _rotated(op, x, width)
            ops += [*made, renamed(op, {x.name: f"{op.name}.rotated"})]
            tensors |= {t.name: t for t in new}
        if not count:
            raise TechniqueError(f"{self.name}: {graph.name} has no ffn_down or attn_o product in blocks of {HADAMARD}")
        return rebuilt(graph, ops, tensors)


def _rotated(op: Op, x: Tensor, width: int) -> tuple[list[Op], list[Tensor]]:
    block = (*x.shape[:2], width // HADAMARD, HADAMARD)
    matrix = Tensor(
        name=f"{op.name}.hadamard", shape=(HADAMARD, HADAMARD), format="f16", role=Role.WEIGHT, part="constant"
    )
    blocks, turned = (Tensor(name=f"{op.name}.{n}", shape=block, format=x.format) for n in ("blocks", "turned"))
    rotated = replace(x, name=f"{op.name}.rotated")
    spec = "b t k m, m n -> b t k n"
    return [
        Op(name=blocks.name, kind="view", inputs=(x.name,), outputs=(blocks.name,), scope=op.scope),
        Op(
            name=turned.name,
            kind="einsum",
            inputs=(blocks.name, matrix.name),
            outputs=(turned.name,),
            attrs={"spec": spec},
            scope=op.scope,
        ),
        Op(name=rotated.name, kind="view", inputs=(turned.name,), outputs=(rotated.name,), scope=op.scope),
    ], [matrix, blocks, turned, rotated]


__all__ = ["DenseAndSparse", "LayerDrop", "LlmInt8", "Lora", "LowRank", "PruneStructured", "Rotation", "drop_layers"]
