"""Built-in vision networks: name, builder, standard input and the published parameters and multiply-accumulates.

Published figures are those of the papers or of the authors' tables; a test holds each network to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from orchard.ir import Graph
from orchard.workloads.errors import ModelError
from orchard.workloads.vision.convnext import convnext
from orchard.workloads.vision.densenet import densenet
from orchard.workloads.vision.efficientformer import efficientformer
from orchard.workloads.vision.efficientnet import efficientnet_b0
from orchard.workloads.vision.fastvit import fastvit
from orchard.workloads.vision.mobilenet import mobilenet_v1, mobilenet_v2, mobilenet_v3
from orchard.workloads.vision.mobilenet_v4 import mobilenet_v4
from orchard.workloads.vision.mobileone import mobileone
from orchard.workloads.vision.mobilevit_v2 import mobilevit_v2
from orchard.workloads.vision.poolformer import poolformer
from orchard.workloads.vision.repvit import repvit
from orchard.workloads.vision.resnet import resnet
from orchard.workloads.vision.starnet import starnet
from orchard.workloads.vision.swiftformer import swiftformer
from orchard.workloads.vision.vgg import vgg


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network. `params_m`, `gmacs`: published figures at the standard `size` of the image (height and width)."""

    name: str
    family: str
    build: Callable[..., Graph]
    size: int
    params_m: float
    gmacs: float
    options: Mapping[str, Any] = field(default_factory=dict)


def _all() -> dict[str, Network]:
    found: dict[str, Network] = {}

    def add(
        name: str, family: str, build: Callable[..., Graph], side: int, params: float, gmacs: float, **options: Any
    ) -> None:  # fmt: skip
        found[name] = Network(
            name=name, family=family, build=build, size=side, params_m=params, gmacs=gmacs, options=options
        )

    for depth, params, gmacs in (
        (18, 11.69, 1.814), (34, 21.80, 3.664), (50, 25.56, 4.089), (101, 44.55, 7.80),
        (152, 60.19, 11.51),
    ):  # fmt: skip
        add(f"resnet{depth}", "resnet", resnet, 224, params, gmacs, depth=depth)
    for depth, params, gmacs in ((11, 132.86, 7.61), (13, 133.05, 11.31), (16, 138.36, 15.47), (19, 143.67, 19.63)):
        add(f"vgg{depth}", "vgg", vgg, 224, params, gmacs, depth=depth)
    for depth, params, gmacs in ((121, 7.98, 2.834), (161, 28.68, 7.73), (169, 14.15, 3.36), (201, 20.01, 4.29)):
        add(f"densenet{depth}", "densenet", densenet, 224, params, gmacs, depth=depth)
    add("mobilenet-v1-1.0", "mobilenet", mobilenet_v1, 224, 4.23, 0.569)
    for width, params, gmacs in (
        (0.5, 1.97, 0.097), (1.0, 3.50, 0.301), (1.3, 5.37, 0.509), (1.4, 6.11, 0.582),
        (1.5, 6.8, 0.67), (2.0, 11.26, 1.14),
    ):  # fmt: skip
        add(f"mobilenet-v2-{width}", "mobilenet", mobilenet_v2, 224, params, gmacs, multiplier=width)
    for width, params, gmacs in ((0.5, 2.7, 0.069), (0.75, 4.0, 0.155), (1.0, 5.48, 0.217)):
        add(f"mobilenet-v3-large-{width}", "mobilenet", mobilenet_v3, 224, params, gmacs, large=True, multiplier=width)
    add("mobilenet-v3-small-1.0", "mobilenet", mobilenet_v3, 224, 2.54, 0.0565, large=False)
    for size, side, params, gmacs in (("s", 224, 3.77, 0.19), ("m", 256, 9.72, 1.1), ("l", 384, 32.6, 6.4)):
        add(f"mobilenet-v4-conv-{size}", "mobilenet-v4", mobilenet_v4, side, params, gmacs, size=size)
    add("efficientnet-b0", "efficientnet", efficientnet_b0, 224, 5.29, 0.39)
    for size, params, gmacs in (
        ("s0", 2.08, 0.275), ("s1", 4.76, 0.825), ("s2", 7.81, 1.299), ("s3", 10.08, 1.896),
        ("s4", 14.84, 2.978),
    ):  # fmt: skip
        add(f"mobileone-{size}", "mobileone", mobileone, 224, params, gmacs, size=size)
    for size, params, gmacs in (
        ("m0.9", 5.1, 0.83), ("m1.0", 6.8, 1.12), ("m1.1", 8.2, 1.3), ("m1.5", 14.0, 2.3),
        ("m2.3", 22.9, 4.5),
    ):  # fmt: skip
        add(f"repvit-{size}", "repvit", repvit, 224, params, gmacs, size=size)
    for size, params, gmacs in (
        ("t8", 4.03, 0.7), ("t12", 7.55, 1.4), ("s12", 9.47, 1.8), ("sa12", 11.58, 1.9),
        ("sa24", 21.55, 3.8), ("sa36", 31.53, 5.6), ("ma36", 44.07, 7.8),
    ):  # fmt: skip
        add(f"fastvit-{size}", "fastvit", fastvit, 256, params, gmacs, size=size)
    for size, params, gmacs in (("xs", 3.5, 0.6), ("s", 6.1, 1.0), ("l1", 12.1, 1.6), ("l3", 28.5, 4.0)):
        add(f"swiftformer-{size}", "swiftformer", swiftformer, 224, params, gmacs, size=size)
    for size, params, gmacs in (("l1", 12.3, 1.3), ("l3", 31.3, 3.9), ("l7", 82.1, 10.2)):
        add(f"efficientformer-{size}", "efficientformer", efficientformer, 224, params, gmacs, size=size)
    for size, params, gmacs in (("s12", 11.9, 1.8), ("s24", 21.4, 3.4)):
        add(f"poolformer-{size}", "poolformer", poolformer, 224, params, gmacs, size=size)
    for size, params, gmacs in (("t", 28.59, 4.46), ("s", 50.22, 8.69), ("b", 88.59, 15.36), ("l", 197.77, 34.37)):
        add(f"convnext-{size}", "convnext", convnext, 224, params, gmacs, size=size)
    for size, params, gmacs in (("s1", 2.87, 0.425), ("s2", 3.68, 0.547), ("s3", 5.75, 0.757), ("s4", 7.48, 1.075)):
        add(f"starnet-{size}", "starnet", starnet, 224, params, gmacs, size=size)
    add("mobilevit-v2-1.0", "mobilevit", mobilevit_v2, 256, 4.9, 1.8)
    return found


NETWORKS: Mapping[str, Network] = _all()


def network(name: str) -> Network:
    """Raises ModelError with the nearest names for an unknown one."""
    from orchard.units import did_you_mean

    found = NETWORKS.get(name.lower())
    if found is None:
        raise ModelError(f"network {name[:80]!r} is not known{did_you_mean(name, NETWORKS)}")
    return found


@lru_cache(maxsize=128)
def build_network(name: str, height: int | None = None, width: int | None = None) -> Graph:
    """The graph of a built-in network at an image size (default: its own); symbol B."""
    found = network(name)
    height = height or found.size
    return found.build(found.name, height, width or height, **found.options)
