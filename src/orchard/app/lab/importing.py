"""Read one model file of unknown origin in a process of its own, and write its graph as text.

    python -m orchard.app.lab.importing FILE OUT MOST_BYTES      in the folder of the file

Exit code 0: OUT holds a line about the model, and one with its graph; 2: one sentence on stderr says why not. Limits of memory,
processor time and file size hold from the first line on, so a hostile file costs its own process. An archive is unpacked
here too, into a folder beside OUT.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
import zipfile
import zlib
from pathlib import Path

from orchard.app.lab.worker import limit
from orchard.units import OrchardError

PACKAGES = (".mlpackage", ".aimodel")
MEMORY_BYTES = 4 << 30
CPU_S = 60
WRITES_BYTES = 128 << 20
MOST_PACKED = 2000
"""Files in an archive."""
MOST_GROWTH = 4
"""An archive may unpack to so many times the largest upload."""
TOP = re.compile(r"[\w][\w .+-]{0,119}")


class UnreadableError(OrchardError):
    """A file that cannot be read here; one sentence says why."""


def main(file: str, out: str, most_bytes: str) -> int:
    most = MOST_GROWTH * int(most_bytes)
    limit(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=most)
    try:
        path = unpacked(Path(file), unpacking_folder(Path(out)), most) if file.lower().endswith(".zip") else Path(file)
        limit(memory_bytes=MEMORY_BYTES, file_bytes=WRITES_BYTES)
        about, graph = config_record(str(path)) if file.lower().endswith(".json") else graph_record(str(path))
        Path(out).write_text(f"{json.dumps({**about, 'file': str(path.absolute())})}\n{json.dumps(graph)}")
    except OrchardError as error:
        return _refuse(str(error))
    except (MemoryError, RecursionError):
        return _refuse(f"{file}: too large or nested too deeply to be read here")
    except OSError as error:
        return _refuse(f"{file}: cannot be read or kept ({error.strerror}); finished runs are not touched")
    return 0


def _refuse(sentence: str) -> int:
    print(" ".join(sentence.split()), file=sys.stderr)
    return 2


def unpacking_folder(out: Path) -> Path:
    """Where an archive whose graph goes to `out` is unpacked."""
    return out.with_name(f"{out.name}.unpacked")


def unpacked(archive: Path, into: Path, most_bytes: int) -> Path:
    """The one package inside a zip, written into a folder. Raises UnreadableError for paths that lead out, and for bombs."""
    try:
        with zipfile.ZipFile(archive) as packed:
            infos = [i for i in packed.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
            tops = {i.filename.replace("\\", "/").split("/")[0] for i in infos}
            if len(tops) != 1 or not (top := next(iter(tops))).endswith(PACKAGES) or not TOP.fullmatch(top):
                raise UnreadableError(f"{archive.name}: expected one .mlpackage folder in the archive")
            if len(infos) > MOST_PACKED or sum(i.file_size for i in infos) > most_bytes:
                raise UnreadableError(f"{archive.name}: unpacks to more than {most_bytes >> 20} MiB or {MOST_PACKED} files")
            for info in infos:
                _extract(packed, info, into)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise UnreadableError(f"{archive.name}: not an archive that can be read ({type(error).__name__})") from None
    return into / top


def _extract(packed: zipfile.ZipFile, info: zipfile.ZipInfo, into: Path) -> None:
    target = (into / info.filename).resolve()
    if not target.is_relative_to(into.resolve()) or info.external_attr >> 28 == 0xA:
        raise UnreadableError(f"{info.filename[:80]!r} in the archive leads out of it")
    target.parent.mkdir(parents=True, exist_ok=True)
    left = info.file_size
    with packed.open(info) as source, target.open("wb") as sink:
        while chunk := source.read(1 << 20):
            left -= len(chunk)
            if left < 0:
                raise UnreadableError(f"{info.filename[:80]!r} in the archive is larger than it says")
            sink.write(chunk)


def graph_record(file: str) -> tuple[dict[str, object], str | None]:
    """Name, source, counts and warnings; and the graph in its text form."""
    from orchard.ir import print_graph
    from orchard.workloads.importers import import_model

    found = import_model(file)
    about = {
        "name": found.name or Path(file).name, "source": found.source_format, "warnings": list(found.warnings),
        "params": found.graph.parameters, "ops": len(found.graph.ops),
    }  # fmt: skip
    return about, print_graph(found.graph)


def config_record(file: str) -> tuple[dict[str, object], None]:
    """A Hugging Face configuration: that a model can be built from it is all there is to find out, so no graph is kept."""
    from orchard.workloads import load_model

    model = load_model(file)
    about: dict[str, object] = {
        "name": model.name, "source": "config.json", "warnings": list(model.warnings), "params": model.params,
        "ops": len(model.graph().ops),
    }  # fmt: skip
    return about, None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
