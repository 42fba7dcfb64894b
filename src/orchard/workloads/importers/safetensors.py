"""safetensors: the header of one file (or of a sharded folder), which names weights but no program.

With a config.json beside it the model becomes a graph, and its weights take the formats the file has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from orchard.ir import Graph
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
    from orchard.ir.weights import weight_bytes
    from orchard.workloads.decoder import build_decoder

    formats: dict[str, int] = {}
    for tensor in tensors:
        formats[tensor.format] = formats.get(tensor.format, 0) + tensor.bytes
    graph = build_decoder(decoder)
    warnings = list(decoder.warnings)
    plain = max((f for f in formats if f in ("f32", "f16", "bf16", "f8_e4m3")), key=lambda f: formats[f], default=None)
    packed = quantized_format(config)
    if plain is not None and (packed or plain == max(formats, key=lambda f: formats[f])):
        graph = graph.with_formats({w.name: plain for w in graph.weights})
    if packed is not None:
        graph = graph.with_formats(_packed_formats(graph, packed, tensors))
        warnings = [w for w in warnings if not w.startswith("quantization ")]  # it is understood here
        warnings += _differs(weight_bytes(graph), sum(t.bytes for t in tensors), packed)
    if inputs:
        from orchard.workloads.importers.inputs import bind_inputs

        graph = bind_inputs(graph, inputs)
    info = WeightInfo(
        parameters=graph.parameters if packed else sum(prod(t.shape) for t in tensors), bytes=sum(formats.values()),
        formats=dict(sorted(formats.items())),
        tensors=len(tensors),
    )  # fmt: skip
    return Imported(
        graph=graph, name=decoder.name, source_format="safetensors", weights=info, warnings=tuple(warnings)
    )


# ---- repositories with packed weights

_UNPACKED_PARTS = ("bias", "norm", "constant", "router")


def quantized_format(config: Path) -> str | None:
    """The number format that config.json says the linear layers have; None where it says nothing of packed weights.

    MLX writes `quantization`, others `quantization_config` with a `quant_method`. GPTQ and AWQ hold an f16 scale and a zero point
    of the codes' width per group; 4-bit bitsandbytes one f32 scale per 64 codes, or with nested scales about two bytes per 128;
    8-bit bitsandbytes one scale per row. Raises ImportError_ for other methods.
    """
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    mlx, other = found.get("quantization"), found.get("quantization_config")
    if isinstance(mlx, dict):
        return _known(config, "MLX", _mlx_format(mlx))
    if not isinstance(other, dict):
        return None
    method = str(other.get("quant_method", ""))
    if not method and "group_size" in other:  # MLX keeps a copy under this name
        return _known(config, "MLX", _mlx_format(other))
    makers: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
        "gptq": _grouped_format, "awq": _grouped_format, "bitsandbytes": _bitsandbytes_format, "fp8": lambda _: "f8_e4m3",
    }  # fmt: skip
    if method not in makers:
        raise ImportError_(
            f"{config}: weights are packed by {method[:40] or 'an unnamed method'!r}, expected one of {', '.join(makers)} or "
            f"MLX; predict config.json itself with --weights FORMAT, or convert the model to GGUF"
        )
    return _known(config, method, makers[method](other))


def _known(config: Path, method: str, name: str | None) -> str:
    from orchard.units import find_format

    if name is None or find_format(name) is None:
        raise ImportError_(
            f"{config}: {method} weights of {name or 'unknown bits'} are no known number format; predict config.json itself with "
            f"--weights FORMAT"
        )
    return name


def _number(fields: Mapping[str, Any], *names: str, default: int = 0) -> int:
    found = next((fields[n] for n in names if n in fields), default)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def _mlx_format(fields: Mapping[str, Any]) -> str:
    mode = str(fields.get("mode", "affine"))
    return mode if mode != "affine" else f"int{_number(fields, 'bits')}-g{_number(fields, 'group_size')}"


def _grouped_format(fields: Mapping[str, Any]) -> str:
    bits, group = _number(fields, "bits", "w_bit"), _number(fields, "group_size", "q_group_size", default=128)
    return f"int{bits}-channel-asym" if group < 0 else f"int{bits}-b{group}-asym"


def _bitsandbytes_format(fields: Mapping[str, Any]) -> str | None:
    if fields.get("load_in_8bit") is True:
        return "int8-channel"
    if fields.get("load_in_4bit") is not True:
        return None
    return "int4-b128" if fields.get("bnb_4bit_use_double_quant") is True else "int4-g64"


def _packed_formats(graph: Graph, packed: str, tensors: Sequence[StoredTensor]) -> dict[str, str]:
    """Formats of the linear layers; embedding and head only where the file holds scales of theirs."""
    names = " ".join(t.name for t in tensors if t.name.endswith((".scales", ".qweight", ".absmax", ".SCB", "_scale_inv")))
    left_out = set(_UNPACKED_PARTS)
    left_out |= set() if "embed_tokens" in names else {"embedding", "position_embedding"}
    left_out |= set() if "lm_head" in names else {"head"}
    return {w.name: packed for w in graph.weights if w.part not in left_out and len(w.shape) > 1}


def _differs(counted: int, stored: int, packed: str) -> list[str]:
    if abs(stored - counted) <= 0.05 * stored:
        return []
    return [f"the file stores {stored:,} bytes of weights, the graph counts {counted:,} with {packed} in its linear layers"]
