"""What a user asks for, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, fields

from orchard.studies.errors import StudyError
from orchard.units import did_you_mean

FIDELITIES = ("bound", "estimate", "simulation")
LIMITS = {
    "steps": (1, 10_000),
    "batch": (1, 4096),
    "prompt": (0, 2**24),
    "generate": (0, 2**24),
    "depth": (0, 2**24),
    "threads": (1, 1024),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prediction.

    model      built-in name, config.json or model file
    chip       catalogue id or YAML file; `overrides` are `path=value` texts
    runtime    a profile's runtime, optionally with a build date (`llama.cpp@2023-11`); None picks by engine and weights
    engine     auto, cpu, gpu, ane or a Core ML compute-unit name
    weights    weight scheme (`q4_k_m`, `mlx-4bit-g64`, ...); None keeps the model's own
    kv, activations   number formats of the cache and of activations
    batch      sequences at once; prompt, generate: tokens per sequence; depth: tokens cached before the prompt
    threads    CPU threads; None lets the runtime choose
    inputs     shapes of a model file's inputs (`image=1x3x224x224`)
    steps      denoising steps of a pipeline that makes pictures; None takes its own number
    apply      techniques in order (`palettize:bits=4,group=16`; `orchard technique list`)
    assume_elementwise   op types of a model file without a rule that may count as touching each element once
    """

    model: str
    chip: str
    runtime: str | None = None
    engine: str = "auto"
    weights: str | None = None
    activations: str = "f16"
    kv: str = "f16"
    batch: int = 1
    prompt: int = 512
    generate: int = 128
    depth: int = 0
    threads: int | None = None
    fidelity: str = "estimate"
    overrides: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    steps: int | None = None
    assume_elementwise: tuple[str, ...] = ()
    apply: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is None and name in ("threads", "steps"):
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise StudyError(f"{name}: got {value!r}, expected a whole number")
            if not least <= value <= most:
                raise StudyError(f"{name}: got {value}, expected {least} to {most}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "str" and not isinstance(value, str):
                raise StudyError(f"{field.name}: got {value!r}, expected text")
        if self.fidelity not in FIDELITIES:
            hint = did_you_mean(self.fidelity, FIDELITIES)
            raise StudyError(f"fidelity {self.fidelity!r} is not known{hint}; expected {', '.join(FIDELITIES)}")
        if self.prompt == 0 and self.generate == 0:
            raise StudyError("prompt and generate are both 0: nothing to predict; give at least one token")
