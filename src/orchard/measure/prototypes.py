"""Variants of algorithms to try: each with its inputs, its reference in float64, and what it has to count.

A prototype is a function on tensors of any device. The harness (`orchard.studies.prototype`) checks it against the reference,
times it over its shapes, and sets the time beside what its work needs at least on the machine at hand.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.measure.errors import MeasureError
from orchard.measure.library import library
from orchard.units import did_you_mean

Shape = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Prototype:
    """`make(shape)` gives input tensors, `run` the result, `reference` the exact result of the same inputs in float64.

    macs, moved   multiply-accumulates, and bytes that have to be read or written at least, of a shape
    tolerance     largest error allowed, relative to the reference's largest value
    """

    name: str
    about: str
    shapes: tuple[Shape, ...]
    make: Callable[[Shape], tuple[Any, ...]]
    run: Callable[..., Any]
    reference: Callable[..., Any]
    macs: Callable[[Shape], float]
    moved: Callable[[Shape], float]
    tolerance: float


def int8_matvec() -> Prototype:
    """A matrix in 8 bits with a scale per row times a vector: rows are widened block by block, so a block stays in cache."""
    torch = library("torch")

    def make(s: Shape) -> tuple[Any, ...]:
        weights = torch.randint(-127, 128, (s["n"], s["k"]), dtype=torch.int8)
        return weights, torch.rand(s["n"]) + 0.5, torch.randn(s["k"])

    def run(weights: Any, scale: Any, x: Any, block: int = 256) -> Any:
        parts = [torch.mv(weights[i : i + block].float(), x) for i in range(0, weights.shape[0], block)]
        return torch.cat(parts) * scale

    def reference(weights: Any, scale: Any, x: Any) -> Any:
        return torch.mv(weights.double(), x.double()) * scale.double()

    shapes = tuple({"n": n, "k": k} for n, k in ((512, 512), (1024, 1024), (2048, 1024), (2048, 2048), (4096, 2048)))
    return Prototype(
        name="int8-matvec", about="matrix-vector product with 8-bit weights, widened by blocks of rows", shapes=shapes, make=make,
        run=run, reference=reference, macs=lambda s: float(s["n"] * s["k"]),
        moved=lambda s: float(s["n"] * s["k"] + 8 * s["n"] + 4 * s["k"]), tolerance=1e-5,
    )  # fmt: skip


def blocked_attention() -> Prototype:
    """Attention over blocks of keys with a running maximum and sum (Milakov and Gimelshein 2018), so that no row of scores is
    ever whole."""
    torch = library("torch")

    def make(s: Shape) -> tuple[Any, ...]:
        return tuple(torch.randn(s["h"], s["t"], s["d"]) for _ in range(3))

    def run(q: Any, k: Any, v: Any, block: int = 128) -> Any:
        q = q * q.shape[-1] ** -0.5
        most = torch.full((*q.shape[:2], 1), -torch.inf, device=q.device)
        total = torch.zeros_like(most)
        result = torch.zeros_like(q)
        for i in range(0, k.shape[1], block):
            scores = q @ k[:, i : i + block].transpose(1, 2)
            highest = torch.maximum(most, scores.amax(-1, keepdim=True))
            weights = torch.exp(scores - highest)
            kept = torch.exp(most - highest)
            total = total * kept + weights.sum(-1, keepdim=True)
            result = result * kept + weights @ v[:, i : i + block]
            most = highest
        return result / total

    def reference(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (x.double() for x in (q, k, v))
        return torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, -1) @ v

    shapes = tuple({"h": h, "t": t, "d": 64} for h, t in ((4, 128), (4, 256), (8, 256), (8, 512), (8, 768)))
    return Prototype(
        name="blocked-attention", about="attention by blocks of keys with a running softmax", shapes=shapes, make=make, run=run,
        reference=reference, macs=lambda s: 2.0 * s["h"] * s["t"] ** 2 * s["d"],
        moved=lambda s: 16.0 * s["h"] * s["t"] * s["d"], tolerance=2e-6,
    )  # fmt: skip


def winograd_conv() -> Prototype:
    """3x3 convolution in Winograd's form F(2x2, 3x3): 16 products for 4 results where the plain form needs 36 (Lavin 2016)."""
    torch = library("torch")
    bt = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]
    g = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
    at = [[1, 1, 1, 0], [0, 1, -1, -1]]

    def make(s: Shape) -> tuple[Any, ...]:
        return torch.randn(s["c"], s["side"], s["side"]), torch.randn(s["o"], s["c"], 3, 3)

    def run(x: Any, w: Any) -> Any:
        b, kernel, a = (torch.tensor(m, dtype=x.dtype, device=x.device) for m in (bt, g, at))
        side = x.shape[1]
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        tiles = padded.unfold(1, 4, 2).unfold(2, 4, 2)  # [c, rows, columns, 4, 4]
        moved = b @ tiles @ b.T
        filters = kernel @ w @ kernel.T
        left = filters.permute(2, 3, 0, 1).reshape(16, w.shape[0], w.shape[1])
        right = moved.permute(3, 4, 0, 1, 2).reshape(16, w.shape[1], -1)
        products = (left @ right).reshape(4, 4, w.shape[0], side // 2, side // 2).permute(2, 3, 4, 0, 1)
        return (a @ products @ a.T).permute(0, 1, 3, 2, 4).reshape(w.shape[0], side, side)

    def reference(x: Any, w: Any) -> Any:
        return torch.nn.functional.conv2d(x.double()[None], w.double(), padding=1)[0]

    shapes = tuple({"c": c, "o": c, "side": s} for c, s in ((16, 32), (32, 32), (64, 28), (64, 56), (128, 28)))
    return Prototype(
        name="winograd-conv", about="3x3 convolution in Winograd's form F(2x2, 3x3)", shapes=shapes, make=make, run=run,
        reference=reference, macs=lambda s: 4.0 * s["c"] * s["o"] * s["side"] ** 2,
        moved=lambda s: 4.0 * (s["side"] ** 2 * (s["c"] + s["o"]) + 9 * s["c"] * s["o"]), tolerance=1e-4,
    )  # fmt: skip


FACTORIES: dict[str, Callable[[], Prototype]] = {
    "int8-matvec": int8_matvec, "blocked-attention": blocked_attention, "winograd-conv": winograd_conv,
}  # fmt: skip


def load_prototype(text: str) -> Prototype:
    """A shipped prototype by name, or `file.py:factory` that returns one. The file's code is run."""
    if text in FACTORIES:
        return FACTORIES[text]()
    name, colon, attribute = text.rpartition(":")
    if not colon or not name.endswith(".py"):
        hint = did_you_mean(text, FACTORIES)
        raise MeasureError(
            f"prototype {text[:60]!r} is not known{hint}; expected {', '.join(FACTORIES)} or file.py:factory"
        )
    path = Path(name)
    if not path.is_file():
        raise MeasureError(f"{name[:200]}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise MeasureError(f"{name}: cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = getattr(module, attribute)()
    except Exception as error:  # whatever the user's file does
        raise MeasureError(f"{text}: raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Prototype):
        raise MeasureError(f"{text}: returned {type(found).__name__}, expected orchard.measure.prototypes.Prototype")
    return found
