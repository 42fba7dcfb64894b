"""YOLOv8 detectors (github.com/ultralytics/ultralytics, cfg/models/v8/yolov8.yaml), norms merged.

Outputs: boxes and scores of every place of three grids; suppression of overlapping boxes is left to the host.
"""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

# factors of depth and width, most channels
SIZES = {
    "n": (1 / 3, 0.25, 1024), "s": (1 / 3, 0.5, 1024), "m": (2 / 3, 0.75, 768), "l": (1.0, 1.0, 512),
    "x": (1.0, 1.25, 512),
}  # fmt: skip
CLASSES, BINS = 80, 16
"""Classes of COCO; bins of the distribution of each side of a box."""


def yolov8(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    deeper, wider, most = SIZES[size]
    c = [8 * -(-int(min(v, most) * wider) // 8) for v in (64, 128, 256, 512, 1024)]
    few, many = round(3 * deeper), round(6 * deeper)
    x = _conv(n, _conv(n, n.image, c[0], 3, 2), c[1], 3, 2)
    x = _conv(n, _split(n, x, c[1], few, True), c[2], 3, 2)
    third = _split(n, x, c[2], many, True)
    fourth = _split(n, _conv(n, third, c[3], 3, 2), c[3], many, True)
    fifth = _pyramid(n, _split(n, _conv(n, fourth, c[4], 3, 2), c[4], few, True), c[4])
    up4 = _split(n, n.concat(_grown(n, fifth, fourth), fourth), c[3], few, False)
    out3 = _split(n, n.concat(_grown(n, up4, third), third), c[2], few, False)
    out4 = _split(n, n.concat(_conv(n, out3, c[2], 3, 2), up4), c[3], few, False)
    out5 = _split(n, n.concat(_conv(n, out4, c[3], 3, 2), fifth), c[4], few, False)
    return _detect(n, (out3, out4, out5))


def _conv(n: Net, x: Tensor, out: int, kernel: int = 1, stride: int = 1) -> Tensor:
    return n.conv(x, out, kernel, stride, act="silu")


def _grown(n: Net, x: Tensor, like: Tensor) -> Tensor:
    h, w = (int(s) for s in like.shape[2:])  # type: ignore[arg-type]
    return n.resize(x, h, w, "nearest")


def _split(n: Net, x: Tensor, out: int, count: int, residual: bool) -> Tensor:
    """C2f: half of the channels pass through bottlenecks; every step of the way goes to the output."""
    half = out // 2
    parts = list(n.slices(_conv(n, x, out), half, half))
    for _ in range(count):
        y = _conv(n, _conv(n, parts[-1], half, 3), half, 3)
        parts.append(n.add(parts[-1], y) if residual else y)
    return _conv(n, n.concat(*parts), out)


def _pyramid(n: Net, x: Tensor, out: int) -> Tensor:
    """SPPF: three maxima over 5x5, one after the other, beside their input."""
    parts = [_conv(n, x, out // 2)]
    for _ in range(3):
        parts.append(n.pool(parts[-1], "max", 5, 1))
    return _conv(n, n.concat(*parts), out)


def _detect(n: Net, levels: tuple[Tensor, ...]) -> Graph:
    first = int(levels[0].shape[1])  # type: ignore[arg-type]
    wide, classes = max(16, first // 4, 4 * BINS), max(first, min(CLASSES, 100))
    boxes, scores = [], []
    for x in levels:
        batch, _, h, w = x.shape
        places = int(h) * int(w)  # type: ignore[arg-type]
        box = n.conv(_conv(n, _conv(n, x, wide, 3), wide, 3), 4 * BINS)
        score = n.conv(_conv(n, _conv(n, x, classes, 3), classes, 3), CLASSES)
        boxes.append(n.b.view(box, (batch, 4 * BINS, places)))
        scores.append(n.b.view(score, (batch, CLASSES, places)))
    box, score = n.concat(*boxes, axis=2), n.concat(*scores, axis=2)
    return n.build(_decoded(n, n.move(box, box.shape, "transpose")), n.act(score, "sigmoid"))


def _decoded(n: Net, x: Tensor) -> Tensor:
    """The mean bin of each side; a box from its distances to the place, times the stride of the grid."""
    batch, _, places = x.shape
    sides = n.b.softmax(n.b.view(x, (batch, 4, places, BINS)))
    w = n.b.weight("bins", (BINS,), part="constant")
    distance = n.b.einsum("b s p k, k -> b s p", sides, w, name="mean_bin")
    anchors = n.b.weight("anchors", (4, places), part="constant")
    return n.b.elementwise("affine", distance, anchors, n.b.weight("strides", (1, places), part="constant"))
