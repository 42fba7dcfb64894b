"""Small torch definitions of families that `transformers` has no class for: the blocks their papers define, few and narrow.

Widths and depths are our own; kernels, branches, order and kinds of layers are the papers'.
"""

import torch
from nets import Add, Squeeze, conv, inverted
from torch import nn
from torch.nn import functional as F

# ---- MobileNetV4 (arXiv:2404.10518): universal inverted bottlenecks, and attention with one key and value head


def universal(c: int, before: int, between: int, widen: int = 4) -> nn.Module:
    """Optional depthwise, expand, optional depthwise, project."""
    layers = [conv(c, c, before, groups=c, act=None)] if before else []
    layers += [conv(c, widen * c, 1)] + ([conv(widen * c, widen * c, between, groups=widen * c)] if between else [])
    return Add(nn.Sequential(*layers, conv(widen * c, c, 1, act=None)))


class MultiQuery(nn.Module):
    """Heads share keys and values, which a strided depthwise convolution has made fewer."""

    def __init__(self, c: int, heads: int = 4, width: int = 16):
        super().__init__()
        self.heads, self.width = heads, width
        self.q, self.o = nn.Conv2d(c, heads * width, 1, bias=False), nn.Conv2d(heads * width, c, 1, bias=False)
        self.fewer = conv(c, c, 3, 2, c, None)
        self.k, self.v = nn.Conv2d(c, width, 1, bias=False), nn.Conv2d(c, width, 1, bias=False)

    def forward(self, x):
        b, _, h, w = x.shape
        q = self.q(x).reshape(b, self.heads, self.width, h * w).transpose(2, 3)
        small = self.fewer(x)
        k, v = (f(small).reshape(b, 1, self.width, h * w // 4).transpose(2, 3) for f in (self.k, self.v))
        y = torch.softmax(q @ k.transpose(2, 3) * self.width**-0.5, -1) @ v
        return x + self.o(y.transpose(2, 3).reshape(b, self.heads * self.width, h, w))


def mobilenet_v4() -> nn.Module:
    blocks = [universal(32, 5, 5), universal(32, 3, 0), universal(32, 0, 3), universal(32, 0, 0), MultiQuery(32)]
    head = [conv(32, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(conv(3, 16, 3, 2), conv(16, 64, 3, 2), conv(64, 32, 1), *blocks, *head)


# ---- MobileOne (arXiv:2206.04040), as trained: parallel branches that reparameterisation merges later


class Branches(nn.Module):
    """Several k x k branches, a 1x1 branch and a batch norm, summed."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, groups: int, many: int):
        super().__init__()
        self.many = nn.ModuleList(conv(c_in, c_out, kernel, stride, groups, None) for _ in range(many))
        self.scale = conv(c_in, c_out, 1, stride, groups, None) if kernel > 1 else None
        self.skip = nn.BatchNorm2d(c_in) if c_in == c_out and stride == 1 else None

    def forward(self, x):
        y = sum(branch(x) for branch in self.many)
        y = y if self.scale is None else y + self.scale(x)
        return torch.relu(y if self.skip is None else y + self.skip(x))


def mobileone() -> nn.Module:
    layers, c = [Branches(3, 16, 3, 2, 1, 1)], 16
    for width, stride in ((32, 2), (32, 1), (64, 2)):
        layers += [Branches(c, c, 3, stride, c, 2), Branches(c, width, 1, 1, 1, 2)]
        c = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


# ---- FastViT (arXiv:2303.14189): RepMixer, convolutional feed-forward, conditional positions, attention at the end


class RepMixer(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.norm, self.mixer = nn.BatchNorm2d(c), Branches(c, c, 3, 1, c, 1)
        self.scale = nn.Parameter(torch.rand(c, 1, 1))

    def forward(self, x):
        return x + self.scale * (self.mixer(x) - self.norm(x))


def conv_ffn(c: int) -> nn.Module:
    return Add(nn.Sequential(conv(c, c, 7, groups=c, act=None), nn.Conv2d(c, 3 * c, 1), nn.GELU(), nn.Conv2d(3 * c, c, 1)))


class ImageAttention(nn.Module):
    """Batch norm, heads over pixels, projection, residual."""

    def __init__(self, c: int, heads: int = 4):
        super().__init__()
        self.heads, self.norm = heads, nn.BatchNorm2d(c)
        self.qkv, self.out = nn.Linear(c, 3 * c, bias=False), nn.Linear(c, c)

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).reshape(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = y.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.out(y).transpose(1, 2).reshape(b, c, h, w)


def fastvit() -> nn.Module:
    first = [conv(3, 32, 3, 2, act=nn.GELU), conv(32, 32, 3, 2, 32, nn.GELU), RepMixer(32), conv_ffn(32)]
    second = [conv(32, 64, 7, 2, 32, None), Add(nn.Conv2d(64, 64, 7, padding=3, groups=64)), ImageAttention(64), conv_ffn(64)]
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


# ---- EfficientFormer (arXiv:2206.01191): pools as mixers, then tokens with attention biases


class PoolMixer(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.scale = nn.Parameter(torch.rand(c, 1, 1))
        self.mlp = nn.Sequential(conv(c, 4 * c, 1, act=nn.GELU), conv(4 * c, c, 1, act=None))

    def forward(self, x):
        x = x + self.scale * (self.pool(x) - x)
        return x + self.mlp(x)


class BiasedAttention(nn.Module):
    """LeViT's attention: a learned bias per head and offset, values four times as wide as keys."""

    def __init__(self, c: int, side: int, heads: int = 4, key: int = 16, value: int = 32):
        super().__init__()
        self.heads, self.key, self.value = heads, key, value
        self.norm = nn.LayerNorm(c)
        self.qkv, self.out = nn.Linear(c, heads * (2 * key + value)), nn.Linear(heads * value, c)
        at = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        offset = (at[:, None] - at[None]).abs()
        self.biases = nn.Parameter(torch.rand(heads, side * side))
        self.register_buffer("places", offset[..., 0] * side + offset[..., 1], persistent=False)

    def forward(self, x):
        b, n, _ = x.shape
        y = self.qkv(self.norm(x)).reshape(b, n, self.heads, 2 * self.key + self.value).permute(0, 2, 1, 3)
        q, k, v = y.split([self.key, self.key, self.value], dim=3)
        y = (q @ k.transpose(2, 3) * self.key**-0.5 + self.biases[:, self.places]).softmax(-1) @ v
        return x + self.out(y.transpose(1, 2).reshape(b, n, self.heads * self.value))


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


def mlp(c: int) -> nn.Module:
    return Add(nn.Sequential(nn.LayerNorm(c), nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c)))


def efficientformer() -> nn.Module:
    stem = [conv(3, 16, 3, 2), conv(16, 32, 3, 2), PoolMixer(32), conv(32, 64, 3, 2, act=None), PoolMixer(64)]
    return nn.Sequential(*stem, Tokens(), BiasedAttention(64, 8), mlp(64), nn.LayerNorm(64), nn.Linear(64, 10))


# ---- RepViT (arXiv:2307.09283): token mixer of two depthwise branches with squeeze, channel mixer


def repvit_block(c: int, squeeze: bool) -> nn.Module:
    mixer = [Branches(c, c, 3, 1, c, 1), *([Gate(c)] if squeeze else [])]
    return nn.Sequential(*mixer, Add(nn.Sequential(conv(c, 2 * c, 1, act=nn.GELU), conv(2 * c, c, 1, act=None))))


class Gate(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.down, self.up = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


def repvit() -> nn.Module:
    stem = [conv(3, 16, 3, 2, act=nn.GELU), conv(16, 32, 3, 2, act=None), repvit_block(32, True), repvit_block(32, False)]
    down = [conv(32, 32, 3, 2, 32, None), conv(32, 64, 1, act=None), repvit_block(64, True)]
    return nn.Sequential(*stem, *down, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


# ---- a YOLO-style detector: CSP stages, pyramid pooling, two scales, boxes as distributions


class Csp(nn.Module):
    """Half of the channels through bottlenecks; all intermediate results are concatenated (C2f)."""

    def __init__(self, c_in: int, c: int, many: int = 2):
        super().__init__()
        self.first, self.last = conv(c_in, c, 1, act=nn.SiLU), conv(c // 2 * (2 + many), c, 1, act=nn.SiLU)
        half = c // 2
        self.inner = nn.ModuleList(
            Add(nn.Sequential(conv(half, half, 3, act=nn.SiLU), conv(half, half, 3, act=nn.SiLU))) for _ in range(many)
        )

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        for block in self.inner:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """SPPF: the same pool three times, all results concatenated."""

    def __init__(self, c: int):
        super().__init__()
        self.first, self.last, self.pool = conv(c, c // 2, 1, act=nn.SiLU), conv(2 * c, c, 1, act=nn.SiLU), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    BINS, CLASSES = 8, 5

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2, act=nn.SiLU), conv(16, 32, 3, 2, act=nn.SiLU), Csp(32, 32))
        self.deep = nn.Sequential(conv(32, 64, 3, 2, act=nn.SiLU), Csp(64, 64), Pyramid(64))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = Csp(96, 32)
        self.boxes = nn.ModuleList(nn.Conv2d(c, 4 * self.BINS, 1) for c in (32, 64))
        self.classes = nn.ModuleList(nn.Conv2d(c, self.CLASSES, 1) for c in (32, 64))
        self.expect = nn.Conv2d(self.BINS, 1, 1, bias=False)

    def forward(self, x):
        shallow = self.stem(x)
        deep = self.deep(shallow)
        scales = (self.merge(torch.cat([self.up(deep), shallow], 1)), deep)
        boxes = torch.cat([f(y).flatten(2) for f, y in zip(self.boxes, scales)], 2)
        scores = torch.cat([f(y).flatten(2) for f, y in zip(self.classes, scales)], 2).sigmoid()
        n = boxes.shape[2]
        boxes = self.expect(boxes.reshape(1, 4, self.BINS, n).transpose(1, 2).softmax(1)).reshape(1, 4, n)
        return torch.cat([boxes, scores], 1)


# ---- U-Net of Stable Diffusion (arXiv:2112.10752; XL: arXiv:2307.01952, deeper transformers at fewer resolutions)


class Residual(nn.Module):
    def __init__(self, c_in: int, c: int, time: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, c_in), nn.GroupNorm(8, c)])
        self.convs = nn.ModuleList([nn.Conv2d(c_in, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)])
        self.time, self.skip = nn.Linear(time, c) if time else None, nn.Conv2d(c_in, c, 1) if c_in != c else nn.Identity()

    def forward(self, x, t=None):
        y = self.convs[0](F.silu(self.norms[0](x)))
        y = y if self.time is None else y + self.time(F.silu(t))[:, :, None, None]
        return self.skip(x) + self.convs[1](F.silu(self.norms[1](y)))


class Heads(nn.Module):
    """Attention of x to a context (itself without one)."""

    def __init__(self, c: int, context: int, heads: int = 4):
        super().__init__()
        self.heads, self.q = heads, nn.Linear(c, c, bias=False)
        self.k, self.v, self.o = nn.Linear(context, c, bias=False), nn.Linear(context, c, bias=False), nn.Linear(c, c)

    def forward(self, x, context=None):
        context = x if context is None else context
        q, k, v = (f(y).unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for f, y in ((self.q, x), (self.k, context), (self.v, context)))  # fmt: skip
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Crossing(nn.Module):
    """Self-attention, attention to the text, gated feed-forward; `depth` times over pixels as tokens."""

    def __init__(self, c: int, text: int, depth: int):
        super().__init__()
        self.norm, self.inp, self.out = nn.GroupNorm(8, c), nn.Linear(c, c), nn.Linear(c, c)
        self.layers = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(c), Heads(c, c), nn.LayerNorm(c), Heads(c, text), nn.LayerNorm(c),
                           nn.Linear(c, 8 * c), nn.Linear(4 * c, c)])
            for _ in range(depth)
        )  # fmt: skip

    def forward(self, x, text):
        b, c, h, w = x.shape
        y = self.inp(self.norm(x).flatten(2).transpose(1, 2))
        for n1, own, n2, cross, n3, up, down in self.layers:
            y = y + own(n1(y))
            y = y + cross(n2(y), text)
            value, gate = up(n3(y)).chunk(2, -1)
            y = y + down(value * F.gelu(gate))
        return x + self.out(y).transpose(1, 2).reshape(b, c, h, w)


