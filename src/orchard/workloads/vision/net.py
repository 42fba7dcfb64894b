"""What the vision networks are written in: convolutions, norms, pools and attention over a [B, C, H, W] tensor.

Networks are written in their inference form, as a phone runs them: batch norm is folded into the convolution before it (which
then has a bias), and re-parameterised branches are one convolution. Parameters therefore count one bias per output channel
where the training form has two batch-norm parameters: within 0.3 % of the published figures.
"""

from __future__ import annotations

from orchard.ir import Builder, Graph, Tensor

Pair = int | tuple[int, int]


class Net:
    """A builder with the vocabulary of vision papers. `B` is the batch, sizes of images are numbers.

    `image`: the tensor [B, channels, height, width] that comes in, called `source`.
    """

    def __init__(
        self, name: str, height: int = 224, width: int = 224, channels: int = 3, source: str = "image"
    ) -> None:
        self.b = Builder(name, symbols=("B",))
        self.image = self.b.input(source, (self.b.sym("B"), channels, height, width))

    def conv(
        self, x: Tensor, out: int, kernel: Pair = 1, stride: int = 1, *, groups: int = 1, bias: bool = True,
        act: str = "", valid: bool = False, name: str = "conv", shared: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """A convolution, padded so that size / stride is kept (not when `valid`), with bias and activation.

        `shared`: the weight of an earlier depthwise convolution, where a network applies one several times.
        """
        batch, c = x.shape[0], _int(x.shape[1])
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        height, width = (_out(_int(n), k, stride, valid) for n, k in zip(x.shape[2:], (kh, kw)))
        window = f"({stride}*p+r) ({stride}*q+s)"
        name = self.b._fresh(name)
        if kh == kw == stride == 1 and groups == 1:
            y = self.b.einsum("b c p q, m c -> b m p q", x, self._weight(f"{name}_w", (out, c)), name=name)
        elif groups == c == out:
            w = shared or self._weight(f"{name}_w", (c, kh, kw))
            y = self._op([x, w], (batch, out, height, width), f"b c {window}, c r s -> b c p q", name)
        elif groups == 1:
            w = self._weight(f"{name}_w", (out, c, kh, kw))
            y = self._op([x, w], (batch, out, height, width), f"b c {window}, m c r s -> b m p q", name)
        else:
            g = self.b.view(x, (batch, groups, c // groups, *x.shape[2:]))
            w = self._weight(f"{name}_w", (groups, out // groups, c // groups, kh, kw))
            spec = f"b g c {window}, g m c r s -> b g m p q"
            y = self._op([g, w], (batch, groups, out // groups, height, width), spec, name)
            y = self.b.view(y, (batch, out, height, width))
        if bias:
            y = self.b.elementwise("add", y, self._weight(f"{name}_b", (out, 1, 1), "bias"), name=f"{name}_bias")
        return self.act(y, act) if act else y

    def depthwise(self, x: Tensor, kernel: Pair, stride: int = 1, *, act: str = "", multiple: int = 1) -> Tensor:
        """A convolution per channel."""
        c = _int(x.shape[1])
        return self.conv(x, c * multiple, kernel, stride, groups=c, act=act, name="depthwise")

    def act(self, x: Tensor, fn: str) -> Tensor:
        return self.b.elementwise(fn, x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self.b.elementwise("add", x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return self.b.elementwise("mul", x, y)

    def scale(self, x: Tensor) -> Tensor:
        """Layer scale: one learned factor per channel."""
        c = x.shape[1] if len(x.shape) == 4 else x.shape[-1]
        shape = (c, 1, 1) if len(x.shape) == 4 else (c,)
        return self.mul(x, self._weight(self.b._fresh("layer_scale"), shape, "other"))

    def pool(self, x: Tensor, fn: str, kernel: int, stride: int, *, valid: bool = False) -> Tensor:
        shape = (*x.shape[:2], *(_out(_int(n), kernel, stride, valid) for n in x.shape[2:]))
        return self.b.op("pool", [x], [shape], attrs={"fn": fn, "kernel": (kernel, kernel), "stride": stride})[0]

    def global_pool(self, x: Tensor, *, keep: bool = True) -> Tensor:
        """The mean over the image: [B, C, 1, 1], or [B, C]."""
        shape = (*x.shape[:2], 1, 1) if keep else x.shape[:2]
        return self.b.op("reduce", [x], [shape], attrs={"fn": "mean", "axes": (2, 3)})[0]

    def slices(self, x: Tensor, *channels: int) -> tuple[Tensor, ...]:
        """Parts of the channels, in order; each is copied."""
        rest = x.shape[2:]
        return tuple(self.move(x, (x.shape[0], c, *rest), "slice") for c in channels)

    def resize(self, x: Tensor, height: int, width: int, fn: str = "bilinear") -> Tensor:
        """`fn`: nearest or bilinear."""
        return self.b.op("resize", [x], [(*x.shape[:2], height, width)], attrs={"fn": fn})[0]

    def upsample(self, x: Tensor, out: int, factor: int, *, groups: int = 1, act: str = "") -> Tensor:
        """A transposed convolution whose kernel is its stride: every output pixel comes from one input pixel."""
        batch, c, h, w = x.shape[0], _int(x.shape[1]), _int(x.shape[2]), _int(x.shape[3])
        name = self.b._fresh("upsample")
        if groups == c == out:
            weight, spec = self._weight(f"{name}_w", (c, factor, factor)), "b c p q, c u v -> b c p u q v"
        else:
            weight, spec = self._weight(f"{name}_w", (c, out, factor, factor)), "b c p q, c m u v -> b m p u q v"
        y = self._op([x, weight], (batch, out, h, factor, w, factor), spec, name)
        y = self.b.view(y, (batch, out, factor * h, factor * w))
        y = self.b.elementwise("add", y, self._weight(f"{name}_b", (out, 1, 1), "bias"), name=f"{name}_bias")
        return self.act(y, act) if act else y

    def heads(self, x: Tensor, heads: int) -> Tensor:
        """[B, C, H, W] -> [B, heads, C/heads, H*W]."""
        batch, c, h, w = x.shape
        return self.b.view(x, (batch, heads, _int(c) // heads, _int(h) * _int(w)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, bias: bool = False, talking: bool = False) -> Tensor:
        """Attention over [B, heads, dim, positions], channels first: [B, heads, value dim, query positions].

        `bias`: a position bias per head, unfolded from the few learned numbers per distance (so a constant, as files
        store it); `talking`: heads are mixed before and after the softmax.
        """
        heads, t, s = q.shape[1], q.shape[3], k.shape[3]
        scores = self.b.einsum("b g d t, b g d s -> b g t s", q, k, name="scores")
        if bias:
            table = self._weight(self.b._fresh("position_bias"), (heads, t, s), "constant")
            scores = self.b.elementwise("add", scores, table, name="position_add")
        scores = self._mixed_heads(scores) if talking else scores
        shares = self.b.softmax(scores)
        shares = self._mixed_heads(shares) if talking else shares
        return self.b.einsum("b g t s, b g e s -> b g e t", shares, v, name="values")

    def _mixed_heads(self, x: Tensor) -> Tensor:
        heads = x.shape[1]
        w = self._weight(self.b._fresh("talking_w"), (heads, heads))
        y = self.b.einsum("b g t s, h g -> b h t s", x, w, name="talking")
        return self.b.elementwise("add", y, self._weight(self.b._fresh("talking_b"), (heads, 1, 1), "bias"))

    def concat(self, *parts: Tensor, axis: int = 1) -> Tensor:
        size = sum(_int(p.shape[axis]) for p in parts)
        shape = tuple(size if i == axis else s for i, s in enumerate(parts[0].shape))
        return self.b.op("move", list(parts), [shape], name="concat", attrs={"fn": "concat"})[0]

    def move(self, x: Tensor, shape: tuple[object, ...], fn: str = "transpose") -> Tensor:
        return self.b.op("move", [x], [shape], name=fn, attrs={"fn": fn})[0]  # type: ignore[list-item]

    def squeeze_excite(
        self, x: Tensor, inner: int, *, act: str = "relu", gate: str = "sigmoid", bias: bool = True
    ) -> Tensor:
        s = self.conv(self.global_pool(x), inner, act=act, bias=bias)
        return self.mul(x, self.conv(s, _int(x.shape[1]), act=gate, bias=bias))

    def layer_norm(self, x: Tensor, *, last: bool = False) -> Tensor:
        """Over the channels of an image [B, C, H, W], over the last axis of anything else, or where `last` says so."""
        width = x.shape[1] if len(x.shape) == 4 and not last else x.shape[-1]
        parameters = [self._weight(self.b._fresh(f"norm_{k}"), (width,), "norm") for k in ("w", "b")]
        return self.b.norm("layernorm", x, *parameters)

    def group_norm(self, x: Tensor, groups: int) -> Tensor:
        """Mean and variance over a group of channels and all pixels; a scale and a shift per channel."""
        parameters = [self._weight(self.b._fresh(f"norm_{k}"), (x.shape[1],), "norm") for k in ("w", "b")]
        return self.b.norm("groupnorm", x, *parameters, groups=groups)

    def batch_norm(self, x: Tensor) -> Tensor:
        """A batch norm no convolution stands before: a scale and a shift per channel."""
        parameters = [self._weight(self.b._fresh(f"norm_{k}"), (x.shape[1],), "norm") for k in ("w", "b")]
        return self.b.norm("batchnorm", x, *parameters)

    def dense(self, x: Tensor, out: int, *, bias: bool = True, act: str = "") -> Tensor:
        """A linear layer over the last axis."""
        name = self.b._fresh("dense")
        y = self.b.linear(x, self._weight(f"{name}_w", (x.shape[-1], out)), name=name)
        if bias:
            y = self.b.elementwise("add", y, self._weight(f"{name}_b", (out,), "bias"), name=f"{name}_bias")
        return self.act(y, act) if act else y

    def tokens(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, H*W, C]."""
        batch, c, h, w = x.shape
        return self.b.view(self.move(x, (batch, h, w, c)), (batch, h * w, c))

    def image_of(self, x: Tensor, height: int, width: int) -> Tensor:
        """[B, H*W, C] -> [B, C, H, W]."""
        batch, _, c = x.shape
        return self.move(self.b.view(x, (batch, height, width, c)), (batch, c, height, width))

    def attention(
        self, x: Tensor, heads: int, key: int, value: int, *, qkv_bias: bool = True, position_bias: bool = False,
        out: int | None = None, mask: int = 0,
    ) -> Tensor:  # fmt: skip
        """Self-attention over tokens [B, T, C] with `key` and `value` dims per head, and its output projection.

        position_bias: a table of one value per head, query and key is added to the scores (a constant, see `attend`).
        mask: so many masks, one for each window of an image, are added too.
        """
        batch, t, c = x.shape
        width = heads * (2 * key + value)
        qkv = self.dense(x, width, bias=qkv_bias)
        q, k, v = self.b.split(
            qkv, (batch, t, heads, 1, key), (batch, t, heads, key), (batch, t, heads, value), name="qkv_split"
        )
        scores = self.b.einsum("b t g r d, b s g d -> b g r t s", q, k, name="scores")
        if position_bias:
            bias = self._weight(self.b._fresh("position_bias"), (heads, 1, t, t), "constant")
            scores = self.b.elementwise("add", scores, bias, name="position_add")
        if mask:
            scores = self._masked(scores, mask)
        y = self.b.einsum("b g r t s, b s g d -> b t g r d", self.b.softmax(scores), v, name="values")
        return self.dense(self.b.view(y, (batch, t, heads * value)), out or _int(c))

    def _masked(self, scores: Tensor, windows: int) -> Tensor:
        """Scores [B * windows, heads, 1, T, T] plus a constant of one mask per window."""
        rows, heads, one, t, s = scores.shape
        mask = self._weight(self.b._fresh("mask"), (windows, 1, one, t, s), "constant")
        each = self.b.view(scores, (self.b.sym("B"), windows, heads, one, t, s))
        masked = self.b.elementwise("add", each, mask, name="mask_add")
        return self.b.view(masked, (rows, heads, one, t, s))

    def classify(self, x: Tensor, classes: int = 1000) -> Graph:
        return self.build(self.dense(self.global_pool(x, keep=False), classes))

    def build(self, *outputs: Tensor) -> Graph:
        return self.b.build(list(outputs))

    def _weight(self, name: str, shape: tuple[object, ...], part: str = "conv") -> Tensor:
        return self.b.weight(name, shape, part=part)  # type: ignore[arg-type]

    def _op(self, inputs: list[Tensor], shape: tuple[object, ...], spec: str, name: str) -> Tensor:
        return self.b.op("einsum", inputs, [shape], name=name, attrs={"spec": spec})[0]  # type: ignore[list-item]


def round_channels(value: float, divisor: int = 8) -> int:
    """To a multiple of `divisor`, never more than 10 % down (the rule of the MobileNet papers)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _out(size: int, kernel: int, stride: int, valid: bool) -> int:
    return (size - kernel) // stride + 1 if valid else -(-size // stride)


def _int(size: object) -> int:
    assert isinstance(size, int), size
    return size
