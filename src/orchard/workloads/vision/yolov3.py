"""YOLOv3 and its tiny form (arXiv:1804.02767; cfg/yolov3.cfg and cfg/yolov3-tiny.cfg of pjreddie/darknet), norms merged."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

OUT = 3 * (80 + 5)
"""Three boxes per place: 80 classes of COCO, four sides, whether there is anything."""


def yolov3(name: str, height: int, width: int) -> Graph:
    n = Net(name, height, width)
    x = _conv(n, n.image, 32, 3)
    levels = []
    for channels, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = _conv(n, x, channels, 3, 2)
        for _ in range(blocks):
            x = n.add(x, _conv(n, _conv(n, x, channels // 2), channels, 3))
        levels.append(x)
    outputs = []
    x = levels[-1]
    for half, skip in ((512, None), (256, levels[3]), (128, levels[2])):
        if skip is not None:
            x = n.concat(_doubled(n, _conv(n, x, half)), skip)
        for _ in range(2):
            x = _conv(n, _conv(n, x, half), 2 * half, 3)
        x = _conv(n, x, half)
        outputs.append(n.conv(_conv(n, x, 2 * half, 3), OUT))
    return n.build(*outputs)


def yolov3_tiny(name: str, height: int, width: int) -> Graph:
    n = Net(name, height, width)
    x = n.image
    for channels in (16, 32, 64, 128, 256):
        skip = x = _conv(n, x, channels, 3)
        x = n.pool(x, "max", 2, 2)
    x = n.pool(_conv(n, x, 512, 3), "max", 2, 1)
    x = _conv(n, _conv(n, x, 1024, 3), 256)
    coarse = n.conv(_conv(n, x, 512, 3), OUT)
    fine = n.concat(_doubled(n, _conv(n, x, 128)), skip)
    return n.build(coarse, n.conv(_conv(n, fine, 256, 3), OUT))


def _conv(n: Net, x: Tensor, out: int, kernel: int = 1, stride: int = 1) -> Tensor:
    return n.conv(x, out, kernel, stride, act="leaky_relu")


def _doubled(n: Net, x: Tensor) -> Tensor:
    h, w = (2 * int(s) for s in x.shape[2:])  # type: ignore[arg-type]
    return n.resize(x, h, w, "nearest")
