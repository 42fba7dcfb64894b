"""GGUF files: header only, memory-mapped. Metadata says the architecture, tensors say the rest, each in its exact format.

A header is a few megabytes (mostly the vocabulary, which is skipped) whatever the file holds, so a 40 GB file reads in well
under a second. What a model has besides its sizes (biases, head norms, fused projections, tied head, sinks) is told by
which tensors exist, not by a table of architectures.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from orchard.ir import Graph, Role
from orchard.ir.weights import weight_shapes
from orchard.units import find_format, number_format
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.files import mapped
from orchard.workloads.importers.lowering import Imported, WeightInfo
from orchard.workloads.importers.weights import stored_bytes

FORMATS = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1", 10: "q2_k", 11: "q3_k",
    12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl",
    21: "iq3_s", 22: "iq2_s", 23: "iq4_xs", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "f64", 29: "iq1_m",
    30: "bf16", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4", 41: "q1_0", 42: "q2_0",
}  # fmt: skip
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_TENSORS, _MAX_KEYS, _MAX_DIMS = 1_000_000, 100_000, 8
_KEPT = 4096  # elements of an array that are kept; vocabularies are longer and skipped


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of the file; `shape` is row-major, last axis contiguous."""

    name: str
    shape: tuple[int, ...]
    format: str
    offset: int

    @property
    def bytes(self) -> int:
        return stored_bytes(self.format, self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """Version, metadata (long arrays as their length) and tensors of a GGUF file."""

    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...]


