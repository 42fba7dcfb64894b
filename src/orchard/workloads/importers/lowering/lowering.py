"""`Lowering`: contractions, attention, norms, pooling and recurrence on top of the layout ops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orchard.ir import Expr, Size, floordiv, product
from orchard.workloads.importers.lowering.layout import Layout
from orchard.workloads.importers.lowering.values import Data, Value, array, promote, show


class Lowering(Layout):
    """Collects values and nodes. `where` names the file or object in error sentences."""

    # ---- contractions

    def einsum(
        self, spec: str, inputs: Sequence[Value], shape: Sequence[Size], bias: Value | None = None, **attrs: Any
    ) -> Value:
        """One Einsum with its output shape. A bias is one more operand, added on the way out."""
        operands = [*inputs, bias] if bias is not None else list(inputs)
        return self.one("einsum", operands, shape, promote(inputs), spec=spec, **attrs)

    def linear(self, x: Value, w: Value, bias: Value | None = None, *, out_first: bool = True) -> Value:
        """x[..., k] times w[n, k] (`out_first`) or w[k, n]."""
        if w.ndim != 2 or x.ndim < 1 or x.ndim > 8:
            raise self.fail(f"a linear layer on {show(x.shape)} with weight {show(w.shape)}")
        n, k = w.shape if out_first else w.shape[::-1]
        self.same(k, x.shape[-1])
        lead = " ".join("abcdefgh"[: x.ndim - 1])
        spec = f"{lead} k, {'n k' if out_first else 'k n'} -> {lead} n".strip()
        return self.einsum(spec, [x, w], [*x.shape[:-1], n], bias)

    def matmul(self, a: Value, b: Value, *, transpose_a: bool = False, transpose_b: bool = False) -> Value:
        """NumPy matmul with broadcasting; the transposes swap the last two axes."""
        if a.ndim == 0 or b.ndim == 0:
            raise self.fail("a matrix product with a scalar")
        if a.ndim == b.ndim == 1:
            return self.reshape(self.matmul(self.reshape(a, [1, *a.shape]), self.reshape(b, [*b.shape, 1])), [])
        if a.ndim == 1:
            return self.squeeze(self.matmul(self.reshape(a, [1, *a.shape]), b, transpose_b=transpose_b), [-2])
        if b.ndim == 1:
            return self.squeeze(self.matmul(a, self.reshape(b, [*b.shape, 1]), transpose_a=transpose_a), [-1])
        if b.ndim == 2 and not transpose_a:
            return self.linear(a, b, out_first=transpose_b)
        batch = self.broadcast(a.shape[:-2], b.shape[:-2])
        m, k = (a.shape[-1], a.shape[-2]) if transpose_a else (a.shape[-2], a.shape[-1])
        n, k2 = (b.shape[-2], b.shape[-1]) if transpose_b else (b.shape[-1], b.shape[-2])
        self.same(k, k2)
        left = self._batch_letters(a.shape[:-2], batch, "u")
        right = self._batch_letters(b.shape[:-2], batch, "x")
        out = list("abcdefgh"[: len(batch)])
        spec = (
            f"{' '.join([*left, *('k m' if transpose_a else 'm k').split()])}, "
            f"{' '.join([*right, *('n k' if transpose_b else 'k n').split()])} -> {' '.join([*out, 'm', 'n'])}"
        )
        return self.einsum(spec, [a, b], [*batch, m, n])

    def _batch_letters(self, shape: Sequence[Size], batch: Sequence[Size], spare: str) -> list[str]:
        """Letters of batch axes; an axis of size 1 that broadcasts gets a letter of its own."""
        lead = len(batch) - len(shape)
        names = "abcdefgh"[: len(batch)]
        return [
            f"{spare}{names[lead + i]}" if size == 1 and batch[lead + i] != 1 else names[lead + i]
            for i, size in enumerate(shape)
        ]

    def conv(
        self,
        x: Value,
        w: Value,
        bias: Value | None = None,
        *,
        stride: Sequence[int],
        pad: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        groups: int = 1,
    ) -> Value:
        """x[n, g*c, spatial...] with w[g*k, c, taps...]; `pad` is (before, after) per spatial axis."""
        d = w.ndim - 2
        self._check_conv(x, w, stride, pad, dilation, groups, d)
        spatial = [
            self.conv_size(s, tap, st, p, di)
            for s, tap, st, p, di in zip(x.shape[2:], w.shape[2:], stride, pad, dilation)
        ]
        n, channels = x.shape[:2]
        c, k_all = w.shape[1], w.shape[0]
        window = " ".join(
            f"({_times(st, o)}+{_times(di, t)})" for st, di, o, t in zip(stride, dilation, "pqo"[:d], "rst"[:d])
        )
        out, taps = " ".join("pqo"[:d]), " ".join("rst"[:d])
        if groups == 1:
            self.same(c, channels)
            return self.einsum(f"n c {window}, k c {taps} -> n k {out}", [x, w], [n, k_all, *spatial], bias)
        k = self.divide(k_all, groups)
        if c == 1 and k == 1:
            return self.einsum(f"n g {window}, g c {taps} -> n g {out}", [x, w], [n, groups, *spatial], bias)
        self.same(c * groups, channels)
        grouped = self.reshape(x, [n, groups, c, *x.shape[2:]])
        weight = self.reshape(w, [groups, k, c, *w.shape[2:]])
        y = self.einsum(
            f"n g c {window}, g k c {taps} -> n g k {out}", [grouped, weight], [n, groups, k, *spatial], bias
        )
        return self.reshape(y, [n, k_all, *spatial])

    def _check_conv(
        self,
        x: Value,
        w: Value,
        stride: Sequence[int],
        pad: Sequence[Any],
        dilation: Sequence[int],
        groups: int,
        d: int,
    ) -> None:
        if not 1 <= d <= 3 or x.ndim != d + 2 or not len(stride) == len(pad) == len(dilation) == d:
            raise self.fail(
                f"a convolution on {show(x.shape)} with weight {show(w.shape)}, expected 1 to 3 spatial axes"
            )
        if groups < 1 or min(stride) < 1 or min(dilation) < 1:
            raise self.fail(f"a convolution with stride {tuple(stride)}, dilation {tuple(dilation)}, groups {groups}")

    def conv_size(
        self, size: Size, tap: Size, stride: int, pad: tuple[int, int], dilation: int = 1, *, ceil: bool = False
    ) -> Size:
        span = (tap - 1) * dilation + 1
        room = size + (pad[0] + pad[1]) - span
        if isinstance(room, int) and room < 0 and not (ceil and room > -stride):
            raise self.fail(f"a window of {span} on an axis of {size} with padding {pad}")
        if not ceil:
            return floordiv(room, stride) + 1 if stride != 1 else room + 1
        length = floordiv(room + (stride - 1), stride) + 1
        if isinstance(length, int) and isinstance(size, int) and (length - 1) * stride >= size + pad[0]:
            length -= 1  # a window that would start in the padding behind is dropped
        return length

    def conv_transpose(
        self,
        x: Value,
        w: Value,
        bias: Value | None = None,
        *,
        stride: Sequence[int],
        pad: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        output_pad: Sequence[int],
        groups: int = 1,
    ) -> Value:
        """x[n, g*c, spatial...] with w[g*c, k, taps...]. MACs: each input element meets each tap of each output
        channel.

        Where the kernel is a multiple of the stride and the output exactly stride times the input, every output phase u
        is a plain convolution with kernel/stride taps: y[s*p+u] = sum over t of x[p+t] w[t, u]. Otherwise it is the
        product with all taps followed by the overlapping sum (col2im).
        """
        d = w.ndim - 2
        self._check_conv(x, w, stride, pad, dilation, groups, d)
        n, sizes, taps = x.shape[0], x.shape[2:], w.shape[2:]
        out = [
            (s - 1) * st + ((t - 1) * di + 1) + (op - p[0] - p[1])
            for s, st, t, di, op, p in zip(sizes, stride, taps, dilation, output_pad, pad)
        ]
        c, k = self.divide(w.shape[0], groups), w.shape[1]
        if groups > 1:
            x = self.reshape(x, [n, groups, c, *sizes])
            w = self.reshape(w, [groups, c, *w.shape[1:]])
        g, lead, channels = ("g ", [groups], groups) if groups > 1 else ("", [], 1)
        phases = all(
            isinstance(t, int) and t % st == 0 and di == 1 and o == s * st
            for t, st, di, o, s in zip(taps, stride, dilation, out, sizes)
        )
        pos, tap, phase = "pqo"[:d], "rst"[:d], "uvw"[:d]
        if phases:
            w = self.reshape(
                w, [*w.shape[: w.ndim - d], *(v for t, st in zip(taps, stride) for v in (self.divide(t, st), st))]
            )
            window = " ".join(f"({p}+{t})" for p, t in zip(pos, tap))
            weights = " ".join(f"{t} {u}" for t, u in zip(tap, phase))
            result = " ".join(f"{p} {u}" for p, u in zip(pos, phase))
            shape = [n, *lead, k, *(v for s, st in zip(sizes, stride) for v in (s, st))]
            y = self.einsum(f"n {g}c {window}, {g}c k {weights} -> n {g}k {result}", [x, w], shape, bias)
        else:
            spec = f"n {g}c {' '.join(pos)}, {g}c k {' '.join(tap)} -> n {g}k {' '.join(pos)} {' '.join(tap)}"
            y = self.einsum(spec, [x, w], [n, *lead, k, *sizes, *taps])
            y = self.one(
                "reduce", [y, bias] if bias is not None else [y], [n, *lead, k, *out], fn="sum", window="col2im"
            )
        return self.reshape(y, [n, k * channels, *out])

    # ---- attention and other composites

    def attention(
        self,
        q: Value,
        k: Value,
        v: Value,
        mask: Value | None = None,
        *,
        causal: bool = False,
        scale: float | None = None,
    ) -> Value:
        """q[..., h, t, d], k[..., g, s, d], v[..., g, s, e]; h is a multiple of g. Scale and mask are the softmax's."""
        if q.ndim < 3:
            lead = 3 - q.ndim
            q, k, v = (self.unsqueeze(x, list(range(lead))) for x in (q, k, v))
            return self.squeeze(self.attention(q, k, v, mask, causal=causal, scale=scale), list(range(lead)))
        *lead_shape, h, t, d = q.shape
        g, s, e = k.shape[-3], k.shape[-2], v.shape[-1]
        self.same(d, k.shape[-1])
        attrs: dict[str, Any] = {"causal": True} if causal else {}
        if scale is not None:
            attrs["scale"] = float(scale)
        extra = [mask] if mask is not None else []
        shapes = self.broadcast(lead_shape, k.shape[:-3])
        names = list("abcefg"[: len(shapes)])
        qn = " ".join(self._batch_letters(lead_shape, shapes, "u"))
        kn = " ".join(self._batch_letters(k.shape[:-3], shapes, "x"))
        bn = " ".join(names)
        if h == g or g == 1 or not isinstance(h, int) or not isinstance(g, int):
            heads = "h" if h == g else "o"
            scores = self.einsum(f"{qn} h t d, {kn} {heads} s d -> {bn} h t s", [q, k], [*shapes, h, t, s])
            weights = self.emit("softmax", [scores, *extra], [scores.shape], name="softmax", axis=-1, **attrs)[0]
            return self.einsum(f"{bn} h t s, {kn} {heads} s e -> {bn} h t e", [weights, v], [*shapes, h, t, e])
        if h % g:
            raise self.fail(f"attention with {h} query heads and {g} key heads, expected a multiple")
        r = h // g
        grouped = self.reshape(q, [*lead_shape, g, r, t, d])
        scores = self.einsum(f"{qn} h r t d, {kn} h s d -> {bn} h r t s", [grouped, k], [*shapes, g, r, t, s])
        weights = self.emit("softmax", [scores, *extra], [scores.shape], name="softmax", axis=-1, **attrs)[0]
        y = self.einsum(f"{bn} h r t s, {kn} h s e -> {bn} h r t e", [weights, v], [*shapes, g, r, t, e])
        return self.reshape(y, [*shapes, h, t, e])

    def softmax(self, x: Value, axis: int = -1, fn: str = "softmax") -> Value:
        axis = self.axis(x, axis)
        attrs: dict[str, Any] = {"axis": -1 if axis == x.ndim - 1 else axis}
        if fn != "softmax":
            attrs["fn"] = fn
        return self.emit("softmax", [x], [x.shape], name=fn, **attrs)[0]

    def norm(self, fn: str, x: Value, *parameters: Value | None, **attrs: Any) -> Value:
        return self.emit("norm", [x, *(p for p in parameters if p is not None)], [x.shape], name=fn, fn=fn, **attrs)[0]

    def reduce(self, fn: str, x: Value, axes: Sequence[int] | None, keepdims: bool, format: str | None = None) -> Value:
        gone = sorted({self.axis(x, a) for a in axes}) if axes else list(range(x.ndim))
        shape = [1 if i in gone else s for i, s in enumerate(x.shape) if keepdims or i not in gone]
        if x.data is not None and fn in ("prod", "sum", "max", "min") and len(gone) == x.ndim:
            folded = _reduce_data(fn, x.data)
            if folded is not None:
                return self.constant(array([folded], [1] * x.ndim) if keepdims else array(folded), x.format)
        return self.one("reduce", [x], shape, format, fn=fn, axes=tuple(gone))

    def pool(
        self,
        fn: str,
        x: Value,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[tuple[int, int]],
        dilation: Sequence[int] | None = None,
        *,
        ceil: bool = False,
    ) -> Value:
        d = len(kernel)
        dilation = dilation or [1] * d
        if x.ndim < d + 1 or not len(stride) == len(pad) == len(dilation) == d or min(stride) < 1:
            raise self.fail(f"pooling of {show(x.shape)} with a window of {tuple(kernel)}")
        lead = x.shape[: x.ndim - d]
        sizes = [
            self.conv_size(s, k, st, p, di, ceil=ceil)
            for s, k, st, p, di in zip(x.shape[-d:], kernel, stride, pad, dilation)
        ]
        return self.one("pool", [x], [*lead, *sizes], fn=fn, kernel=tuple(kernel), stride=tuple(stride))

    def resize(self, x: Value, shape: Sequence[Size], fn: str) -> Value:
        return x if tuple(shape) == x.shape else self.one("resize", [x], shape, fn=fn)

    def recurrent(
        self, fn: str, x: Value, weights: Sequence[tuple[Value, Value]], biases: Sequence[Value], hidden: int
    ) -> tuple[Value, Value]:
        """LSTM, GRU or RNN over x[t, b, i], one (input, recurrent) weight pair per direction, gates stacked first.

        The input product runs for the whole sequence; the recurrent one runs step by step inside the scan, whose `macs`
        say so. Returns the outputs [t, b, directions*hidden] and the last state [directions, b, hidden].
        """
        gates = {"lstm": 4, "gru": 3}.get(fn, 1)
        t, b, _ = x.shape
        d = len(weights)
        outputs: list[Value] = []
        for index, (w, r) in enumerate(weights):
            bias = biases[index] if index < len(biases) else None
            projected = self.einsum("t b i, g i -> t b g", [x, w], [t, b, gates * hidden], bias)
            outputs.append(
                self.one(
                    "scan", [projected, r], [t, b, hidden], x.format, fn=fn,
                    state=hidden * (2 if fn == "lstm" else 1), time_axis=0,
                    ops_per_step=2 * gates * hidden * hidden + gates * hidden * 4,
                    macs=t * b * (gates * hidden * hidden),
                )
            )  # fmt: skip
        y = outputs[0] if d == 1 else self.concat(outputs, 2)
        last = self.one("move", [y], [d, b, hidden], fn="slice")
        return y, last

    @contextmanager
    def within(self, scope: str, at: str) -> Iterator[None]:
        """Ops inside belong to module `scope` and to the source op `at`."""
        before = self.scope, self.at
        self.scope, self.at = scope, at
        try:
            yield
        finally:
            self.scope, self.at = before


def _times(factor: int, dim: str) -> str:
    return dim if factor == 1 else f"{factor}*{dim}"


def _reduce_data(fn: str, data: Data) -> Any:
    items = list(data.reshape(-1))
    if not items or (fn in ("max", "min") and any(isinstance(i, Expr) for i in items)):
        return None
    if fn == "prod":
        return product(items)
    if fn == "sum":
        return sum(items)
    return max(items) if fn == "max" else min(items)
