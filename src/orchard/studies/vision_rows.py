"""Rows of the suite `vision` as cases: image networks, diffusion, Whisper and BERT, each through the runtime that ran it.

A row is scored when its network is built in, its runtime has a profile, its chip stands in the catalogue and its source states
how it was run (trust A or B; ANE networks of trust C too, as their profile has since its first fit).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from orchard.cost.evaluate import Call
from orchard.cost.lower import COUNTS, Kernel, KernelTable, Lowering, lower
from orchard.cost.profile import Profile
from orchard.ir import Graph, value_of
from orchard.studies.cases import Case
from orchard.studies.phases import decode_calls
from orchard.studies.runtimes import choose_profile
from orchard.studies.suite_case import Record, suite_case
from orchard.workloads import apply_weights, load_model
from orchard.workloads.networks import NETWORKS, build_network, known_as

LARGE_IMAGE = 512
"""Side from which a network is a backbone of dense prediction, with operands that leave the chip."""
WEIGHTS = {"fp16": "f16", "fp32": "f32", "pal2": "pal2", "pal4": "pal4", "pal6": "pal6", "pal8": "pal8", "w8": "int8-channel"}
COMPRESSED = {
    **{name: WEIGHTS[name] for name in ("pal2", "pal4", "pal6", "pal8", "w8")},
    "sparse50_fp16": "sparse50-f16", "sparse75_fp16": "sparse75-f16", "w8a8": "int8",
}  # fmt: skip
"""Precisions of networks and the number format of their weights; `int8` names INT8 weights with INT8 activations."""
ENGINES = {"ane": "ane", "all": "ane", "cpu+ane": "ane", "cpu+gpu": "gpu", "gpu": "gpu", "cpu": "cpu"}
"""Core ML runs what it can on the ANE where it may."""


def vision_case(record: Record) -> Case | str:
    """The case of a row, or why it is not scored."""
    if record["notes"].startswith("trust=D"):
        return "trust D"
    for holds, make in (
        (record["model"].startswith("Stable Diffusion"), _diffusion),
        (record["model"].startswith("whisper"), _whisper),
        (record["model"].startswith("BERT"), _bert),
        (record["runtime"] == "mlx", _mlx),
        (record["runtime"] == "ncnn", _ncnn),
    ):
        if holds:
            return make(record)
    return _core_ml(record)


def _core_ml(record: Record) -> Case | str:
    """Image networks through Core ML with the Neural Engine allowed."""
    network = known_as(record["model"])
    size = re.fullmatch(r"1x3x(\d+)x(\d+)", record["input_shape"])
    reasons = (
        (record["metric"] != "latency_ms", f"metric {record['metric']}"),
        (record["runtime"] != "coreml", f"runtime {record['runtime']}: no profile for image networks"),
        (record["engine"] not in ("ane", "all"), f"engine {record['engine']}: chips before A14 or trust C"),
        (network is None, "network not built in"),
        (record["precision"] not in ("fp16", *COMPRESSED), f"precision {record['precision']}"),
        (record["batch"] not in ("1", "1.0") or size is None, "batch or input not 1x3xHxW"),
    )
    reason = next((why for holds, why in reasons if holds), None)
    if reason is not None or network is None or size is None:
        return reason or ""
    graph = build_network(network, int(size.group(1)), int(size.group(2)))
    stratum = "inference-large" if int(size.group(1)) >= LARGE_IMAGE else "inference"
    if record["precision"] != "fp16":
        graph, stratum = compressed(graph, COMPRESSED[record["precision"]]), "compressed"
    profile = choose_profile("coreml", "ane", serves="network")
    seconds = float(record["value"]) / 1e3
    return suite_case(
        record, profile, graph, _batch(graph, 1), seconds, stratum=stratum, family=NETWORKS[network].family
    )


def compressed(graph: Graph, weights: str) -> Graph:
    """The graph with matrices and windows in a format, vectors as they are; `int8` holds for activations too."""
    chosen = {w.name: weights for w in graph.weights if len(w.shape) > 1}
    if weights == "int8":
        chosen = {t.name: weights for t in graph.tensors.values()}
    return graph.with_formats(chosen)


def _batch(graph: Graph, batch: int) -> Mapping[str, int]:
    return {"B": batch} if "B" in graph.symbols else {}


def _mlx(record: Record) -> Case | str:
    network = known_as(record["model"])
    size = re.fullmatch(r"(\d+)x3x(\d+)x(\d+)", record["input_shape"])
    if network is None or size is None or record["metric"] != "latency_ms" or not record["notes"].startswith("trust=B"):
        return "MLX: training, other models or trust C"
    batch, height, width = (int(n) for n in size.groups())
    graph = build_network(network, height, width)
    profile = choose_profile("mlx", "gpu", serves="network")
    if "Winograd always" in record["variant"]:  # the state before pull request 1534
        profile = with_rules(profile, winograd_channels=64, winograd_outputs=0)
    return suite_case(
        record, profile, graph, _batch(graph, batch), float(record["value"]) / 1e3, stratum="network",
        family=NETWORKS[network].family, weights="f32",
    )  # fmt: skip


@lru_cache(maxsize=16)
def _ruled(name: str, rules: tuple[tuple[str, int], ...]) -> Profile:
    from orchard.cost.profile import load_profile

    profile = load_profile(name)
    return replace(profile, rules={**profile.rules, **dict(rules)})


def with_rules(profile: Profile, **rules: int) -> Profile:
    """The profile with some rules of its kernels changed."""
    return _ruled(profile.name, tuple(sorted(rules.items())))


NCNN = {
    "mobilenet": "mobilenet-v1-1.0", "mobilenet_v2": "mobilenet-v2-1.0", "mobilenet_v3": "mobilenet-v3-large-1.0",
    "efficientnet_b0": "efficientnet-b0", "resnet18": "resnet18", "resnet50": "resnet50", "vgg16": "vgg16",
}  # fmt: skip


def _ncnn(record: Record) -> Case | str:
    network = NCNN.get(record["model"])
    if network is None or network not in NETWORKS:
        return "ncnn: network not built in"
    if record["engine"] != "cpu" or record["precision"] != "fp16" or "threads=1 " not in record["variant"]:
        return "ncnn: INT8, eight threads or Vulkan"
    graph = build_network(network, 224, 224)
    profile = choose_profile("ncnn", "cpu", serves="network")
    return suite_case(
        record, profile, graph, _batch(graph, 1), float(record["value"]) / 1e3, stratum="network",
        family=NETWORKS[network].family,
    )  # fmt: skip


UNETS = {
    "Stable Diffusion v1.4": "stable-diffusion-1.5-unet", "Stable Diffusion v1.5": "stable-diffusion-1.5-unet",
    "Stable Diffusion 2-base": "stable-diffusion-2.1-unet", "Stable Diffusion 2.1-base": "stable-diffusion-2.1-unet",
}  # fmt: skip


def _diffusion(record: Record) -> Case | str:
    """A denoising step (batch 2: guidance), or a whole image: the steps and the decoder of the picture."""
    step = record["model"].endswith(" UNet")
    unet = UNETS.get(record["model"].removesuffix(" UNet"))
    steps = re.search(r"(\d+) steps", record["notes"])
    engine = ENGINES.get(record["engine"], "")
    if unet is None or steps is None or record["precision"] not in WEIGHTS or not engine:
        return "diffusion: model, steps or precision not known"
    if record["notes"].startswith("trust=C"):
        return "trust C"
    if "reduceMemory" in record["notes"] and not step:
        return "diffusion: models loaded and unloaded between stages"
    profile = choose_profile("coreml", engine, serves="network")
    weights = WEIGHTS[record["precision"]]
    denoise = bound_table(_table(unet, weights, profile.lowering), {"B": 2})
    value = float(record["value"])
    if step:
        table, seconds = denoise, 1.0 / value
    else:
        decoder = bound_table(_table("stable-diffusion-vae-decoder", weights, profile.lowering), {"B": 1})
        table, seconds = joined([(denoise, int(steps.group(1))), (decoder, 1)]), value / 1e3
    return suite_case(
        record, profile, table, {}, seconds, stratum="diffusion", family="stable-diffusion", weights=weights
    )


@lru_cache(maxsize=32)
def _table(network: str, weights: str, lowering: Lowering) -> KernelTable:
    graph = build_network(network)
    return lower(apply_weights(graph, weights) if weights != "f16" else graph, lowering)


def bound_table(table: KernelTable, bindings: Mapping[str, int]) -> KernelTable:
    """The table with its sizes as numbers."""
    sizes = [name for name in COUNTS if name not in ("count", "launches", "experts", "active")]

    def bound(kernel: Kernel) -> Kernel:
        numbers: dict[str, Any] = {name: value_of(getattr(kernel, name), bindings) for name in sizes}
        return replace(kernel, **numbers)

    return KernelTable(kernels=tuple(bound(k) for k in table.kernels), depth=table.depth)


def joined(parts: list[tuple[KernelTable, int]]) -> KernelTable:
    """Several graphs run one after the other, each a number of times, as one table."""
    kernels = [
        replace(kernel, count=kernel.count * times, launches=kernel.launches * times)
        for table, times in parts
        for kernel in table.kernels
    ]
    return KernelTable(kernels=tuple(kernels), depth=sum(table.depth * times for table, times in parts))


WHISPER = r"whisper-(tiny|base|small|medium|large(?:-v\d)?(?:-turbo)?) (encoder|decoder)(?: step)?"


def _whisper(record: Record) -> Case | str:
    """Encoder passes and decoder steps of whisper.cpp, on Metal, on the CPU, or the encoder through Core ML."""
    found = re.fullmatch(WHISPER, record["model"])
    runtime = {"ggml-metal": "whisper.cpp", "coreml": "coreml", "ggml-accelerate": "whisper.cpp"}.get(record["runtime"])
    if found is None or runtime is None or record["precision"] not in ("fp16", "w8"):
        return "Whisper: whole transcription, or a runtime without a profile"
    name = {"large": "openai/whisper-large-v3", "large-v2": "openai/whisper-large-v3"}.get(
        found.group(1), f"openai/whisper-{found.group(1)}"
    )
    part, weights = found.group(2), "q8_0" if record["precision"] == "w8" else "f16"
    graph = load_model(name).graph(weights=weights, part=part)
    profile = choose_profile(runtime, ENGINES[record["engine"]], serves="network")
    if "flash_attn=0" in record["variant"]:
        profile = replace(profile, lowering=replace(profile.lowering, fused_attention=False))
    calls = decode_calls(generate=256, context=0, batch=1) if part == "decoder" else [Call({"B": 1})]
    return suite_case(
        record, profile, graph, calls, float(record["value"]) / 1e3, stratum=f"whisper-{part}", family="whisper",
        weights=weights,
    )  # fmt: skip


def _bert(record: Record) -> Case | str:
    """BERT base inference through PyTorch on the GPU."""
    size = re.fullmatch(r"(\d+)x(\d+)", record["input_shape"])
    if record["engine"] != "gpu" or "training" in record["model"] or size is None or record["metric"] != "latency_ms":
        return "BERT: training or CPU"
    if record["notes"].startswith("trust=C"):
        return "trust C"
    graph = load_model("bert-base-uncased").graph(weights="f32", activations="f32")
    newer = "newer nightly" in record["variant"]
    profile = choose_profile("mps" if newer else "mps@2023", "gpu", serves="network")
    bindings = {"B": int(size.group(1)), "T": int(size.group(2))}
    return suite_case(
        record, profile, graph, bindings, float(record["value"]) / 1e3, stratum="encoder", family="bert", weights="f32"
    )
