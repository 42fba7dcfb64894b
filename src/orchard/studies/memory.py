"""What has to be in memory at once: weights, cache, activations; and what the engine may use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchard.hw import SoC
from orchard.ir import Graph, Role, value_of
from orchard.units import number_format
from orchard.workloads import weight_bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `limit` is what one process may use on this engine by default; `fits` compares the sum with it."""

    weights: int
    kv_cache: int
    activation_peak: int
    limit: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.activation_peak

    @property
    def fits(self) -> bool:
        return self.total <= self.limit

    def to_dict(self) -> dict[str, Any]:
        return {
            "weights_bytes": self.weights,
            "kv_cache_bytes": self.kv_cache,
            "activation_peak_bytes": self.activation_peak,
            "total_bytes": self.total,
            "limit_bytes": self.limit,
            "fits": self.fits,
        }


def memory_need(graph: Graph, soc: SoC, engine: str, *, largest: Mapping[str, int], final: Mapping[str, int]) -> Memory:
    """`largest`: bindings of the call with most tokens; `final`: bindings at the longest context."""
    state = sum(_state_bytes(graph, tuple(sorted(final.items()))))
    return Memory(
        weights=_weights(graph),
        kv_cache=int(state),
        activation_peak=int(_activation_peak(graph, tuple(sorted(largest.items())))),
        limit=memory_limit(soc, engine),
    )


def memory_limit(soc: SoC, engine: str) -> int:
    """Bytes one process may use: the GPU working-set share of RAM, or RAM less what the system keeps (hardware.md)."""
    return int(soc["dram.gpu_limit"]) if engine == "gpu" else int(soc["dram.capacity"] * 0.85)


_GRAPH_CACHE: dict[tuple[int, str], tuple[Graph, Any]] = {}


def _weights(graph: Graph) -> int:
    return _remember(graph, "weights", lambda: weight_bytes(graph))  # type: ignore[no-any-return]


def state_bytes(graph: Graph, bindings: Mapping[str, int]) -> float:
    """Bytes of caches and recurrent states at these sizes."""
    return sum(_state_bytes(graph, tuple(sorted(bindings.items()))))


def _state_bytes(graph: Graph, bindings: tuple[tuple[str, int], ...]) -> list[float]:
    def compute() -> list[float]:
        bound = dict(bindings)
        return [
            value_of(t.elements, bound) * number_format(t.format).bytes_per_element for t in graph.of_role(Role.STATE)
        ]

    return _remember(graph, f"state{bindings}", compute)  # type: ignore[no-any-return]


def _activation_peak(graph: Graph, bindings: tuple[tuple[str, int], ...]) -> float:
    return max(activation_curve(graph, bindings), default=0.0)


def activation_curve(graph: Graph, bindings: tuple[tuple[str, int], ...]) -> list[float]:
    """`live_bytes` of a live graph, computed once per sorted bindings."""
    return _remember(graph, f"live{bindings}", lambda: list(live_bytes(graph, dict(bindings))))  # type: ignore[no-any-return]


def live_peak(graph: Graph, bindings: Mapping[str, int]) -> float:
    """Largest sum of activation bytes alive at once when ops run in program order and free what nobody reads again."""
    return max(live_bytes(graph, bindings), default=0.0)


def live_bytes(graph: Graph, bindings: Mapping[str, int]) -> Iterator[float]:
    """Activation bytes alive while each op runs, in program order.

    Views share their operand's storage, updated states live in the cache, and attention scores between `pairs` ops stay on
    chip (fused attention), so none of these counts.
    """
    last: dict[str, int] = dict.fromkeys(graph.outputs, len(graph.ops))
    for index in reversed(range(len(graph.ops))):
        op = graph.ops[index]
        # A view keeps the storage of its operand alive as long as anybody reads the view.
        end = max(last.get(n, index) for n in op.outputs) if op.kind == "view" else index
        for name in op.inputs:
            last[name] = max(last.get(name, 0), end)
    alive = 0.0
    sizes: dict[str, float] = {}
    known: dict[Any, float] = {}
    ends: dict[int, list[str]] = {}
    for index, op in enumerate(graph.ops):
        inside = op.kind in ("view", "update") or ("pairs" in op.attrs and op.kind == "softmax")
        scores = "pairs" in op.attrs and any(
            r == "s" for r in str(op.attrs.get("spec", "")).rpartition("->")[2].split()
        )
        for name in op.outputs:
            tensor = graph.tensors[name]
            if inside or scores:
                continue
            key = (tensor.shape, tensor.format)
            if key not in known:
                known[key] = value_of(tensor.elements, bindings) * number_format(tensor.format).bytes_per_element
            sizes[name] = known[key]
            alive += sizes[name]
            ends.setdefault(last.get(name, index), []).append(name)
        yield alive
        for name in ends.pop(index, ()):
            alive -= sizes[name]


def _remember(graph: Graph, what: str, compute: Any) -> Any:
    """Keep a value beside a live graph object; the graph is held, so its id cannot be reused."""
    key = (id(graph), what)
    found = _GRAPH_CACHE.get(key)
    if found is None or found[0] is not graph:
        if len(_GRAPH_CACHE) > 256:
            _GRAPH_CACHE.clear()
        found = (graph, compute())
        _GRAPH_CACHE[key] = found
    return found[1]


__all__ = ["Memory", "activation_curve", "live_bytes", "live_peak", "memory_limit", "memory_need", "state_bytes"]
