"""Text to picture, end to end: text encoders once, the denoiser once per step, the decoder of the auto-encoder once.

Guidance runs text encoders and denoiser on two inputs per picture, with the prompt and without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchard.workloads.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a pipeline: `model` is the built-in model it is, `inputs` how many of its inputs one picture needs.

    per_step: it runs in every denoising step, else once. tokens: length of its text, None where it reads none.
    """

    part: str
    model: str
    inputs: int = 1
    per_step: bool = False
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """A pipeline. `size`: side of its pictures in pixels; `steps`: denoising steps where none are asked for."""

    name: str
    components: tuple[Component, ...]
    size: int
    steps: int
    source: str
    height: int | None = None
    width: int | None = None
    warnings: tuple[str, ...] = ()
    default_weights: str | None = None
    decoder: None = None

    @property
    def denoiser(self) -> Component:
        return next(c for c in self.components if c.per_step)

    def component(self, part: str) -> Component:
        return next(c for c in self.components if c.part == part)


STEPS = 20
"""Steps of apple/ml-stable-diffusion's benchmarks, and of the Swift command line there by default."""


def _stable_diffusion(name: str, size: int, denoiser: str, *texts: str, source: str) -> PipelineConfig:
    encoders = tuple(
        Component(part="text_encoder" if not i else f"text_encoder_{i + 1}", model=text, inputs=2, tokens=77)
        for i, text in enumerate(texts)
    )
    return PipelineConfig(
        name=name, size=size, steps=STEPS, source=source,
        components=(
            *encoders, Component(part="unet", model=denoiser, inputs=2, per_step=True),
            Component(part="vae_decoder", model="stable-diffusion-vae-decoder"),
        ),
    )  # fmt: skip


CLIP_L, OPENCLIP_H, OPENCLIP_G = "clip-vit-l-14-text", "openclip-vit-h-14-text", "openclip-vit-bigg-14-text"


V1, V2, XL = "stable-diffusion-1.5-unet", "stable-diffusion-2.1-unet", "stable-diffusion-xl-unet"
SMALL = "small-stable-diffusion-v0-unet"
PAPER, SECOND = "CompVis/stable-diffusion, README.md", "Stability-AI/stablediffusion, README.md"


def _all() -> Mapping[str, PipelineConfig]:
    found = (
        _stable_diffusion("stable-diffusion-1.4", 512, V1, CLIP_L, source=PAPER),
        _stable_diffusion("stable-diffusion-1.5", 512, V1, CLIP_L, source=PAPER),
        _stable_diffusion("small-stable-diffusion-v0", 512, SMALL, CLIP_L, source="OFA-Sys/small-stable-diffusion-v0"),
        _stable_diffusion("stable-diffusion-2-base", 512, V2, OPENCLIP_H, source=SECOND),
        _stable_diffusion("stable-diffusion-2.1-base", 512, V2, OPENCLIP_H, source=SECOND),
        _stable_diffusion("stable-diffusion-2.1", 768, V2, OPENCLIP_H, source=SECOND),
        _stable_diffusion("stable-diffusion-xl", 1024, XL, CLIP_L, OPENCLIP_G, source="arXiv:2307.01952"),
        _third(),
    )
    return {p.name: p for p in found}


def _third() -> PipelineConfig:
    """Stable Diffusion 3 medium: three text encoders, latents of 16 channels."""
    texts = tuple(
        Component(part=f"text_encoder_{i}" if i > 1 else "text_encoder", model=model, inputs=2, tokens=tokens)
        for i, (model, tokens) in enumerate(((CLIP_L, 77), (OPENCLIP_G, 77), ("t5-xxl-encoder", 256)), 1)
    )
    return PipelineConfig(
        name="stable-diffusion-3-medium", size=1024, steps=28, source="arXiv:2403.03206",
        components=(
            *texts, Component(part="transformer", model="stable-diffusion-3-transformer", inputs=2, per_step=True),
            Component(part="vae_decoder", model="stable-diffusion-3-vae-decoder"),
        ),
    )  # fmt: skip


PIPELINES: Mapping[str, PipelineConfig] = _all()


def pipeline(name: str) -> PipelineConfig:
    """Raises ModelError with the nearest names for an unknown one."""
    from orchard.units import did_you_mean

    found = PIPELINES.get(name.lower())
    if found is None:
        raise ModelError(f"pipeline {name[:80]!r} is not known{did_you_mean(name, PIPELINES)}")
    return found


_TEXT = re.compile(
    r"(small-)?stable[- ]diffusion[- ]v?([\w.]+?(?:-base)?)(?:[- ](unet|vae decoder|text encoder))?\Z", re.I
)


def known_as(text: str) -> tuple[str, str | None] | None:
    """(pipeline, part) that a table of measurements calls `text`, None for another model; part None is the whole.

    `Stable Diffusion v1.5` is the pipeline stable-diffusion-1.5, `Stable Diffusion 2.1-base UNet` one step of another.
    """
    found = _TEXT.match(text)
    if found is None:
        return None
    small, version, part = found.groups()
    name = f"small-stable-diffusion-v{version}" if small else f"stable-diffusion-{version}".lower()
    return (name, part.lower().replace(" ", "_") if part else None) if name in PIPELINES else None
