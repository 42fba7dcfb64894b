"""How to make a change real: the command or code for the runtime at hand, and the Orchard command that predicts it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields

from orchard.studies.advice.changes import Change, loads_like
from orchard.studies.predict import Prediction
from orchard.studies.request import Request
from orchard.techniques import parse_technique
from orchard.techniques.cache import KvQuant
from orchard.techniques.formats import PaletteWeights, Prune, RoundToNearest, W4a8, W8a8
from orchard.techniques.runs import PrefillChunk, Speculative

OPTIONS = {
    "runtime": "--runtime", "engine": "--engine", "weights": "--weights", "activations": "--activations", "kv": "--kv",
    "batch": "--batch", "prompt": "--prompt", "generate": "--generate", "depth": "--depth", "threads": "--threads",
    "steps": "--steps",
}  # fmt: skip


def predict_command(request: Request, command: str = "predict") -> str:
    """The Orchard command of a request: what differs from the defaults."""
    words = ["orchard", command, request.model, "--chip", request.chip]
    defaults = {f.name: f.default for f in fields(Request)}
    for name, option in OPTIONS.items():
        value = getattr(request, name)
        if value != defaults[name] and value is not None:
            words += [option, str(value)]
    many = (("--input", request.inputs), ("--set", request.overrides), ("--apply", request.apply))
    for option, values in (*many, ("--assume-elementwise", request.assume_elementwise)):
        for value in values:
            words += [option, value]
    return shlex.join(words)


def how_to(changes: Sequence[Change], before: Prediction, after: Prediction) -> tuple[str, ...]:
    """One command or line of code per change; the runtime is that of the result."""
    return tuple(dict.fromkeys(_how(change, before, after) for change in changes))


def _how(change: Change, before: Prediction, after: Prediction) -> str:
    runtime, model = loads_like(after.profile.runtime), before.request.model
    makers = {
        "weights": _weights, "sparsity": _weights, "activations": _weights, "engine": _engine, "cache": _cache,
        "attention": _attention, "draft": _draft, "batch": _batch, "chunk": _chunk, "context": _context, "steps": _steps,
    }  # fmt: skip
    maker = makers.get(change.kind)
    text = maker(change, runtime, model, after) if maker is not None else ""
    return text or _by_hand(change)


def _by_hand(change: Change) -> str:
    if change.kind == "model":
        return f"download {dict(change.fields)['model']} in place of the model, in the same format"
    if change.kind == "precision":
        return "ct.convert(model, compute_precision=ct.precision.FLOAT16)"
    name = change.card or change.kind
    return f"see `orchard technique show {name}`: a change of the model's code or training"


def _weights(change: Change, runtime: str, model: str, after: Prediction) -> str:
    chosen = dict(change.fields).get("weights")
    if isinstance(chosen, str) and runtime == "llama.cpp":
        return f"llama-quantize model-f16.gguf model-{chosen}.gguf {chosen}"
    if isinstance(chosen, str) and runtime == "mlx":
        hub = after.model.name if "/" in after.model.name else model  # built-in models are named as on the hub
        bits, _, group = chosen.removeprefix("mlx-").partition("bit-g")
        return f"mlx_lm.convert --hf-path {shlex.quote(hub)} -q --q-bits {bits} --q-group-size {group or 64}"
    return core_ml_code(change.apply[0]) if change.apply and runtime == "coreml" else ""


def core_ml_code(text: str) -> str:
    """The call of coremltools 8 and later that a technique of stored weights stands for; "" where there is none."""
    technique = parse_technique(text)
    if isinstance(technique, RoundToNearest) and technique.bits in (4, 8):
        grain = "per_channel" if not technique.group else "per_block"
        block = f", block_size={technique.group}" if technique.group else ""
        return (
            "cto.linear_quantize_weights(model, cto.OptimizationConfig(cto.OpLinearQuantizerConfig("
            f"mode='linear_symmetric', dtype='int{technique.bits}', granularity='{grain}'{block})))"
        )
    if isinstance(technique, PaletteWeights) and hasattr(technique, "bits") and hasattr(technique, "group"):
        bits, group = technique.bits, technique.group
        grain = f", granularity='per_grouped_channel', group_size={group}" if group else ""
        return (
            "cto.palettize_weights(model, cto.OptimizationConfig(cto.OpPalettizerConfig("
            f"mode='kmeans', nbits={bits}{grain})))"
        )
    if isinstance(technique, Prune):
        return (
            "cto.prune_weights(model, cto.OptimizationConfig(cto.OpMagnitudePrunerConfig("
            f"target_sparsity={technique.sparsity:g})))"
        )
    if isinstance(technique, W8a8):
        return "cto.experimental.linear_quantize_activations(model, config, samples), then cto.linear_quantize_weights"
    if isinstance(technique, W4a8):
        return "cto.experimental.linear_quantize_activations(model, config, samples), then 4-bit cto.linear_quantize_weights"
    return ""


UNITS = {"ane": "CPU_AND_NE", "gpu": "CPU_AND_GPU", "cpu": "CPU_ONLY"}


def _engine(change: Change, runtime: str, model: str, after: Prediction) -> str:
    del change, model
    if runtime == "coreml":
        return f"ct.models.MLModel(path, compute_units=ct.ComputeUnit.{UNITS[after.profile.engine]})"
    if runtime == "llama.cpp":
        return f"llama-cli -m model.gguf -ngl {99 if after.profile.engine == 'gpu' else 0}"
    if runtime == "mlx":
        return "mlx_lm.convert --hf-path MODEL, then mlx_lm.generate --model mlx_model"
    return f"run the model with {after.profile.runtime} on the {after.profile.engine}"


def _cache(change: Change, runtime: str, model: str, after: Prediction) -> str:
    del model, after
    technique = parse_technique(change.apply[0])
    if not isinstance(technique, KvQuant):
        return ""
    if runtime == "llama.cpp":
        name = f"q{technique.bits}_0"
        return f"llama-cli -m model.gguf -fa on -ctk {name} -ctv {name}"
    if runtime == "mlx":
        return f"mlx_lm.generate --model mlx_model --kv-bits {technique.bits} --kv-group-size 64"
    return ""


def _attention(change: Change, runtime: str, model: str, after: Prediction) -> str:
    del change, model
    if after.profile.runtime == "whisper.cpp":
        return "whisper-cli -m model.bin -fa"
    if runtime == "llama.cpp":
        return "llama-cli -m model.gguf -fa on"
    return "mx.fast.scaled_dot_product_attention(q, k, v, scale=scale)" if runtime == "mlx" else ""


def _draft(change: Change, runtime: str, model: str, after: Prediction) -> str:
    del model, after
    technique = parse_technique(change.apply[0])
    if technique.name == "prompt-lookup" and runtime == "llama.cpp":
        return "llama-lookup -m model.gguf --draft-max 10"
    if not isinstance(technique, Speculative):
        return ""
    if runtime == "llama.cpp":
        return f"llama-speculative -m model.gguf -md {technique.draft}.gguf --draft-max {technique.tokens}"
    draft = f"--draft-model {technique.draft} --num-draft-tokens {technique.tokens}"
    return f"mlx_lm.generate --model mlx_model {draft}" if runtime == "mlx" else ""


def _batch(change: Change, runtime: str, model: str, after: Prediction) -> str:
    del change, model
    size = after.request.batch
    if runtime == "llama.cpp" and "decode" in after.phases:
        return f"llama-server -m model.gguf -np {size} -cb"
    return f"give the model {size} inputs in one call"


def _chunk(change: Change, runtime: str, model: str, after: Prediction) -> str:
    del model, after
    technique = parse_technique(change.apply[0])
    if not isinstance(technique, PrefillChunk):
        return ""
    if runtime == "llama.cpp":
        return f"llama-cli -m model.gguf -b {max(2048, technique.tokens)} -ub {technique.tokens}"
    return f"mlx_lm.generate --model mlx_model --prefill-step-size {technique.tokens}" if runtime == "mlx" else ""


def _context(change: Change, runtime: str, model: str, after: Prediction) -> str:
    del runtime, model, after
    name, size = change.fields[0]
    return f"keep the last {size:,} tokens of the {'conversation' if name == 'depth' else 'prompt'}"


def _steps(change: Change, runtime: str, model: str, after: Prediction) -> str:
    del runtime, model, after
    steps = dict(change.fields).get("steps")
    return f"pipeline(prompt, num_inference_steps={steps})" if steps else ""
