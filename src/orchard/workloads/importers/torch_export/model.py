"""A module, exported program or `.pt2` file as a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchard.workloads.importers.canonical import finish
from orchard.workloads.importers.errors import ImportError_, need
from orchard.workloads.importers.lowering import Imported, Lowering
from orchard.workloads.importers.torch_export.live import export_module, first_line
from orchard.workloads.importers.torch_export.program import RULES, Program, refuse_control_flow

MOST_TEXT = 1 << 28
"""Bytes of a program's JSON that are searched for ops of other libraries; ours are some MiB."""


def import_torch(
    source: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    assume_elementwise: Collection[str] = (),
    name: str | None = None,
) -> Imported:
    """A module, ExportedProgram or path of a `.pt2`.

    For a module, `inputs` maps forward's argument names to shapes (ints, or names of symbolic sizes such as "seq") or
    to
    example tensors.
    """
    torch = need("torch", "torch", "a PyTorch model")
    if isinstance(source, (str, Path)):
        program = _load_pt2(torch, Path(source))
        return _lower(torch, program, name or Path(source).stem, str(source), assume_elementwise, {}, "pt2", inputs)
    if isinstance(source, torch.nn.Module):
        label = name or type(source).__name__
        program, names = export_module(torch, source, dict(inputs or {}), label)
        return _lower(torch, program, label, label, assume_elementwise, names, "torch", None)
    return _lower(torch, source, name or "program", name or "exported program", assume_elementwise, {}, "torch", inputs)


def _load_pt2(torch: Any, path: Path) -> Any:
    import zipfile

    try:
        if not zipfile.is_zipfile(path):
            raise ImportError_(f"{path}: not a .pt2 archive (no zip file), expected what torch.export.save writes")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(m.file_size for m in members) > 64 * path.stat().st_size + (1 << 30):
                raise ImportError_(f"{path}: unpacks to more than 64 times its size, refused")
            _require_graph(path, [m.filename for m in members])
            programs = [m for m in members if m.filename.endswith(".json") and m.file_size < MOST_TEXT]
            if any(b"torch.ops.torchao." in archive.read(m) for m in programs):
                need("torchao.quantization", "torchao", "a program of torchao's ops")
        return torch.export.load(str(path))
    except ImportError_:
        raise
    except Exception as error:
        raise ImportError_(f"{path}: not a readable exported program ({first_line(error)})") from None


def _require_graph(path: Path, names: Sequence[str]) -> None:
    if not any(n.endswith((".json", "serialized_exported_program.json")) for n in names):
        raise ImportError_(f"{path}: holds no exported program; save one with torch.export.save(program, path)")


# ---- lowering


def _lower(
    torch: Any, program: Any, name: str, where: str, assumed: Collection[str], names: Mapping[str, list[Any]],
    source_format: str, inputs: Mapping[str, Any] | None,
) -> Imported:  # fmt: skip
    if not hasattr(program, "graph_signature"):
        raise ImportError_(f"{where}: {type(program).__name__} is no torch module or exported program")
    low = Lowering(name, where, assume_elementwise=assumed)
    builder = Program(torch, program, low, names)
    types = builder.op_types(program.graph_module)
    refuse_control_flow(where, types)
    low.check_known(types, RULES)
    outputs = builder.run()
    graph = finish(low, outputs)
    if inputs:
        graph = _bind(graph, inputs)
    return Imported(
        graph=graph,
        name=name,
        source_format=source_format,
        weights=builder.weights.info(),
        warnings=tuple(low.warnings),
    )


def _bind(graph: Any, inputs: Mapping[str, Any]) -> Any:
    from orchard.workloads.importers.inputs import bind_inputs

    return bind_inputs(graph, inputs)