class UNet(nn.Module):
    """Two resolutions; `depths` are the transformer layers at each (0: none, as XL has at the first)."""

    def __init__(self, depths: tuple[int, int], text: int):
        super().__init__()
        t = 64
        self.time = nn.Sequential(nn.Linear(16, t), nn.SiLU(), nn.Linear(t, t))
        self.inp = nn.Conv2d(4, 32, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 4, 3, padding=1))
        self.down, self.up = nn.Conv2d(32, 32, 3, 2, 1), nn.Conv2d(64, 64, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(a, b, t) for a, b in ((32, 32), (32, 64), (64, 64), (128, 64), (96, 32)))
        self.text = nn.ModuleList(
            Crossing(c, text, d) if d else nn.Identity() for c, d in ((32, depths[0]), (64, depths[1]), (64, depths[1]))
        )

    def mixed(self, i, x, text):
        return self.text[i](x, text) if isinstance(self.text[i], Crossing) else x

    def forward(self, x, t, text):
        t = self.time(t)
        x = self.inp(x)
        shallow = self.mixed(0, self.blocks[0](x, t), text)
        deep = self.mixed(1, self.blocks[1](self.down(shallow), t), text)
        y = self.blocks[3](torch.cat([self.blocks[2](deep, t), deep], 1), t)
        y = self.up(F.interpolate(self.mixed(2, y, text), scale_factor=2.0, mode="nearest"))
        return self.out(self.blocks[4](torch.cat([y, shallow], 1), t))


