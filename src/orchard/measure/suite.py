"""Microbenchmarks for PyTorch: small programs that take one kind of work each through sizes.

They are what a calibration may see. Sizes stand on grids (powers of two and a few odd ones); no model's layer is among them on
purpose. `cycled` programs pass over more operands than any cache holds, because a model reads its weights once per pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from orchard.measure.library import library
from orchard.measure.programs import Program, Step, calling, cycling, of_module, training

KIB, MIB = 2**10, 2**20
CYCLED_BYTES = 384 * MIB
"""Total operands of a cycled program: beyond what caches of one machine's cores hold for long."""


def suite(name: str = "quick") -> tuple[Program, ...]:
    """`quick` for a calibration in minutes; `full` adds sizes and types."""
    full = name == "full"
    parts = (
        bandwidth(full), spread(full), fresh_pages(full), pointwise(full), layout(full), gemm(full),
        gemv(full), conv(full), attention(full), rows(full),
        indexed(full), recurrent(full), overheads(full), training_parts(full), narrow(full),
    )  # fmt: skip
    return tuple(program for part in parts for program in part)


def _program(name: str, group: str, make: Any, *, grad: bool = False) -> Program:
    """A program whose step `make(torch)` builds."""

    def build() -> Step:
        step: Step = make(library("torch"))
        return step

    return Program(name=name, group=group, build=build, grad=grad)


def functional(torch: Any) -> Any:
    return torch.nn.functional


def _size(n: float) -> str:
    for unit, factor in (("Mi", MIB), ("Ki", KIB)):
        if n >= factor:
            return f"{n / factor:g}{unit}"
    return f"{n:g}"


