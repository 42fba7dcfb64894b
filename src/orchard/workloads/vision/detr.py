"""DETR (arXiv:2005.12872): a ResNet, a transformer over its last features, and a decoder with 100 learned queries."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.diffusion.attention import attention
from orchard.workloads.vision.net import Net
from orchard.workloads.vision.resnet import features

WIDTH, HEADS, INNER, LAYERS, QUERIES, CLASSES = 256, 8, 2048, 6, 100, 92
"""Classes of COCO and one for no object."""


def detr(name: str, height: int, width: int, *, depth: int) -> Graph:
    n = Net(name, height, width)
    with n.b.scope("backbone"):
        x = features(n, depth)
    x = n.tokens(n.conv(x, WIDTH))
    places = n.b.weight("places", (x.shape[1], WIDTH), part="constant")  # sines
    for layer in range(LAYERS):
        with n.b.scope(f"encoder.{layer}"):
            moved = n.add(x, places)
            x = n.layer_norm(n.add(x, _attend(n, moved, moved, x)))
            x = _feed(n, x)
    queries = n.b.weight("queries", (1, QUERIES, WIDTH), part="position_embedding")
    y = n.move(n.b.elementwise("sub", queries, queries), (x.shape[0], QUERIES, WIDTH), "expand")  # zeros at first
    keys = n.add(x, places)
    for layer in range(LAYERS):
        with n.b.scope(f"decoder.{layer}"):
            moved = n.add(y, queries)
            y = n.layer_norm(n.add(y, _attend(n, moved, moved, y)))
            y = n.layer_norm(n.add(y, _attend(n, n.add(y, queries), keys, x)))
            y = _feed(n, y)
    with n.b.scope("head"):
        y = n.layer_norm(y)
        box = n.dense(n.dense(n.dense(y, WIDTH, act="relu"), WIDTH, act="relu"), 4, act="sigmoid")
        return n.build(n.dense(y, CLASSES), box)


def _attend(n: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return n.dense(attention(n, n.dense(q, WIDTH), n.dense(k, WIDTH), n.dense(v, WIDTH), HEADS), WIDTH)


def _feed(n: Net, x: Tensor) -> Tensor:
    return n.layer_norm(n.add(x, n.dense(n.dense(x, INNER, act="relu"), WIDTH)))
