"""Arguments and options that several commands share, with their help."""

from __future__ import annotations

from typing import Annotated

import typer

WORKLOAD, MACHINE, ANSWER = "Workload", "Machine", "Answer"


def _option(name: str, help: str, panel: str, metavar: str | None = None) -> typer.models.OptionInfo:
    parser = _whole_number if metavar == "N" else None
    found: typer.models.OptionInfo = typer.Option(
        name, help=help, rich_help_panel=panel, metavar=metavar, show_default=True, parser=parser
    )
    return found


def _whole_number(text: str | int) -> int:
    """Says what it got; the limits of each number are checked by `Request`."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"got {str(text)[:40]!r}, expected a whole number such as 512") from None


ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Built-in name (`orchard models`), config.json, its folder, or a model file."),
]
ModelArguments = Annotated[list[str], typer.Argument(metavar="MODEL...", help="One or more models, as for `predict`.")]
ChipOption = Annotated[str, _option("--chip", "Catalogue id (`orchard chips`), name, or YAML file.", MACHINE, "CHIP")]
RuntimeOption = Annotated[
    str | None,
    _option("--runtime", "llama.cpp, mlx, coreml, ...; with a build date: llama.cpp@2023-11.", MACHINE, "NAME"),
]
EngineOption = Annotated[
    str, _option("--engine", "auto, cpu, gpu, ane, or a Core ML compute unit such as CPU_AND_NE.", MACHINE, "ENGINE")
]
Weights = Annotated[
    str | None, _option("--weights", "Weight format: f16, q8_0, q4_k_m, mlx-4bit-g64, pal4, ...", WORKLOAD, "FORMAT")
]
Activations = Annotated[str, _option("--activations", "Number format of activations.", WORKLOAD, "FORMAT")]
Kv = Annotated[str, _option("--kv", "Number format of the key/value cache.", WORKLOAD, "FORMAT")]
Batch = Annotated[int, _option("--batch", "Sequences at once.", WORKLOAD, "N")]
Prompt = Annotated[int, _option("--prompt", "Prompt tokens per sequence.", WORKLOAD, "N")]
Generate = Annotated[int, _option("--generate", "Tokens to generate per sequence.", WORKLOAD, "N")]
Depth = Annotated[int, _option("--depth", "Tokens in the cache before the prompt.", WORKLOAD, "N")]
Threads = Annotated[int | None, _option("--threads", "CPU threads; the runtime's choice without.", MACHINE, "N")]
Inputs = Annotated[
    list[str] | None,
    _option("--input", "Shape of a model input: name=1x3x224x224. May be repeated.", WORKLOAD, "SHAPE"),
]
Steps = Annotated[
    int | None, _option("--steps", "Denoising steps of a pipeline such as stable-diffusion-1.5.", WORKLOAD, "N")
]
Apply = Annotated[
    list[str] | None,
    _option("--apply", "A technique: palettize:bits=4,group=16 (`orchard technique list`). Repeat to combine.", WORKLOAD, "T"),
]
Assume = Annotated[
    list[str] | None,
    _option("--assume-elementwise", "Op of a model file without a rule: count it as touching each element once.", WORKLOAD, "OP"),
]
Fidelity = Annotated[
    str, _option("--fidelity", "bound (what physics allows), estimate, or simulation.", ANSWER, "LEVEL")
]
Set = Annotated[
    list[str] | None, _option("--set", "Change a figure of the chip: gpu.cores=60. May be repeated.", MACHINE, "FIGURE")
]
Breakdown = Annotated[bool, _option("--breakdown", "Time per layer group and kernel.", ANSWER)]
FailIf = Annotated[
    list[str] | None,
    _option(
        "--fail-if", "Exit with 4 when this holds: 'decode.tokens_per_s<20'. May be repeated.", ANSWER, "CONDITION"
    ),
]
AsJson = Annotated[bool, _option("--json", "Print JSON on stdout.", ANSWER)]