def bandwidth(full: bool) -> Iterator[Program]:
    """Copy, triad, update in place and sum by working set; cycles over many operands."""
    steps = range(12, 28, 1 if full else 2)
    for e in steps:
        n = 2**e // 4
        size = _size(2**e)
        yield _program(f"copy-{size}", "bandwidth", lambda t, n=n: calling(lambda x: x.clone(), t.randn(n)))
        yield _program(f"triad-{size}", "bandwidth", lambda t, n=n: calling(lambda a, b: a + b, t.randn(n), t.randn(n)))
        yield _program(f"scale-in-place-{size}", "bandwidth", lambda t, n=n: calling(lambda x: x.mul_(1.0), t.randn(n)))
        yield _program(f"sum-{size}", "bandwidth", lambda t, n=n: calling(lambda x: x.sum(), t.randn(n)))
    for piece in (256 * KIB, 4 * MIB):
        for total in (16 * MIB, CYCLED_BYTES):

            def operands(t: Any, piece: int = piece, total: int = total) -> list[Any]:
                return [t.ones(piece // 4) for _ in range(total // piece)]

            label = f"{_size(piece)}-of-{_size(total)}"
            yield _program(f"sum-cycled-{label}", "bandwidth", lambda t, f=operands: cycling(lambda x: x.sum(), f(t)))
            yield _program(
                f"scale-cycled-{label}", "bandwidth", lambda t, f=operands: cycling(lambda x: x.mul_(1.0), f(t))
            )


def spread(full: bool) -> Iterator[Program]:
    """Operations whose operands and results were not touched for a while, as between the layers of a network."""
    for size in (MIB // 2, 3 * MIB) if not full else (MIB // 8, MIB // 2, 3 * MIB, 8 * MIB):
        for total in (24 * MIB, 192 * MIB):
            count = max(2, total // size // 3)
            label = f"{_size(size)}-of-{_size(total)}"

            def triples(t: Any, n: int = size // 4, count: int = count) -> list[Any]:
                return [tuple(t.ones(n) for _ in range(3)) for _ in range(count)]

            def make(t: Any, f: Callable[[Any], list[Any]] = triples) -> Step:
                operands = f(t)
                flat = [x for triple in operands for x in triple]

                def run() -> None:
                    for a, b, c in operands:
                        t.add(a, b, out=c)

                return Step(run, lambda: iter(flat))

            def kept(t: Any, n: int = size // 4, count: int = count) -> Step:
                xs = [t.ones(n // 256, 256) for _ in range(count)]
                w = t.ones(256)

                def run() -> None:
                    results = [t.nn.functional.layer_norm(x, (256,), w, w) for x in xs]
                    del results

                return Step(run, lambda: iter((*xs, w)))

            yield _program(f"add-spread-{label}", "bandwidth", make)
            yield _program(f"layernorm-spread-{label}", "bandwidth", kept)


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda t, x: t.relu(x), "gelu": lambda t, x: t.nn.functional.gelu(x),
    "gelu-tanh": lambda t, x: t.nn.functional.gelu(x, approximate="tanh"), "silu": lambda t, x: t.nn.functional.silu(x),
    "tanh": lambda t, x: t.tanh(x), "exp": lambda t, x: t.exp(x), "pow3": lambda t, x: t.pow(x, 3.0),
    "square": lambda t, x: t.pow(x, 2), "sqrt": lambda t, x: t.sqrt(x), "div": lambda t, x: t.div(x, 3.0),
    "sin": lambda t, x: t.sin(x),
    "hardtanh": lambda t, x: t.nn.functional.hardtanh(x, 0.0, 6.0), "hardswish": lambda t, x: t.nn.functional.hardswish(x),
    "mul": lambda t, x: t.mul(x, 2.0), "where": lambda t, x: t.where(x > 0, x, x), "rsqrt": lambda t, x: t.rsqrt(x),
    "neg": lambda t, x: t.neg(x),
}  # fmt: skip


def pointwise(full: bool) -> Iterator[Program]:
    sizes = (2**14, 2**18, 2**21) if not full else (2**12, 2**14, 2**16, 2**18, 2**20, 2**22)
    for name, function in FUNCTIONS.items():
        for n in sizes:
            make = lambda t, n=n, f=function: calling(lambda x: f(t, x), t.rand(n) + 0.5)  # noqa: E731
            yield _program(f"{name}-{_size(n)}", "pointwise", make)
    for n in sizes:  # a square root of zeros: moments of rows that were never looked up
        yield _program(f"sqrt-zeros-{_size(n)}", "pointwise", lambda t, n=n: calling(lambda: t.sqrt(t.zeros(n))))
    for name in ("gelu", "silu", "mul", "square", "rsqrt", "relu", "neg"):
        for n in sizes[:2]:
            make = lambda t, n=n, f=FUNCTIONS[name]: calling(lambda x: f(t, x), (t.rand(n) + 0.5).bfloat16())  # noqa: E731
            yield _program(f"{name}-bf16-{_size(n)}", "pointwise", make)
    for n in sizes[:2]:
        yield _program(
            f"add-bf16-{_size(n)}", "pointwise",
            lambda t, n=n: calling(lambda a, b: a + b, t.randn(n).bfloat16(), t.randn(n).bfloat16()),
        )  # fmt: skip
        yield _program(f"dropout-{_size(n)}", "pointwise", lambda t, n=n: calling(
            lambda x: t.nn.functional.dropout(x, 0.1, training=True), t.randn(n)))  # fmt: skip
    for rows_, columns in ((64, 768), (1024, 1024)):
        yield _program(f"add-bias-{rows_}x{columns}", "pointwise", lambda t, r=rows_, c=columns: calling(
            lambda x, b: x + b, t.randn(r, c), t.randn(c)))  # fmt: skip
        yield _program(f"scale-channels-{rows_}x{columns}", "pointwise", lambda t, r=rows_, c=columns: calling(
            lambda x, b: x * b, t.randn(r, c), t.randn(r, 1)))  # fmt: skip


def fresh_pages(full: bool) -> Iterator[Program]:
    """The first touch of pages that the program has just got from the system."""
    for size in (8 * MIB, 64 * MIB) if not full else (MIB, 8 * MIB, 64 * MIB, 256 * MIB):

        def make(t: Any, size: int = size) -> Step:
            import mmap

            def run() -> None:
                t.frombuffer(mmap.mmap(-1, size), dtype=t.float32).zero_()

            return Step(run, lambda: iter(()))

        yield _program(f"fresh-pages-{_size(size)}", "bandwidth", make)


def layout(full: bool) -> Iterator[Program]:
    """Copies that change the order in memory, casts, concatenation, fills."""
    del full
    for rows_, columns in ((128, 768), (1024, 1024), (2048, 4096)):
        yield _program(f"transpose-{rows_}x{columns}", "layout", lambda t, r=rows_, c=columns: calling(
            lambda x: x.t().contiguous(), t.randn(r, c)))  # fmt: skip
        yield _program(f"cast-{rows_}x{columns}", "layout", lambda t, r=rows_, c=columns: calling(
            lambda x: x.bfloat16(), t.randn(r, c)))  # fmt: skip
        yield _program(f"widen-{rows_}x{columns}", "layout", lambda t, r=rows_, c=columns: calling(
            lambda x: x.float(), t.randn(r, c).bfloat16()))  # fmt: skip
        yield _program(f"cat-{rows_}x{columns}", "layout", lambda t, r=rows_, c=columns: calling(
            lambda x: t.cat((x, x), -1), t.randn(r, c)))  # fmt: skip
        yield _program(
            f"zeros-{rows_}x{columns}", "layout", lambda t, r=rows_, c=columns: calling(lambda: t.zeros(r, c))
        )
    for tokens, heads, width in ((128, 8, 32), (512, 16, 64)):
        yield _program(f"heads-{tokens}x{heads}x{width}", "layout", lambda t, s=(1, tokens, heads, width): calling(
            lambda x: x.transpose(1, 2).contiguous(), t.randn(*s)))  # fmt: skip
    for c, side in ((32, 64), (128, 32)):
        yield _program(f"channels-last-{c}x{side}", "layout", lambda t, c=c, s=side: calling(
            lambda x: x.permute(0, 2, 3, 1).contiguous(), t.randn(1, c, s, s)))  # fmt: skip
        yield _program(f"add-permuted-{c}x{side}", "layout", lambda t, c=c, s=side: calling(
            lambda x, y: x + y.permute(0, 3, 1, 2), t.randn(1, c, s, s), t.randn(1, s, s, c)))  # fmt: skip
        yield _program(f"pad-{c}x{side}", "layout", lambda t, c=c, s=side: calling(
            lambda x: t.nn.functional.pad(x, (1, 1, 1, 1)), t.randn(1, c, s, s)))  # fmt: skip


PRODUCTS = (
    (8, 256, 256), (16, 1024, 256), (32, 512, 512), (64, 256, 1024), (64, 2048, 512), (128, 128, 128), (128, 512, 2048),
    (128, 1536, 384), (256, 256, 256), (256, 1024, 1024), (384, 384, 1536), (512, 512, 512), (512, 2048, 512),
    (1024, 256, 256), (1024, 1024, 1024), (4, 1024, 1024), (100, 16000, 512), (2048, 320, 320),
)  # fmt: skip
"""(rows, columns, depth) of y[rows, columns] = x[rows, depth] W[columns, depth]^T + b."""


def gemm(full: bool) -> Iterator[Program]:
    more = ((2048, 2048, 2048), (512, 4096, 1024), (64, 64, 64), (32, 4096, 4096)) if full else ()
    for dtype in ("f32", "bf16"):
        for shape in (*PRODUCTS, *more):
            if dtype == "bf16" and shape[0] * shape[1] * shape[2] > 2**29 and not full:
                continue
            yield _program(
                f"linear-{dtype}-{'x'.join(map(str, shape))}", "gemm", lambda t, s=shape, d=dtype: _linear(t, s, d)
            )
    for m in (32, 128, 384):
        for dtype in ("f32", "bf16"):

            def cycled(t: Any, m: int = m, d: str = dtype) -> Step:
                kind = _dtype(t, d)
                weights = [t.ones(1536, 768, dtype=kind) for _ in range(20)]
                return cycling(lambda w, x: t.nn.functional.linear(x, w), weights, t.randn(m, 768, dtype=kind))

            yield _program(f"linear-cycled-{dtype}-{m}x1536x768", "gemm", cycled)
    for batch, m, n, k in (
        (8, 64, 64, 64),
        (12, 128, 128, 64),
        (64, 32, 32, 32),
        (4, 256, 256, 64),
        (16, 100, 64, 100),
    ):
        yield _program(f"bmm-{batch}x{m}x{n}x{k}", "gemm", lambda t, b=batch, m=m, n=n, k=k: calling(
            t.bmm, t.randn(b, m, k), t.randn(b, k, n)))  # fmt: skip
    for m, n, k in ((256, 1024, 256), (512, 512, 512)):
        yield _program(f"mm-{m}x{n}x{k}", "gemm", lambda t, m=m, n=n, k=k: calling(t.mm, t.randn(m, k), t.randn(k, n)))
        yield _program(f"mm-bf16-{m}x{n}x{k}", "gemm", lambda t, m=m, n=n, k=k: calling(
            t.mm, t.randn(m, k).bfloat16(), t.randn(k, n).bfloat16()))  # fmt: skip
        yield _program(f"mm-transposed-{m}x{n}x{k}", "gemm", lambda t, m=m, n=n, k=k: calling(
            lambda a, b: t.mm(a.t(), b), t.randn(k, m), t.randn(k, n)))  # fmt: skip


def _dtype(t: Any, name: str) -> Any:
    return {"f32": t.float32, "bf16": t.bfloat16, "f16": t.float16}[name]


def _linear(t: Any, shape: tuple[int, int, int], dtype: str) -> Step:
    m, n, k = shape
    kind = _dtype(t, dtype)
    return calling(t.nn.functional.linear, t.randn(m, k, dtype=kind), t.randn(n, k, dtype=kind), t.randn(n, dtype=kind))


def gemv(full: bool) -> Iterator[Program]:
    """One row: a matrix that stays in a cache, and matrices that come from memory."""
    shapes = ((256, 256), (1024, 1024), (2048, 512), (4096, 1024), (1024, 4096), (16384, 1024))
    for dtype in ("f32", "bf16"):
        kind = 4 if dtype == "f32" else 2
        for n, k in shapes:
            yield _program(f"gemv-{dtype}-{n}x{k}", "gemv", lambda t, s=(1, n, k), d=dtype: _linear(t, s, d))
        for n, k in ((512, 512), (2048, 1024), (1024, 4096), (6144, 2048)) if full else ((512, 512), (6144, 2048)):
            count = CYCLED_BYTES // 2 // (n * k * kind)

            def make(t: Any, n: int = n, k: int = k, d: str = dtype, count: int = count) -> Step:
                x = t.randn(1, k, dtype=_dtype(t, d))
                weights = [t.ones(n, k, dtype=_dtype(t, d)) for _ in range(count)]
                return cycling(lambda w, x: t.nn.functional.linear(x, w), weights, x)

            yield _program(f"gemv-cycled-{dtype}-{n}x{k}", "gemv", make)
    # the layout of weights that a product reads down its columns (Conv1D of GPT-2)
    for n, k in ((1024, 1024), (3072, 512)):
        yield _program(f"gemv-columns-{n}x{k}", "gemv", lambda t, n=n, k=k: calling(
            t.addmm, t.randn(n), t.randn(1, k), t.randn(k, n)))  # fmt: skip

    def make_columns(t: Any) -> Step:
        weights = [t.ones(1024, 1024) for _ in range(48)]
        return cycling(lambda w, x, b: t.addmm(b, x, w), weights, t.randn(1, 1024), t.randn(1024))

    yield _program("gemv-cycled-columns-1024x1024", "gemv", make_columns)


WINDOWS = (
    # channels in, channels out, side, window, stride
    (3, 32, 128, 7, 2), (3, 256, 128, 8, 8), (3, 48, 160, 4, 4), (3, 24, 160, 3, 2), (32, 32, 64, 3, 1), (96, 96, 32, 3, 1),
    (192, 192, 16, 3, 1), (384, 384, 8, 3, 1), (256, 256, 32, 3, 1), (64, 128, 32, 3, 2), (48, 192, 48, 1, 1),
    (192, 48, 48, 1, 1), (384, 96, 24, 1, 1), (96, 384, 24, 1, 1), (512, 1024, 12, 1, 1), (24, 144, 56, 1, 1),
    (64, 128, 32, 2, 2),
    (768, 256, 7, 1, 1), (160, 640, 7, 1, 1), (256, 512, 28, 1, 2), (32, 16, 96, 1, 1), (64, 64, 7, 3, 1), (16, 32, 20, 3, 1),
)  # fmt: skip
CHANNELWISE = (
    (48, 64, 3, 1),
    (144, 32, 3, 1),
    (384, 16, 3, 1),
    (768, 7, 3, 1),
    (64, 96, 3, 2),
    (128, 56, 3, 2),
    (256, 14, 3, 2),
    (48, 112, 3, 1),
    (192, 28, 7, 1),
    (64, 48, 7, 1),
)


def conv(full: bool) -> Iterator[Program]:
    """Windows, points, one filter per channel; and a layer that is cycled, as a network has many."""
    batches = (1, 4) if full else (1,)
    for batch in batches:
        for c, o, side, k, s in WINDOWS:
            yield _program(f"conv-{batch}x{c}x{side}-{o}x{k}s{s}", "conv", lambda t, a=(batch, c, o, side, k, s): calling(
                lambda x, w, b: t.nn.functional.conv2d(x, w, b, stride=a[5], padding=a[4] // 2 if a[4] != a[5] else 0),
                t.randn(a[0], a[1], a[3], a[3]), t.randn(a[2], a[1], a[4], a[4]), t.randn(a[2]),
            ))  # fmt: skip
        for c, side, k, s in CHANNELWISE:
            yield _program(f"depthwise-{batch}x{c}x{side}-{k}s{s}", "conv", lambda t, a=(batch, c, side, k, s): calling(
                lambda x, w: t.nn.functional.conv2d(x, w, None, stride=a[4], padding=a[3] // 2, groups=a[1]),
                t.randn(a[0], a[1], a[2], a[2]), t.randn(a[1], 1, a[3], a[3]),
            ))  # fmt: skip
    for c, o, side, k in ((128, 128, 14, 3), (256, 512, 14, 1), (384, 384, 7, 3)):

        def make(t: Any, c: int = c, o: int = o, side: int = side, k: int = k) -> Step:
            weights = [t.ones(o, c, k, k) for _ in range(max(2, 64 * MIB // (4 * o * c * k * k)))]
            return cycling(
                lambda w, x: t.nn.functional.conv2d(x, w, None, padding=k // 2), weights, t.randn(1, c, side, side)
            )

        yield _program(f"conv-cycled-{c}x{side}-{o}x{k}", "conv", make)
    for c, length, o in ((64, 1000, 256), (256, 1000, 256)):
        yield _program(f"conv1d-{c}x{length}-{o}", "conv", lambda t, c=c, n=length, o=o: calling(
            lambda x, w: t.nn.functional.conv1d(x, w, None, padding=1), t.randn(1, c, n), t.randn(o, c, 3)))  # fmt: skip


def attention(full: bool) -> Iterator[Program]:
    shapes = [(1, 8, 64, 64, 64), (1, 8, 256, 256, 64), (1, 16, 384, 384, 64), (2, 4, 128, 128, 128), (1, 4, 1024, 1024, 32),
              (1, 16, 1, 128, 64), (1, 16, 1, 1024, 64), (1, 4, 2048, 2048, 40)]  # fmt: skip
    if full:
        shapes += [(1, 8, 2048, 2048, 64), (8, 8, 64, 64, 64), (1, 32, 1, 4096, 128)]
    for dtype in ("f32", "bf16"):
        for b, h, l, s, d in shapes if dtype == "f32" else shapes[:3] + shapes[5:7]:  # noqa: E741
            yield _program(f"attention-{dtype}-{b}x{h}x{l}x{s}x{d}", "attention", lambda t, a=(b, h, l, s, d), k=dtype: calling(
                t.nn.functional.scaled_dot_product_attention,
                *(t.randn(a[0], a[1], n, a[4], dtype=_dtype(t, k)) for n in (a[2], a[3], a[3]))))  # fmt: skip
    for b, h, l, d in ((1, 8, 256, 64), (4, 4, 192, 64)):  # noqa: E741
        yield _program(f"attention-causal-{b}x{h}x{l}x{d}", "attention", lambda t, a=(b, h, l, d): calling(
            lambda q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
            *(t.randn(*a) for _ in range(3))))  # fmt: skip
    yield _program("attention-masked-1x8x256x64", "attention", lambda t: calling(
        lambda q, k, v, m: t.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=m),
        *(t.randn(1, 8, 256, 64) for _ in range(3)), t.zeros(1, 1, 256, 256)))  # fmt: skip


def rows(full: bool) -> Iterator[Program]:
    """Softmax, norms, reductions, pools."""
    shapes = (
        ((32, 512), (256, 1024), (2048, 1024))
        if not full
        else ((32, 512), (256, 256), (256, 1024), (2048, 1024), (64, 32000))
    )
    for r, c in shapes:
        at = f"{r}x{c}"
        yield _program(f"softmax-{at}", "rows", lambda t, r=r, c=c: calling(lambda x: t.softmax(x, -1), t.randn(r, c)))
        yield _program(
            f"log-softmax-{at}", "rows", lambda t, r=r, c=c: calling(lambda x: t.log_softmax(x, -1), t.randn(r, c))
        )
        yield _program(f"layernorm-{at}", "rows", lambda t, r=r, c=c: calling(
            lambda x, w, b: functional(t).layer_norm(x, (c,), w, b), t.randn(r, c), t.ones(c), t.zeros(c)))  # fmt: skip
        yield _program(
            f"mean-last-{at}", "rows", lambda t, r=r, c=c: calling(lambda x: x.mean(-1, keepdim=True), t.randn(r, c))
        )
        yield _program(f"sum-first-{at}", "rows", lambda t, r=r, c=c: calling(lambda x: x.sum(0), t.randn(r, c)))
    for c, side in ((64, 28), (32, 96), (256, 32), (1024, 7)):
        yield _program(f"groupnorm-{c}x{side}", "rows", lambda t, c=c, s=side: calling(
            lambda x, w, b: functional(t).group_norm(x, 32, w, b), t.randn(1, c, s, s), t.ones(c), t.zeros(c)))  # fmt: skip
        yield _program(f"batchnorm-{c}x{side}", "rows", lambda t, c=c, s=side: calling(
            lambda x, m, v, w, b: functional(t).batch_norm(x, m, v, w, b), t.randn(1, c, s, s),
            *(t.ones(c) for _ in range(4))))  # fmt: skip
    for c, side in ((32, 64), (64, 112)):
        yield _program(f"maxpool-{c}x{side}", "rows", lambda t, c=c, s=side: calling(
            lambda x: functional(t).max_pool2d(x, 3, 2, 1), t.randn(1, c, s, s)))  # fmt: skip
        yield _program(f"avgpool-{c}x{side}", "rows", lambda t, c=c, s=side: calling(
            lambda x: functional(t).avg_pool2d(x, 2), t.randn(1, c, s, s)))  # fmt: skip
        yield _program(f"upsample-{c}x{side}", "rows", lambda t, c=c, s=side: calling(
            lambda x: functional(t).interpolate(x, scale_factor=2, mode="nearest"), t.randn(1, c, s, s)))  # fmt: skip
    for r, c in ((256, 512),):
        yield _program(f"rmsnorm-chain-bf16-{r}x{c}", "rows", lambda t, r=r, c=c: calling(
            lambda x, w: w * (x.float() * t.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).bfloat16(),
            t.randn(r, c).bfloat16(), t.ones(c).bfloat16()))  # fmt: skip
        yield _program(f"topk-{r}x{c}", "rows", lambda t, r=r, c=c: calling(lambda x: x.topk(8, -1), t.randn(r, c)))
        yield _program(f"cumsum-{r}x{c}", "rows", lambda t, r=r, c=c: calling(lambda x: x.cumsum(-1), t.randn(r, c)))


def indexed(full: bool) -> Iterator[Program]:
    """Rows that are looked up and scattered."""
    del full
    for table, width, count in ((10000, 256, 64), (10000, 256, 1024), (30000, 1024, 512)):
        yield _program(f"embedding-{table}x{width}-{count}", "indexed", lambda t, a=table, w=width, n=count: calling(
            lambda e, i: t.nn.functional.embedding(i, e), t.randn(a, w), t.randint(0, a, (n,))))  # fmt: skip
        yield _program(f"index-add-{width}-{count}", "indexed", lambda t, w=width, n=count: calling(
            lambda e, i, x: e.index_add_(0, i, x), t.zeros(1000, w), t.randint(0, 1000, (n,)), t.randn(n, w)))  # fmt: skip


def recurrent(full: bool) -> Iterator[Program]:
    shapes = (
        (64, 128, 40, 1),
        (128, 256, 20, 2),
        (192, 384, 30, 4),
        (256, 256, 50, 16),
        (640, 640, 15, 2),
        (384, 640, 20, 12),
    )
    for inside, hidden, steps, batch in shapes + (((1024, 1024, 20, 8),) if full else ()):
        yield _program(f"lstm-{inside}-{hidden}x{steps}x{batch}", "recurrent", lambda t, a=(inside, hidden, steps, batch):
            of_module(
            t.nn.LSTM(a[0], a[1], batch_first=True).eval(), t.randn(a[3], a[2], a[0])))  # fmt: skip


def overheads(full: bool) -> Iterator[Program]:
    """What calls cost besides their work: views, tiny operations, modules, cross-device copies where there is a device."""
    del full

    def views(t: Any) -> Step:
        def run(x: Any) -> Any:
            for _ in range(50):
                x = x.view(4, 16).transpose(0, 1).transpose(0, 1).view(64)
            return x

        return calling(run, t.randn(64))

    def tiny(t: Any) -> Step:
        def run(x: Any) -> Any:
            for _ in range(100):
                x = x + 1.0
            return x

        return calling(run, t.randn(16))

    def modules(t: Any) -> Step:
        return of_module(t.nn.Sequential(*(t.nn.Identity() for _ in range(100))).eval(), t.randn(16))

    def layers(t: Any) -> Step:
        return of_module(t.nn.Sequential(*(t.nn.Linear(16, 16) for _ in range(30))).eval(), t.randn(4, 16))

    def mixed(t: Any) -> Step:
        class Block(t.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.n = t.nn.Linear(64, 64), t.nn.Linear(64, 64), t.nn.LayerNorm(64)

            def forward(self, x: Any) -> Any:
                y = self.b(t.relu(self.a(self.n(x))))
                return x + y.view(2, 2, 64).transpose(0, 1).reshape(4, 64)

        return of_module(t.nn.Sequential(*(Block() for _ in range(20))).eval(), t.randn(4, 64))

    for name, make in (
        ("views", views),
        ("tiny-adds", tiny),
        ("modules", modules),
        ("tiny-linears", layers),
        ("tiny-blocks", mixed),
    ):
        yield _program(name, "overheads", make)


def training_parts(full: bool) -> Iterator[Program]:
    """Forward, backward and update of small pieces."""
    del full

    def backward(t: Any, function: Callable[..., Any], *tensors: Any) -> Step:
        del t
        wanted = [x for x in tensors if x.is_floating_point()]
        for x in wanted:
            x.requires_grad_(True)

        def run() -> None:
            function(*tensors).sum().backward()
            for x in wanted:
                x.grad = None

        return Step(run, lambda: iter(tensors))

    for m, n, k in ((64, 256, 256), (256, 512, 512), (256, 1024, 256)):
        yield _program(f"linear-backward-{m}x{n}x{k}", "training", lambda t, m=m, n=n, k=k: backward(
            t, functional(t).linear, t.randn(m, k), t.randn(n, k), t.randn(n)), grad=True)  # fmt: skip
        yield _program(f"linear-backward-bf16-{m}x{n}x{k}", "training", lambda t, m=m, n=n, k=k: backward(
            t, functional(t).linear, t.randn(m, k).bfloat16(), t.randn(n, k).bfloat16(),
            t.randn(n).bfloat16()), grad=True)  # fmt: skip
    for r, c in ((128, 384), (1024, 512)):
        yield _program(f"gelu-backward-{r}x{c}", "training", lambda t, r=r, c=c: backward(
            t, functional(t).gelu, t.randn(r, c)), grad=True)  # fmt: skip
        yield _program(f"silu-backward-{r}x{c}", "training", lambda t, r=r, c=c: backward(
            t, functional(t).silu, t.randn(r, c)), grad=True)  # fmt: skip
        yield _program(f"layernorm-backward-{r}x{c}", "training", lambda t, r=r, c=c: backward(
            t, lambda x, w, b: functional(t).layer_norm(x, (c,), w, b), t.randn(r, c), t.ones(c),
            t.zeros(c)), grad=True)  # fmt: skip
        yield _program(f"cross-entropy-{r}x{c}", "training", lambda t, r=r, c=c: backward(
            t, lambda x, y: functional(t).cross_entropy(x, y), t.randn(r, c * 4),
            t.ones(r, dtype=t.long)), grad=True)  # fmt: skip
        yield _program(f"embedding-backward-{r}x{c}", "training", lambda t, r=r, c=c: backward(
            t, lambda w, i: functional(t).embedding(i, w), t.randn(5000, c), t.ones(r, dtype=t.long)), grad=True)  # fmt: skip
    for shape in ((2, 4, 96, 64), (1, 8, 256, 32)):
        yield _program(f"attention-backward-{'x'.join(map(str, shape))}", "training", lambda t, s=shape: backward(
            t, lambda q, k, v: functional(t).scaled_dot_product_attention(q, k, v, is_causal=True),
            *(t.randn(*s) for _ in range(3))), grad=True)  # fmt: skip
        yield _program(f"attention-backward-bf16-{'x'.join(map(str, shape))}", "training", lambda t, s=shape: backward(
            t, lambda q, k, v: functional(t).scaled_dot_product_attention(q, k, v, is_causal=True),
            *(t.randn(*s).bfloat16() for _ in range(3))), grad=True)  # fmt: skip
    for c, o, side in ((32, 32, 28), (64, 128, 14)):
        yield _program(f"conv-backward-{c}x{side}-{o}", "training", lambda t, c=c, o=o, s=side: backward(
            t, lambda x, w: functional(t).conv2d(x, w, None, padding=1), t.randn(1, c, s, s),
            t.randn(o, c, 3, 3)), grad=True)  # fmt: skip
    for count, width in ((40, 64), (8, 512)):
        yield _program(f"adamw-{count}x{width}", "training", lambda t, n=count, w=width: _adamw(t, n, w), grad=True)
    yield _program("mlp-step", "training", _mlp_step, grad=True)


def _adamw(t: Any, count: int, width: int) -> Step:
    """The update alone: gradients stay."""
    parameters = [t.nn.Parameter(t.randn(width, width)) for _ in range(count)]
    for p in parameters:
        p.grad = t.ones(width, width)
    optimizer = t.optim.AdamW(parameters, lr=1e-6)

    def tensors() -> Iterator[Any]:
        for p in parameters:
            yield p
            yield p.grad
            yield from (v for v in optimizer.state[p].values() if hasattr(v, "untyped_storage"))

    return Step(optimizer.step, tensors)


def _mlp_step(t: Any) -> Step:
    model = t.nn.Sequential(t.nn.Linear(96, 192), t.nn.GELU(), t.nn.LayerNorm(192), t.nn.Linear(192, 96))
    x = t.randn(64, 96)
    return training(model, t.optim.AdamW(model.parameters()), lambda: model(x).square().mean(), x)


def narrow(full: bool) -> Iterator[Program]:
    """Products with weights of 8 and 4 bits."""
    del full
    for m in (1, 32):
        for n, k in ((1024, 1024), (4096, 1024)):
            yield _program(f"int8-weights-{m}x{n}x{k}", "narrow", lambda t, m=m, n=n, k=k: calling(
                t.ops.aten._weight_int8pack_mm, t.randn(m, k).bfloat16(),
                t.ones(n, k, dtype=t.int8), t.ones(n).bfloat16()))  # fmt: skip
    for m, n, k in ((64, 512, 512), (256, 1024, 1024)):
        yield _program(f"int8-product-{m}x{n}x{k}", "narrow", lambda t, m=m, n=n, k=k: calling(
            t._int_mm, t.ones(m, k, dtype=t.int8), t.ones(k, n, dtype=t.int8)))  # fmt: skip
    for m in (1, 32):
        yield _program(f"int4-weights-{m}x1024x1024", "narrow", lambda t, m=m: calling(
            lambda x, w, s: t.ops.aten._weight_int4pack_mm_for_cpu(x, w, 64, s), t.randn(m, 1024).bfloat16(),
            t.ones(1024, 512, dtype=t.uint8), t.ones(16, 1024, 2).bfloat16()))  # fmt: skip