def import_gguf(
    path: str | Path, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """The decoder a GGUF file describes, over symbols B, T and S, with every weight in its stored format.

    Raises ImportError_ for a damaged file, or an architecture whose graph is not known (its tensors still list).
    """
    path = Path(path)
    header = read_header(path)
    graph, warnings = _decoder(path, header)
    formats: dict[str, int] = {}
    for tensor in header.tensors:
        formats[tensor.format] = formats.get(tensor.format, 0) + tensor.bytes
    parameters = sum(prod(t.shape) for t in header.tensors if not t.name.startswith("rope_freqs"))
    info = WeightInfo(
        parameters=parameters, bytes=sum(formats.values()), formats=dict(sorted(formats.items())),
        tensors=len(header.tensors), buffer_elements=sum(prod(t.shape) for t in header.tensors) - parameters,
    )  # fmt: skip
    name = str(header.metadata.get("general.name", path.stem))[:200]
    about = {
        k: str(v)[:200] for k, v in header.metadata.items() if k.startswith("general.") and not isinstance(v, list)
    }
    if inputs:
        from orchard.workloads.importers.inputs import bind_inputs

        graph = bind_inputs(graph, inputs)
    return Imported(
        graph=graph, name=name, source_format="gguf", weights=info, warnings=tuple(warnings), metadata=about
    )


# ---- the file


def read_header(path: Path) -> Header:
    """Parse the header. Raises ImportError_ with the byte offset of what does not fit."""
    with mapped(path) as data:
        return _Reader(path, data).header()


class _Reader:
    def __init__(self, path: Path, data: memoryview) -> None:
        self.path, self.data, self.at = path, data, 0
        self.order = "<"

    def fail(self, problem: str) -> ImportError_:
        return ImportError_(f"{self.path}: damaged GGUF file ({problem} at byte {self.at})")

    def unpack(self, code: str) -> Any:
        size = struct.calcsize(code)
        if self.at + size > len(self.data):
            raise self.fail("the file ends")
        (value,) = struct.unpack_from(self.order + code, self.data, self.at)
        self.at += size
        return value

    def text(self) -> str:
        size = self.unpack("Q")
        if size > len(self.data) - self.at:
            raise self.fail(f"a string of {size} bytes")
        raw = bytes(self.data[self.at : self.at + min(size, 65536)])
        self.at += size
        return raw.decode("utf-8", "replace")

    def header(self) -> Header:
        if bytes(self.data[:4]) != b"GGUF":
            raise ImportError_(f"{self.path}: no GGUF file (it does not start with GGUF)")
        self.at = 4
        version = self.unpack("I")
        if version & 0xFFFF == 0:  # written big-endian
            self.order, self.at = ">", 4
            version = self.unpack("I")
        if version not in (2, 3):
            raise ImportError_(f"{self.path}: GGUF version {version}, expected 2 or 3")
        tensors, keys = self.unpack("Q"), self.unpack("Q")
        if tensors > _MAX_TENSORS or keys > _MAX_KEYS:
            raise self.fail(f"{tensors} tensors and {keys} keys")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self.text()
            metadata[key] = self.value(self.unpack("I"), 0)
        found = tuple(self.tensor() for _ in range(tensors))
        return Header(version, metadata, found)

    def value(self, kind: int, depth: int) -> Any:
        if kind == 8:
            return self.text()
        if kind == 9:
            return self.array(depth)
        if kind not in _SCALARS:
            raise self.fail(f"a value of type {kind}")
        return self.unpack(_SCALARS[kind])

    def array(self, depth: int) -> list[Any] | int:
        """The items, or only their number where there are many."""
        kind, count = self.unpack("I"), self.unpack("Q")
        if depth > 4 or count > len(self.data):
            raise self.fail(f"an array of {count} items")
        if kind in _SCALARS:
            code = _SCALARS[kind]
            size = struct.calcsize(code) * count
            if self.at + size > len(self.data):
                raise self.fail(f"an array of {count} items")
            kept = struct.unpack_from(f"{self.order}{count}{code}", self.data, self.at) if count <= _KEPT else None
            self.at += size
            return list(kept) if kept is not None else count
        if kind == 8 and count > _KEPT:
            self._skip_strings(count)
            return int(count)
        return [self.value(kind, depth + 1) for _ in range(count)]

    def _skip_strings(self, count: int) -> None:
        data, at, end, read = self.data, self.at, len(self.data), struct.Struct(self.order + "Q").unpack_from
        for _ in range(count):
            if at + 8 > end:
                self.at = at
                raise self.fail("the file ends")
            at += 8 + read(data, at)[0]
        if at > end:
            raise self.fail("the file ends")
        self.at = at

    def tensor(self) -> StoredTensor:
        name = self.text()
        ndim = self.unpack("I")
        if ndim > _MAX_DIMS:
            raise self.fail(f"tensor {name[:60]!r} with {ndim} axes")
        shape = tuple(self.unpack("Q") for _ in range(ndim))[::-1]
        kind, offset = self.unpack("I"), self.unpack("Q")
        format = FORMATS.get(kind)
        if format is None or find_format(format) is None:
            raise self.fail(f"tensor {name[:60]!r} of unknown type {kind}")
        if prod(max(s, 1) for s in shape) > 1 << 48:
            raise self.fail(f"tensor {name[:60]!r} of shape {shape}")
        return StoredTensor(name, shape, format, offset)


# ---- the model

_ARCHITECTURES = {
    "llama": "llama", "mistral3": "llama", "qwen2": "qwen2", "qwen2vl": "qwen2", "qwen2moe": "qwen2_moe", "qwen3": "qwen3",
    "qwen3vl": "qwen3", "qwen3moe": "qwen3_moe", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "phi2": "phi",
    "phi3": "phi3", "gpt2": "gpt2", "gptneox": "gpt_neox", "deepseek2": "deepseek_v2", "gpt-oss": "gpt_oss",
    "olmo2": "olmo2", "smollm3": "smollm3", "internlm2": "llama", "exaone": "llama", "granite": "llama", "seed_oss": "llama",
    "command-r": "llama", "starcoder2": "llama", "glm4": "llama", "stablelm": "llama", "hunyuan-dense": "llama",
    "arcee": "llama", "ernie4_5": "llama", "minicpm": "llama", "olmoe": "qwen3_moe", "mixtral": "mixtral",
}  # fmt: skip


class _Meta:
    """Metadata of one architecture with types checked."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.values = path, header.metadata
        self.arch = str(header.metadata.get("general.architecture", ""))

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(f"{self.arch}.{key}", default)

    def int(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if isinstance(value, list):
            value = max((v for v in value if isinstance(v, int)), default=None)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ImportError_(f"{self.path}: metadata {self.arch}.{key} is {str(value)[:40]}, expected a whole number")
        return value


def _decoder(path: Path, header: Header) -> tuple[Graph, list[str]]:
    from orchard.workloads.catalog import decoder_config
    from orchard.workloads.decoder import build_decoder
    from orchard.workloads.errors import ModelError

    meta = _Meta(path, header)
    architecture = _ARCHITECTURES.get(meta.arch)
    if architecture is None:
        raise ImportError_(
            f"{path}: architecture {meta.arch[:60]!r} has no graph here; known: {', '.join(sorted(_ARCHITECTURES))}. "
            f"Import the Hugging Face config.json of the model instead"
        )
    tensors = {t.name: t for t in header.tensors}
    if "token_embd.weight" not in tensors:
        raise ImportError_(
            f"{path}: no token_embd.weight among {len(tensors)} tensors; is it one part of a split file?"
        )
    fields, warnings = _fields(meta, tensors, architecture)
    try:
        config = decoder_config(str(header.metadata.get("general.name", path.stem))[:200], architecture, fields)
        graph = build_decoder(config)
    except ModelError as error:
        raise ImportError_(f"{path}: {error}") from None
    formats, unmatched = _formats(graph, tensors)
    warnings += list(config.warnings) + _whole_blocks(graph, formats)
    if unmatched:
        warnings.append(f"{len(unmatched)} weights have no tensor in the file and keep f16: {', '.join(unmatched[:4])}")
    return graph.with_formats(formats), warnings


def _fields(meta: _Meta, tensors: Mapping[str, StoredTensor], architecture: str) -> tuple[dict[str, Any], list[str]]:
    warnings: list[str] = []
    has = tensors.__contains__
    hidden, heads, layers = meta.int("embedding_length"), meta.int("attention.head_count"), meta.int("block_count")
    if layers < 1 or layers > 10_000 or heads < 1:
        raise ImportError_(f"{meta.path}: {layers} blocks with {heads} heads, expected 1 to 10000 and at least 1")
    nextn = meta.int("nextn_predict_layers", 0)
    first = next(
        (i for i in range(min(layers, 100)) if has(f"blk.{i}.attn_q.weight") or has(f"blk.{i}.attn_qkv.weight")), 0
    )
    block = f"blk.{first}."
    fields: dict[str, Any] = {
        "layers": layers - nextn, "hidden": hidden, "heads": heads, "vocab": tensors["token_embd.weight"].shape[0],
        "kv_heads": meta.int("attention.head_count_kv", heads) or heads,
        "head_dim": meta.int("attention.key_length", hidden // heads),
        "tied_embeddings": not has("output.weight"),
        "qkv_bias": has(f"{block}attn_q.bias") or has(f"{block}attn_qkv.bias"),
        "o_bias": has(f"{block}attn_output.bias"),
        "fused_qkv": has(f"{block}attn_qkv.weight"),
        "qk_norm": _head_norm(tensors, block, hidden),
        "attention_sinks": has(f"{block}attn_sinks.weight"),
        "max_positions": meta.get("context_length"),
    }  # fmt: skip
    if nextn:
        warnings.append(f"{nextn} next-token prediction layers are stored but not part of the graph")
    if isinstance(meta.get("feed_forward_length"), (int, list)):
        fields["ffn"] = meta.int("feed_forward_length") or None
    window = meta.get("attention.sliding_window")
    if isinstance(window, int) and window > 0 and architecture in ("gemma2", "gemma3", "gpt_oss"):
        fields["window"] = window
    if has(f"{block}ffn_up.weight") and not has(f"{block}ffn_gate.weight") and architecture == "phi3":
        fields["fused_gate_up"] = True
    elif has(f"{block}ffn_up.bias"):
        fields["mlp_bias"] = True
    if has("position_embd.weight"):
        fields.update(positions="learned", learned_positions=tensors["position_embd.weight"].shape[0])
    rotated = meta.get("rope.dimension_count")
    if isinstance(rotated, int) and 0 < rotated < fields["head_dim"] and not has(f"{block}attn_kv_a_mqa.weight"):
        fields["rotary"] = rotated / fields["head_dim"]
    if has("output.bias"):
        fields["head_bias"] = True
    _add_experts(meta, tensors, fields)
    _add_latent(meta, fields, tensors, block)
    return fields, warnings


def _head_norm(tensors: Mapping[str, StoredTensor], block: str, hidden: int) -> str:
    norm = tensors.get(f"{block}attn_q_norm.weight")
    if norm is None:
        return "none"
    return "full" if norm.shape == (hidden,) else "head"


def _add_experts(meta: _Meta, tensors: Mapping[str, StoredTensor], fields: dict[str, Any]) -> None:
    count = meta.get("expert_count", 0)
    if not isinstance(count, int) or count < 1:
        fields["moe"] = None
        return
    exps = next((t for n, t in tensors.items() if n.endswith(("ffn_up_exps.weight", "ffn_gate_up_exps.weight"))), None)
    if exps is None or len(exps.shape) != 3:
        raise ImportError_(f"{meta.path}: {count} experts in the metadata, but no stacked expert tensors")
    width = exps.shape[1] // (2 if "gate_up" in exps.name else 1)
    shared = next((t.shape[0] for n, t in tensors.items() if n.endswith("ffn_up_shexp.weight")), 0)
    fields["moe"] = {
        "experts": count, "active": meta.int("expert_used_count"), "ffn": width, "shared_ffn": shared,
        "dense_layers": meta.int("leading_dense_block_count", 0),
        "bias": any(n.endswith("ffn_up_exps.bias") for n in tensors),
        "router_bias": any(n.endswith("ffn_gate_inp.bias") for n in tensors),
        "correction_bias": any(n.endswith(("exp_probs_b.bias", "exp_probs_b")) for n in tensors),
    }  # fmt: skip
    if meta.arch == "llama":
        fields["moe"]["score"] = "softmax"
    if meta.get("expert_gating_func") == 2:
        fields["moe"]["score"] = "sigmoid"


def _add_latent(meta: _Meta, fields: dict[str, Any], tensors: Mapping[str, StoredTensor], block: str) -> None:
    rank = meta.get("attention.kv_lora_rank")
    if not isinstance(rank, int) or rank < 1:
        return
    rope = meta.int("rope.dimension_count")
    width = meta.int("attention.key_length_mla", meta.int("attention.key_length"))
    q_rank = meta.get("attention.q_lora_rank")
    fields["mla"] = {
        "q_lora": q_rank if isinstance(q_rank, int) and q_rank > 0 else None, "kv_lora": rank, "qk_rope": rope,
        "qk_nope": width - rope, "v_head": meta.int("attention.value_length_mla", meta.int("attention.value_length")),
    }  # fmt: skip
    fields.update(kv_heads=fields["heads"], head_dim=width, qk_norm="none")


# ---- formats of the graph's weights

_NAMES: Mapping[str, tuple[str, ...]] = {
    "embedding": ("token_embd",), "head": ("output",), "position_embedding": ("position_embd",),
    "attn_q": ("attn_q",), "attn_k": ("attn_k",), "attn_v": ("attn_v",), "attn_o": ("attn_output",),
    "attn_qkv": ("attn_qkv",), "attn_q_a": ("attn_q_a",), "attn_q_b": ("attn_q_b",), "attn_kv_a": ("attn_kv_a_mqa",),
    "attn_kv_b": ("attn_kv_b", "attn_k_b", "attn_v_b"), "ffn_gate": ("ffn_gate",), "ffn_up": ("ffn_up",),
    "ffn_down": ("ffn_down",), "ffn_gate_up": ("ffn_up",), "expert_gate": ("ffn_gate_exps", "ffn_gate_up_exps"),
    "expert_up": ("ffn_up_exps", "ffn_gate_up_exps"), "expert_down": ("ffn_down_exps",), "shared_gate": ("ffn_gate_shexp",),
    "shared_up": ("ffn_up_shexp",), "shared_down": ("ffn_down_shexp",), "router": ("ffn_gate_inp",),
}  # fmt: skip


def _formats(graph: Graph, tensors: Mapping[str, StoredTensor]) -> tuple[dict[str, str], list[str]]:
    """The stored format of each weight; vectors take the format of the file's vectors."""
    vectors = [t.format for t in tensors.values() if len(t.shape) <= 1]
    vector = max(set(vectors), key=vectors.count) if vectors else "f32"
    formats: dict[str, str] = {}
    unmatched: list[str] = []
    for weight in graph.of_role(Role.WEIGHT):
        stored = _stored(weight.part, weight.layer, weight.name, tensors)
        if stored is not None:
            formats[weight.name] = stored.format
        elif weight.part in ("norm", "bias") or len(weight.shape) <= 1:
            formats[weight.name] = vector
        else:
            unmatched.append(weight.name)
    return formats, unmatched


def _whole_blocks(graph: Graph, formats: dict[str, str]) -> list[str]:
    """Latent attention reads its key matrix the other way round than a file with one `attn_kv_b` stores it; where the blocks
    of its format do not fit that way, the next format whose blocks do stands in. Changes `formats`; returns a warning."""
    replaced: dict[str, str] = {}
    for name, shape in weight_shapes(graph).items():
        format = number_format(formats.get(name, "f16"))
        if format.pads or not shape or shape[-1] % format.block == 0:
            continue
        fitting = (number_format(n) for n in ("q4_0", "q5_0", "q8_0", "f16"))
        formats[name] = next(f.name for f in fitting if (f.bits >= format.bits or f.name == "f16") and shape[-1] % f.block == 0)
        replaced[format.name] = formats[name]
    listed = ", ".join(f"{a} as {b}" for a, b in replaced.items())
    return [f"blocks do not fit the way latent attention reads its keys; counted: {listed}"] if replaced else []


def _stored(part: str, layer: int | None, name: str, tensors: Mapping[str, StoredTensor]) -> StoredTensor | None:
    prefix = f"blk.{layer}." if layer is not None else ""
    names = _NAMES.get(part, ())
    if part == "attn_kv_b" and len(names) > 1:
        names = ("attn_k_b" if re.search(r"w_k\w*$", name) else "attn_v_b", "attn_kv_b")
    for candidate in names:
        found = tensors.get(f"{prefix}{candidate}.weight")
        if found is not None:
            return found
    return None