def unet() -> nn.Module:
    return UNet((1, 1), 48)


def unet_xl() -> nn.Module:
    return UNet((0, 3), 96)


# ---- MM-DiT of Stable Diffusion 3 (arXiv:2403.03206): two streams, one attention, adaptive norms


class Joint(nn.Module):
    """Both streams attend to both; the last block has no further use of the text."""

    def __init__(self, c: int, last: bool, heads: int = 4):
        super().__init__()
        self.heads, kept = heads, 1 if last else 2
        self.change = nn.ModuleList([nn.Linear(c, 6 * c), nn.Linear(c, 2 * c if last else 6 * c)])
        self.qkv = nn.ModuleList(nn.Linear(c, 3 * c) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(c, c) for _ in range(kept))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(c, 4 * c), nn.GELU(approximate="tanh"), nn.Linear(4 * c, c)) for _ in range(kept)
        )
        self.norm = nn.LayerNorm(c, elementwise_affine=False)

    def forward(self, streams, t):
        changes = [f(F.silu(t))[:, None].split(t.shape[-1], -1) for f in self.change]
        parts = []
        for x, c, qkv in zip(streams, changes, self.qkv):
            parts.append(qkv(self.norm(x) * (1 + c[0]) + c[1]).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4))
        q, k, v = torch.cat(parts, 3).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        mixed = y.split([x.shape[1] for x in streams], 1)
        result = []
        for x, y, c, out, mlp_ in zip(streams, mixed, changes, self.out, self.mlp):
            x = x + c[2] * out(y)
            result.append(x + c[5] * mlp_(self.norm(x) * (1 + c[3]) + c[4]))
        return result


