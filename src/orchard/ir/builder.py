"""Build graphs: fresh names, scopes, and one method per op kind that fills in the output shape.

    b = Builder("tiny", symbols=("B", "T"))
    x = b.input("x", (b.sym("B"), b.sym("T"), 8))
    with b.scope("layers.0.ffn"):
        y = b.linear(x, b.weight("w_up", (8, 32), part="ffn_up", layer=0))
    graph = b.build(outputs=[y])

Weights of `linear` are stored [in, out]. Formats of weights start as `f16`; a scheme replaces them later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from orchard.ir.einsum import parse_einsum
from orchard.ir.errors import GraphError
from orchard.ir.graph import Attribute, Graph, Op, Role, Tensor
from orchard.ir.kinds import broadcast, verify
from orchard.ir.size import Expr, Size, symbol


class Builder:
    """Collects tensors and ops in program order. `activations` is the number format of new activations."""

    def __init__(self, name: str, *, symbols: Sequence[str] = (), activations: str = "f16") -> None:
        self.name = name
        self.activations = activations
        self._symbols = tuple(symbols)
        self._tensors: dict[str, Tensor] = {}
        self._ops: list[Op] = []
        self._scopes: list[str] = []
        self._counter: dict[str, int] = {}

    def sym(self, name: str) -> Expr:
        """A declared symbol as a size."""
        if name not in self._symbols:
            raise GraphError(f"graph {self.name}: symbol {name!r} is not declared ({', '.join(self._symbols)})")
        return symbol(name)

    @contextmanager
    def scope(self, path: str) -> Iterator[None]:
        """Ops inside get `path` as (nested) scope."""
        self._scopes.append(path)
        try:
            yield
        finally:
            self._scopes.pop()

    def input(self, name: str, shape: Sequence[Size], format: str | None = None) -> Tensor:
        return self._add(Tensor(name=name, shape=tuple(shape), format=format or self.activations, role=Role.INPUT))

    def weight(
        self, name: str, shape: Sequence[Size], *, part: str, layer: int | None = None, format: str = "f16"
    ) -> Tensor:
        full = ".".join([*self._scopes, name])
        return self._add(Tensor(name=full, shape=tuple(shape), format=format, role=Role.WEIGHT, part=part, layer=layer))

    def state(
        self, name: str, shape: Sequence[Size], *, format: str = "f16", part: str = "", layer: int | None = None
    ) -> Tensor:
        full = ".".join([*self._scopes, name])
        return self._add(Tensor(name=full, shape=tuple(shape), format=format, role=Role.STATE, part=part, layer=layer))

    def op(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        shapes: Sequence[Sequence[Size]],
        *,
        name: str | None = None,
        formats: Sequence[str] | None = None,
        attrs: Mapping[str, Attribute] | None = None,
    ) -> tuple[Tensor, ...]:
        """Any op: explicit output shapes, one fresh tensor each."""
        base = self._fresh(name or kind)
        names = [base] if len(shapes) == 1 else [f"{base}.{i}" for i in range(len(shapes))]
        outputs = tuple(
            self._add(Tensor(name=n, shape=tuple(s), format=(formats[i] if formats else self.activations)))
            for i, (n, s) in enumerate(zip(names, shapes))
        )
        self._ops.append(
            Op(
                name=base,
                kind=kind,
                inputs=tuple(t.name for t in inputs),
                outputs=tuple(names),
                attrs=attrs or {},
                scope=".".join(self._scopes),
            )
        )
        return outputs

    def einsum(self, spec: str, *inputs: Tensor, name: str | None = None, **attrs: Attribute) -> Tensor:
        """An Einsum whose dims all stand alone on some input axis (no windows): the output shape follows."""
        einsum = parse_einsum(spec, str(attrs.get("combine", "mul")), str(attrs.get("reduce", "sum")))
        sizes: dict[str, Size] = {}
        for access, tensor in zip(einsum.inputs, inputs):
            shape = tensor.shape[1:] if "routed" in attrs and tensor.part.startswith("expert") else tensor.shape
            for axis, size in zip(access, shape):
                if axis.is_plain:
                    sizes.setdefault(axis.dims[0], size)
        shape_out = [sizes[axis.dims[0]] for axis in einsum.output]
        return self.op("einsum", inputs, [shape_out], name=name, attrs={"spec": spec, **attrs})[0]

    def linear(self, x: Tensor, w: Tensor, *, name: str | None = None) -> Tensor:
        """x[..., m] times w[m, n]."""
        lead = " ".join("abcdefgh"[: len(x.shape) - 1])
        return self.einsum(f"{lead} m, m n -> {lead} n", x, w, name=name)

    def elementwise(self, fn: str, *inputs: Tensor, name: str | None = None, **attrs: Attribute) -> Tensor:
        probe = Op(name=name or fn, kind="elementwise", inputs=(), outputs=())
        shape = broadcast(probe, [t.shape for t in inputs])
        return self.op("elementwise", inputs, [shape], name=name or fn, attrs={"fn": fn, **attrs})[0]

    def norm(self, fn: str, x: Tensor, *parameters: Tensor, name: str | None = None, **attrs: Attribute) -> Tensor:
        return self.op("norm", [x, *parameters], [x.shape], name=name or "norm", attrs={"fn": fn, **attrs})[0]

    def softmax(self, x: Tensor, *extra: Tensor, name: str | None = None, **attrs: Attribute) -> Tensor:
        return self.op("softmax", [x, *extra], [x.shape], name=name, attrs=attrs)[0]

    def rope(self, x: Tensor, *, name: str | None = None, **attrs: Attribute) -> Tensor:
        return self.op("rope", [x], [x.shape], name=name, attrs=attrs)[0]

    def gather(self, table: Tensor, indices: Tensor, *, name: str | None = None) -> Tensor:
        return self.op("gather", [table, indices], [(*indices.shape, *table.shape[1:])], name=name)[0]

    def update(self, state: Tensor, rows: Tensor, *, name: str | None = None) -> Tensor:
        return self.op("update", [state, rows], [state.shape], name=name, formats=[state.format])[0]

    def view(self, x: Tensor, shape: Sequence[Size], *, name: str | None = None) -> Tensor:
        return self.op("view", [x], [shape], name=name, formats=[x.format])[0]

    def split(self, x: Tensor, *shapes: Sequence[Size], name: str | None = None) -> tuple[Tensor, ...]:
        """Parts of `x` as views, e.g. the queries, keys and values of one fused projection."""
        return self.op("view", [x], shapes, name=name or "split", formats=[x.format] * len(shapes))

    def build(self, outputs: Sequence[Tensor]) -> Graph:
        """The verified graph."""
        graph = Graph(
            name=self.name,
            symbols=self._symbols,
            tensors=self._tensors,
            ops=self._ops,
            outputs=[t.name for t in outputs],
        )
        return verify(graph)

    def _add(self, tensor: Tensor) -> Tensor:
        if tensor.name in self._tensors:
            raise GraphError(f"graph {self.name}: %{tensor.name} is defined twice")
        self._tensors[tensor.name] = tensor
        return tensor

    def _fresh(self, base: str) -> str:
        full = ".".join([*self._scopes, base])
        count = self._counter.get(full, 0)
        self._counter[full] = count + 1
        candidate = full if count == 0 else f"{full}_{count}"
        while candidate in self._tensors:
            count += 1
            self._counter[full] = count + 1
            candidate = f"{full}_{count}"
        return candidate
