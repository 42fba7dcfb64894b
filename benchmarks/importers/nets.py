"""Torch definitions of well-known image networks that `transformers` does not have, written from their papers.

Each returns a module for 1,000 classes and pictures of 224 x 224, with the layers that set MACs and parameters.
"""

import torch
from torch import nn


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: type | None = nn.ReLU) -> nn.Sequential:
    """Convolution without bias, batch norm, activation."""
    layers = [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Add(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


# ---- AlexNet (arXiv:1404.5997, one tower)


def alexnet() -> nn.Module:
    c, pool = nn.Conv2d, nn.MaxPool2d(3, 2)
    features = [
        c(3, 64, 11, 4, 2), nn.ReLU(), pool, c(64, 192, 5, padding=2), nn.ReLU(), pool, c(192, 384, 3, padding=1), nn.ReLU(),
        c(384, 256, 3, padding=1), nn.ReLU(), c(256, 256, 3, padding=1), nn.ReLU(), pool,
    ]  # fmt: skip
    head = [nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*features, nn.Flatten(), *head)


# ---- SqueezeNet 1.1 (arXiv:1602.07360 and its repository)


class Fire(nn.Module):
    """1x1 squeeze, then 1x1 and 3x3 side by side."""

    def __init__(self, c_in: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, squeeze, 1)
        self.one = nn.Conv2d(squeeze, expand, 1)
        self.three = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        y = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(y)), torch.relu(self.three(y))], 1)


def squeezenet() -> nn.Module:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, Fire(64, 16, 64), Fire(128, 16, 64), pool, Fire(128, 32, 128),
        Fire(256, 32, 128), pool, Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


# ---- ShuffleNet V2 1.0x (arXiv:1807.11164, table 5)


class Shuffle(nn.Module):
    """Half of the channels pass (or are reduced, at stride 2), the other half is convolved; then channels interleave."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        half, self.stride = c_out // 2, stride
        from_c = c_in if stride > 1 else half
        self.side = nn.Sequential(conv(c_in, c_in, 3, 2, c_in, None), conv(c_in, half, 1)) if stride > 1 else None
        self.main = nn.Sequential(conv(from_c, half, 1), conv(half, half, 3, stride, half, None), conv(half, half, 1))

    def forward(self, x):
        left, right = (x, x) if self.side is not None else x.chunk(2, 1)
        y = torch.cat([left if self.side is None else self.side(left), self.main(right)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet() -> nn.Module:
    layers, c = [conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)], 24
    for width, blocks in ((116, 4), (232, 8), (464, 4)):
        for i in range(blocks):
            layers.append(Shuffle(c, width, 1 if i else 2))
            c = width
    return nn.Sequential(*layers, conv(c, 1024, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))


# ---- MobileNetV3-Large (arXiv:1905.02244, table 1)


class Squeeze(nn.Module):
    """Squeeze-and-excitation with a hard sigmoid; the middle is a quarter, rounded to eights."""

    def __init__(self, c: int):
        super().__init__()
        middle = max(8, (c // 4 + 4) // 8 * 8)
        middle += 8 if middle < 0.9 * c / 4 else 0
        self.down, self.up = nn.Conv2d(c, middle, 1), nn.Conv2d(middle, c, 1)

    def forward(self, x):
        scale = self.up(torch.relu(self.down(nn.functional.adaptive_avg_pool2d(x, 1))))
        return x * nn.functional.hardsigmoid(scale)


def inverted(c_in: int, c_mid: int, c_out: int, kernel: int, stride: int, se: bool, act: type) -> nn.Module:
    """Widen, depthwise, (squeeze), project; with a shortcut where the shape stays."""
    layers = [conv(c_in, c_mid, 1, act=act)] if c_mid != c_in else []
    layers += [conv(c_mid, c_mid, kernel, stride, c_mid, act), *([Squeeze(c_mid)] if se else []), conv(c_mid, c_out, 1, act=None)]
    body = nn.Sequential(*layers)
    return Add(body) if stride == 1 and c_in == c_out else body


V3_LARGE = [
    (3, 16, 16, False, nn.ReLU, 1), (3, 64, 24, False, nn.ReLU, 2), (3, 72, 24, False, nn.ReLU, 1), (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1), (5, 120, 40, True, nn.ReLU, 1), (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1), (3, 184, 80, False, nn.Hardswish, 1), (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1), (3, 672, 112, True, nn.Hardswish, 1), (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1), (5, 960, 160, True, nn.Hardswish, 1),
]  # fmt: skip


def mobilenet_v3() -> nn.Module:
    layers, c = [conv(3, 16, 3, 2, act=nn.Hardswish)], 16
    for kernel, middle, out, se, act, stride in V3_LARGE:
        layers.append(inverted(c, middle, out, kernel, stride, se, act))
        c = out
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers, conv(160, 960, 1, act=nn.Hardswish), *head)


# ---- MnasNet 1.0 (arXiv:1807.11626, the version without squeeze-and-excitation)


def mnasnet() -> nn.Module:
    layers, c = [conv(3, 32, 3, 2), conv(32, 32, 3, 1, 32), conv(32, 16, 1, act=None)], 16
    for kernel, stride, widen, out, blocks in (
        (3, 2, 3, 24, 3), (5, 2, 3, 40, 3), (5, 2, 6, 80, 3), (3, 1, 6, 96, 2), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
    ):  # fmt: skip
        for i in range(blocks):
            layers.append(inverted(c, c * widen, out, kernel, 1 if i else stride, False, nn.ReLU))
            c = out
    return nn.Sequential(*layers, conv(c, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


# ---- DenseNet-121 (arXiv:1608.06993, table 1)


class Dense(nn.Module):
    """x, and 32 new channels of norm-relu-1x1-norm-relu-3x3."""

    def __init__(self, c: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 128, 1, bias=False),
            nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 32, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


def densenet121() -> nn.Module:
    layers, c = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, blocks in enumerate((6, 12, 24, 16)):
        if stage:
            layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)]
            c //= 2
        for _ in range(blocks):
            layers.append(Dense(c))
            c += 32
    head = [nn.BatchNorm2d(c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 1000)]
    return nn.Sequential(*layers, *head)
