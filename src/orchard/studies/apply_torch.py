"""Make a recommendation real for a PyTorch module: torchao stores its weights as integers, and the program is exported.

The result is a `.pt2` of torch.export: a program in JSON beside raw tensors, read back without running code of the model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchard.studies.errors import StudyError
from orchard.studies.request import Request
from orchard.studies.sources import FUNCTION, parse_inputs
from orchard.techniques import Technique
from orchard.techniques.formats import RoundToNearest
from orchard.units import OrchardError

BITS = (8,)
"""On this side of Apple's machines torchao packs no symmetric 4-bit weights: it would keep a byte for each."""

OTHER = "--to aimodel makes 4-bit integers and palettes"


def refusal(model: str, techniques: Sequence[Technique]) -> str:
    """Why torchao makes no module of this; "" where it does."""
    if Path(model).suffix == ".pt2":
        return "torchao changes the layers of a module, and a .pt2 holds a program without layers: give package.module:function"
    if len(techniques) != 1 or not isinstance(techniques[0], RoundToNearest):
        return f"torchao makes integers of weights alone, not {' with '.join(t.name for t in techniques)}; {OTHER}"
    if techniques[0].bits not in BITS:
        return f"torchao would keep a byte for each {techniques[0].bits}-bit weight, so nothing is gained over 8; {OTHER}"
    return ""


def is_module(model: str) -> bool:
    """Whether a text names PyTorch code or an exported program."""
    return Path(model).suffix == ".pt2" or (FUNCTION.fullmatch(model) is not None and not Path(model).exists())


def stem_of(model: str) -> str:
    """How a result is named: the function of `package.module:function`."""
    return Path(model).stem if Path(model).exists() else model.rpartition(":")[2]


def make_module(request: Request, target: Path, techniques: Sequence[Technique]) -> int:
    """Write the quantized program to `target`; the bytes of all tensors it stores. Raises StudyError or ImportError_."""
    from orchard.workloads.importers.errors import need
    from orchard.workloads.importers.torch_export.live import export_module, first_line, quiet

    torch = need("torch", "torch", "a PyTorch model")
    module, inputs = live(request)
    technique = techniques[0]
    assert isinstance(technique, RoundToNearest)
    try:
        with quiet():
            made = _quantized(torch, module, technique)
            program, _ = export_module(torch, made, inputs, request.model)
            torch.export.save(program, str(target))
    except OrchardError:
        raise
    except Exception as error:  # torchao and torch.export raise whatever their passes raise
        raise StudyError(f"torchao cannot apply {technique} to {request.model[:80]}: {first_line(error)}") from None
    return sum(t.nbytes for t in {id(t): t for t in program.state_dict.values()}.values())


def live(request: Request) -> tuple[Any, dict[str, Any]]:
    """A copy of the module that `package.module:function` returns, in evaluation mode, and its inputs by name."""
    from orchard.workloads.importers.errors import need
    from orchard.workloads.importers.front import called

    torch = need("torch", "torch", "a PyTorch model")
    module, examples = called(request.model)
    if not isinstance(module, torch.nn.Module):
        raise StudyError(f"--model {request.model[:80]!r}: returns {type(module).__name__}, expected a torch.nn.Module")
    if any(p.is_meta for p in module.parameters()):
        raise StudyError(f"--model {request.model[:80]!r}: its weights are on the meta device; there is nothing to quantize")
    inputs: Mapping[str, Any] = parse_inputs(request.inputs) or examples or {}
    return copy.deepcopy(module).eval().requires_grad_(False), dict(inputs)


def _quantized(torch: Any, module: Any, technique: RoundToNearest) -> Any:
    """The module, whose linear layers and embeddings hold integers now; weights that rows of `group` do not divide stay."""
    from orchard.workloads.importers.errors import need

    ao = need("torchao.quantization", "torchao", "a quantized module")
    from torchao.quantization.granularity import PerAxis, PerGroup
    from torchao.utils import unwrap_tensor_subclass

    kinds, group = (torch.nn.Linear, torch.nn.Embedding), technique.group

    def chosen(layer: Any, name: str) -> bool:
        del name
        return isinstance(layer, kinds) and not (group and layer.weight.shape[-1] % group)

    if not any(chosen(layer, "") for layer in module.modules()):
        raise StudyError(f"{type(module).__name__} has no linear layer or embedding that {technique} fits")
    grain = PerGroup(group) if group else PerAxis(0)
    config = ao.IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{technique.bits}"), granularity=grain, scale_dtype=torch.float16
    )
    ao.quantize_(module, config, filter_fn=chosen)
    return unwrap_tensor_subclass(module)  # plain tensors: what a .pt2 stores
