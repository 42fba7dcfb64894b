"""Read one model file of unknown origin in a process of its own, and write its graph as text.

    python -m orchard.app.lab.importing FILE OUT      in the folder of the file

Exit code 0: OUT holds the graph; 2: one sentence on stderr says why not. Limits of memory, processor time and file size hold from
the first line on, so a hostile file costs its own process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from orchard.app.lab.worker import limit
from orchard.units import OrchardError

MEMORY_BYTES = 4 << 30
CPU_S = 60
WRITES_BYTES = 128 << 20


def main(file: str, out: str) -> int:
    limit(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=WRITES_BYTES)
    try:
        record = config_record(file) if file.endswith(".json") else graph_record(file)
    except OrchardError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except (MemoryError, RecursionError):
        print(f"{file}: too large or nested too deeply to be read here", file=sys.stderr)
        return 2
    Path(out).write_text(json.dumps(record))
    return 0


def graph_record(file: str) -> dict[str, object]:
    """Name, source, warnings and the graph in its text form."""
    from orchard.ir import print_graph
    from orchard.workloads.importers import import_model

    found = import_model(file)
    return {
        "name": found.name or Path(file).name, "source": found.source_format, "warnings": list(found.warnings),
        "graph": print_graph(found.graph), "params": found.graph.parameters, "ops": len(found.graph.ops),
        "symbols": list(found.graph.symbols),
    }  # fmt: skip


def config_record(file: str) -> dict[str, object]:
    """A Hugging Face configuration: that a model can be built from it is all there is to find out."""
    from orchard.workloads import load_model

    model = load_model(file)
    graph = model.graph()
    return {
        "name": model.name, "source": "config.json", "warnings": list(model.warnings), "graph": None, "params": model.params,
        "ops": len(graph.ops), "symbols": list(graph.symbols),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
