"""safetensors: the header of one file (or of a sharded folder), which names weights but no program.

With a config.json beside it the model becomes a graph, and its weights take the formats the file has.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.files import mapped
from orchard.workloads.importers.lowering import Imported, WeightInfo

_FORMATS = {
    "F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "F8_E4M3": "f8_e4m3", "F8_E5M2": "f8_e5m2", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "int16", "U32": "int32",
    "U64": "int64", "F8_E8M0": "uint8", "F4": "f4",
}  # fmt: skip
_MAX_HEADER = 100_000_000  # the format's own limit


@dataclass(frozen=True, slots=True)
class StoredTensor:
    name: str
    shape: tuple[int, ...]
    format: str
    bytes: int


def read_header(path: Path) -> tuple[StoredTensor, ...]:
    """Names, shapes and formats of all tensors. Raises ImportError_ for a header that does not hold together."""
    with mapped(path) as data:
        total = len(data)
        size = int.from_bytes(data[:8], "little")
        if total < 8 or size > min(total - 8, _MAX_HEADER):
            raise ImportError_(f"{path}: damaged safetensors file (a header of {size} bytes in a file of {total})")
        raw = bytes(data[8 : 8 + size])
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise ImportError_(f"{path}: damaged safetensors file (the header is no JSON)") from None
    if not isinstance(header, dict):
        raise ImportError_(f"{path}: damaged safetensors file (the header is no table)")
    return tuple(_tensor(path, name, entry) for name, entry in header.items() if name != "__metadata__")


def _tensor(path: Path, name: str, entry: Any) -> StoredTensor:
    problem = f"{path}: damaged safetensors file (tensor {name[:60]!r})"
    if not isinstance(entry, dict) or entry.get("dtype") not in _FORMATS:
        raise ImportError_(problem)
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not all(isinstance(s, int) and 0 <= s < 1 << 48 for s in shape):
        raise ImportError_(problem)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(isinstance(o, int) for o in offsets):
        raise ImportError_(problem)
    return StoredTensor(name, tuple(shape), _FORMATS[entry["dtype"]], max(offsets[1] - offsets[0], 0))


def import_safetensors(
    path: str | Path, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """The model of a safetensors file with config.json in the same folder."""
    from orchard.workloads.errors import ModelError
    from orchard.workloads.hf import decoder_from_file

    path = Path(path)
    config = path.parent / "config.json"
    if not config.is_file():
        raise ImportError_(f"{path}: holds weights but no program; put the model's config.json beside it")
    shards = sorted(path.parent.glob("*.safetensors")) if "-of-" in path.name else [path]
    tensors = [t for shard in shards for t in read_header(shard)]
    try:
        decoder = decoder_from_file(config)
    except ModelError as error:
        raise ImportError_(f"{path}: {error}") from None
    from orchard.workloads.decoder import build_decoder

    formats: dict[str, int] = {}
    for tensor in tensors:
        formats[tensor.format] = formats.get(tensor.format, 0) + tensor.bytes
    graph = build_decoder(decoder)
    if formats:
        main = max(formats, key=lambda f: formats[f])
        if main in ("f32", "f16", "bf16", "f8_e4m3"):
            graph = graph.with_formats({w.name: main for w in graph.weights})
    if inputs:
        from orchard.workloads.importers.inputs import bind_inputs

        graph = bind_inputs(graph, inputs)
    info = WeightInfo(
        parameters=sum(prod(t.shape) for t in tensors), bytes=sum(formats.values()), formats=dict(sorted(formats.items())),
        tensors=len(tensors),
    )  # fmt: skip
    return Imported(
        graph=graph, name=decoder.name, source_format="safetensors", weights=info, warnings=decoder.warnings
    )