class DiT(nn.Module):
    """Patches of 2 x 2, two joint blocks, back to pixels."""

    def __init__(self, c: int = 64, text: int = 48):
        super().__init__()
        self.patch, self.text, self.time = nn.Conv2d(4, c, 2, 2), nn.Linear(text, c), nn.Linear(16, c)
        self.positions = nn.Parameter(torch.rand(1, 64, c))
        self.blocks = nn.ModuleList([Joint(c, last=False), Joint(c, last=True)])
        self.norm, self.out = nn.LayerNorm(c), nn.Linear(c, 16)

    def forward(self, x, t, text):
        streams = [self.patch(x).flatten(2).transpose(1, 2) + self.positions, self.text(text)]
        t = self.time(t)
        for block in self.blocks:
            streams = block(streams, t)
        y = self.out(self.norm(streams[0])).reshape(1, 8, 8, 2, 2, 4)
        return y.permute(0, 5, 1, 3, 2, 4).reshape(1, 4, 16, 16)


# ---- decoder of the auto-encoder


class PixelAttention(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.norm, self.attend = nn.GroupNorm(8, c), Heads(c, c, heads=1)

    def forward(self, x):
        y = self.attend(self.norm(x).flatten(2).transpose(1, 2))
        return x + y.transpose(1, 2).reshape(x.shape)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.middle = nn.Conv2d(4, 64, 3, padding=1), nn.ModuleList([Residual(64, 64, 0), PixelAttention(64)])
        self.blocks = nn.ModuleList([Residual(64, 64, 0), Residual(64, 32, 0)])
        self.ups = nn.ModuleList([nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)])
        self.out = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 3, 3, padding=1))

    def forward(self, x):
        x = self.middle[1](self.middle[0](self.inp(x)))
        for block, up in zip(self.blocks, self.ups):
            x = up(F.interpolate(block(x), scale_factor=2.0, mode="nearest"))
        return self.out(x)


# ---- MobileNetV3, narrow: squeeze between, hard swish


def mobilenet_v3() -> nn.Module:
    hard = nn.Hardswish
    blocks = [inverted(16, 48, 24, 3, 2, False, nn.ReLU), inverted(24, 72, 24, 5, 1, True, hard), Squeeze(24)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 64), hard(), nn.Linear(64, 10)]
    return nn.Sequential(conv(3, 16, 3, 2, act=hard), *blocks, *head)


# ---- recurrent


class Recurrent(nn.Module):
    def __init__(self, kind: type):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(50, 24), kind(24, 32, 2, batch_first=True), nn.Linear(32, 50)

    def forward(self, input_ids):
        return self.head(self.layer(self.embed(input_ids))[0])
