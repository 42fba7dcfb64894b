"""Built-in networks with inputs of fixed size: name, builder, standard picture size and published counts.

The table is networks.csv. A builder is `module:function` below this package and is imported when its network is built.
Published parameters (millions) and multiply-accumulates (billions, at the standard size and batch 1) are kept as they are
printed, so that a comparison knows how many digits they have; SOURCES says where each comes from.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module, resources

from orchard.ir import Graph
from orchard.workloads.errors import ModelError

Option = int | float | str

SOURCES: Mapping[str, str] = {
    "timm": "huggingface/pytorch-image-models, results/benchmark-infer-*.csv (2024 and 2025 runs; batch norms counted in)",
    "timm-class": "the class of timm 1.0.31, re-parameterised where it can be, counted by torch.utils.flop_counter",
    "slim": "tensorflow/models, research/slim/nets/mobilenet/README.md",
    "slim-v1": "tensorflow/models, research/slim/nets/mobilenet_v1.md",
    "mnv4": "arXiv:2404.10518, table 6",
    "efficientnet": "arXiv:1905.11946, table 2",
    "mobileclip": "apple/ml-mobileclip, README.md",
    "fastvlm": "arXiv:2412.13303, table 3",
    "swiftformer": "arXiv:2303.15446, table 2",
    "efficientformer-v2": "snap-research/EfficientFormer, README.md",
    "starnet": "arXiv:2403.19967, table 4",
    "mobilevit": "apple/ml-cvnets, README.md and arXiv:2110.02178, table 7",
    "repnext": "suous/RepNeXt, README.md",
    "recnext": "suous/RecNeXt, README.md",
    "mobilevig": "arXiv:2307.00395, table 1",
    "mobilevig-v2": "SLDGroup/MobileViGv2, models/mobilevigv2.py, counted by torch.utils.flop_counter",
    "iformer": "ChuanyangZheng/iFormer, README.md",
    "sbcformer": "xyongLu/SBCFormer, models/sbcformer.py, counted by torch.utils.flop_counter",
    "shvit": "ysj9909/SHViT, README.md",
    "ultralytics": "ultralytics/ultralytics, docs/en/models/yolov8.md (FLOPs are twice the MACs)",
    "darknet": "pjreddie.com/darknet/yolo (BFLOPs 65.86 and 5.56 are twice the MACs; parameters from the sizes of the weights)",
    "mobilenet-v2": "arXiv:1801.04381, table 7",
    "transformers": "the class of transformers 5.24 with the published configuration, counted by torch.utils.flop_counter",
    "diffusers": "the class of diffusers 0.42 with the published configuration, counted by torch.utils.flop_counter",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network. `size`: standard side of the picture in pixels; `source`: a key of SOURCES; `note`: what to know.

    `params_m`, `gmacs`: published figures as printed, empty where none is.
    """

    name: str
    family: str
    builder: str
    size: int
    params_m: str
    gmacs: str
    source: str
    note: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)

    def build(self, height: int, width: int) -> Graph:
        """The graph for pictures of this size."""
        module, _, function = self.builder.partition(":")
        make: Callable[..., Graph] = getattr(import_module(f"orchard.workloads.{module}"), function)
        return make(self.name, height, width, **self.options)


class _Networks(Mapping[str, Network]):
    """Networks by name, read when first asked for."""

    def __getitem__(self, name: str) -> Network:
        return _table()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_table())

    def __len__(self) -> int:
        return len(_table())


NETWORKS: Mapping[str, Network] = _Networks()


@lru_cache(maxsize=1)
def _table() -> dict[str, Network]:
    text = resources.files("orchard.workloads").joinpath("networks.csv").read_text(encoding="utf-8")
    return {row["name"]: _network(row) for row in csv.DictReader(text.splitlines())}


def _network(row: Mapping[str, str]) -> Network:
    pairs = (pair.partition("=") for pair in row["options"].split(";") if pair.strip())
    return Network(
        name=row["name"], family=row["family"], builder=row["builder"], size=int(row["size"]), params_m=row["params_m"],
        gmacs=row["gmacs"], source=row["source"], note=row["note"],
        options={key.strip(): _option(value.strip()) for key, _, value in pairs},
    )  # fmt: skip


def _option(text: str) -> Option:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


_RENAMED = (
    (r" backbone\Z", ""), (r"\Amobilenet[-_]?v", "mobilenet-v"), (r"\A(mobilevit|mobilevig|ghostnet|efficientformer)v", r"\1-v"),
    (r"\Amobilenet-v3-l-", "mobilenet-v3-large-"), (r"v3-small\Z", "v3-small-1.0"), (r"-hybrid-medium\Z", "-hybrid-m"),
    (r"\A(resnet|vgg|densenet)-?(\d+)(_v1|_bn)?\Z", r"\1\2"), (r"\Anext-vit", "nextvit"), (r"/", "-"),
    (r"\Adeeplabv3-mobilenet-?v2", "deeplab-v3-mobilenet-v2"), (r" image encoder\Z", "-image"),
    (r"([0-9])x\Z", r"\1"),
)  # fmt: skip
"""How papers and tables of measurements write names, and how we do."""


def known_as(text: str) -> str | None:
    """The built-in network that a paper or a table calls `text`, None where there is none: `MobileNetV2-1.4x`."""
    name = text.lower()
    for pattern, ours in _RENAMED:
        name = re.sub(pattern, ours, name)
    return name if name in NETWORKS else None


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
    return found.build(height, width or height)
