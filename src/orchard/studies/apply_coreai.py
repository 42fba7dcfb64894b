"""Make a recommendation real for a PyTorch module as a Core AI program: coreai-opt compresses, coreai-torch converts.

Both run on Linux; nothing runs on the model's data, so what needs samples (8-bit activations) is not made.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchard.studies.apply_torch import live
from orchard.studies.errors import StudyError
from orchard.studies.request import Request
from orchard.techniques import Technique
from orchard.techniques.formats import PaletteGrouped, Palettize, RoundToNearest
from orchard.units import OrchardError

MADE = (RoundToNearest, Palettize, PaletteGrouped)


def refusal(model: str, techniques: Sequence[Technique]) -> str:
    """Why no program is made of this; "" where one is."""
    if Path(model).suffix == ".pt2":
        return "coreai-opt changes the layers of a module, and a .pt2 holds a program without: give package.module:function"
    if len(techniques) != 1 or not isinstance(techniques[0], MADE):
        return f"Orchard asks coreai-opt for integers or palettes of weights, not {' with '.join(t.name for t in techniques)}"
    chosen = techniques[0]
    if isinstance(chosen, RoundToNearest) and chosen.bits not in (4, 8):
        return f"coreai-opt is asked for 4- and 8-bit integers, not {chosen.bits} bits"
    return ""


def make_program(request: Request, target: Path, techniques: Sequence[Technique]) -> int:
    """Write the `.aimodel` to `target`; bytes of its program file, weights and all. Raises StudyError or ImportError_."""
    from orchard.workloads.importers.errors import need
    from orchard.workloads.importers.torch_export.live import example_inputs, export_module, first_line, quiet

    module, inputs = live(request)
    technique = techniques[0]
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            need("coreai_opt", "coreai", "a compressed Core AI program")
            converter = need("coreai_torch", "coreai", "a Core AI program")
            given = _in_order(module, example_inputs(module, inputs, request.model))
            made = _compressor(module, technique, given)
            program, _ = export_module(need("torch", "torch", "a PyTorch model"), made, inputs, request.model)
            program = program.run_decompositions(converter.get_decomp_table())
            converter.TorchConverter().add_exported_program(program).to_coreai().save_asset(target)
    except OrchardError:
        raise
    except Exception as error:  # both libraries raise whatever their passes raise
        raise StudyError(f"coreai-opt cannot apply {technique} to {request.model[:80]}: {first_line(error)}") from None
    return (target / "main.mlirb").stat().st_size


def _in_order(module: Any, given: dict[str, Any]) -> tuple[Any, ...]:
    """Arguments by position up to the last one given; coreai-opt takes no names."""
    accepted = list(inspect.signature(module.forward).parameters.values())
    last = max(i for i, p in enumerate(accepted) if p.name in given)
    return tuple(given.get(p.name, p.default) for p in accepted[: last + 1])


def _compressor(module: Any, technique: Technique, given: tuple[Any, ...]) -> Any:
    """The module with compressed weights, ready for export."""
    from orchard.workloads.importers.errors import need

    if isinstance(technique, RoundToNearest):
        q = need("coreai_opt.quantization", "coreai", "a quantized Core AI program")
        group = technique.group
        grain = q.spec.PerBlockGranularity(axis=1, block_size=group) if group else q.spec.PerChannelGranularity()
        weight = q.QuantizationSpec(dtype=f"int{technique.bits}", granularity=grain)
        alone = q.ModuleQuantizerConfig(op_state_spec={"weight": weight}, op_input_spec=None, op_output_spec=None)
        compressor = q.Quantizer(module, q.QuantizerConfig(global_config=alone, execution_mode="eager"))
    else:
        assert isinstance(technique, Palettize | PaletteGrouped)
        p, group = need("coreai_opt.palettization", "coreai", "a palettized Core AI program"), technique.group
        tables = p.spec.PerGroupedChannelGranularity(axis=0, group_size=group) if group else p.spec.PerTensorGranularity()
        vector = technique.vector if isinstance(technique, Palettize) else 1
        spec = p.PalettizationSpec(n_bits=technique.bits, granularity=tables, cluster_dim=vector)
        every = p.ModuleKMeansPalettizerConfig(op_state_spec={"weight": spec})
        compressor = p.KMeansPalettizer(module, p.KMeansPalettizerConfig(global_config=every))
    compressor.prepare(given)
    return compressor.finalize()
