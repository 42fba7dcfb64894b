"""`orchard map MODEL`: every op of a model on one engine, and what a better kernel would save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchard.app.output import note, print_json, print_text, warn


def open_cache(folder: str | None, off: bool) -> Any:
    """The cache of mappings: the user's, another folder, or none."""
    from orchard.studies.map_cache import MappingCache, default_folder

    return None if off else MappingCache(Path(folder) if folder else default_folder())


def clear_cache(folder: str | None) -> None:
    """Remove every stored mapping."""
    cache = open_cache(folder, off=False)
    print_text(f"removed {cache.clear()} mappings from {cache.folder}")


def map_whole_model(request: Any, space: Any, arch: Any, *, phases: list[str], op: str | None, as_json: bool) -> None:
    """Print the mapping of a model or of a part of it."""
    from orchard.report.map_model import model_mapping_record, model_mapping_text
    from orchard.studies.map_model import map_model

    found = map_model(request, space, arch=arch, phases=phases, op=op, say=note)
    if as_json:
        print_json(model_mapping_record(found))
    else:
        print_text(model_mapping_text(found, nests=op is not None))
    warn(found.warnings)
