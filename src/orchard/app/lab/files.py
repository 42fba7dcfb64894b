"""Model files: those of one folder the user named, and uploads. Each is read once by a process of its own (`importing`)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import shutil
import sys
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.app.lab.pool import environment
from orchard.units import OrchardError

SAFE = (".onnx", ".gguf", ".safetensors", ".mlmodel", ".mlxfn", ".json", ".zip")
PACKAGES = (".mlpackage", ".aimodel")
PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".pt2", ".joblib", ".npy")
LIMIT_S = 90.0
MOST_FILES = 2000
NAME = re.compile(r"[\w][\w .+-]{0,119}")


class RefusedFileError(OrchardError):
    """A file or name that the server does not take; one sentence says why."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """`id` names it in requests; `record` is what the importing process wrote."""

    id: str
    name: str
    source: str
    params: int
    ops: int
    warnings: tuple[str, ...]
    record: Path

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id, "name": self.name, "source": self.source, "params": self.params, "ops": self.ops,
            "warnings": list(self.warnings),
        }  # fmt: skip


class Files:
    """`state`: a folder of the server's own; `shared`: the user's folder with models, if any."""

    def __init__(self, state: Path, shared: Path | None, most_bytes: int) -> None:
        self.state, self.shared, self.most_bytes = state, shared, most_bytes
        self.known: dict[str, ModelFile] = {}
        self._turn = asyncio.Lock()

    def records(self) -> dict[str, str]:
        """What a worker needs to open any of them."""
        return {name: str(file.record) for name, file in self.known.items()}

    def listed(self) -> list[str]:
        """Names in the shared folder that can be opened, relative to it."""
        if self.shared is None:
            return []
        found = []
        for path in sorted(self.shared.rglob("*")):
            inside_package = any(p.suffix in PACKAGES for p in path.relative_to(self.shared).parents)
            if not inside_package and (path.suffix in PACKAGES if path.is_dir() else path.suffix in SAFE):
                found.append(str(path.relative_to(self.shared)))
            if len(found) >= MOST_FILES:
                break
        return found

    async def open_shared(self, name: str) -> ModelFile:
        """Only names that the listing has: no other path reaches a file."""
        if self.shared is None or name not in await asyncio.to_thread(self.listed):
            raise RefusedFileError(f"{name[:80]!r} is not in the folder the server was started with (--models)")
        path = (self.shared / name).resolve()
        if not path.is_relative_to(self.shared.resolve()):
            raise RefusedFileError(f"{name[:80]!r} leads out of the folder of models")
        version = hashlib.sha256(f"{path}{path.stat().st_mtime_ns}".encode()).hexdigest()[:8]
        return await self._read(f"folder:{version}/{name}", path)

    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> ModelFile:
        """Store a body of at most `most_bytes` under its own hash, then read it."""
        checked_name(name)
        async with self._turn:
            self.state.mkdir(parents=True, exist_ok=True)
            partial = self.state / "incoming"
            try:
                digest = await self._store(partial, chunks)
                place = self.state / digest
                place.mkdir(exist_ok=True)
                partial.replace(place / name)
            except OSError as error:
                raise RefusedFileError(f"{name}: cannot be stored ({error.strerror}); finished runs are not touched") from None
            finally:
                partial.unlink(missing_ok=True)
        try:
            path = unpacked(place / name, self.most_bytes) if name.endswith(".zip") else place / name
            return await self._read(f"upload:{digest}/{path.name}", path)
        except OrchardError:
            shutil.rmtree(place, ignore_errors=True)
            raise

    async def _store(self, target: Path, chunks: AsyncIterator[bytes]) -> str:
        sha, size = hashlib.sha256(), 0
        with target.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self.most_bytes:
                    most = self.most_bytes >> 20
                    raise RefusedFileError(f"the file is larger than {most} MiB; start the server with --models FOLDER")
                sha.update(chunk)
                file.write(chunk)
        if not size:
            raise RefusedFileError("the file is empty")
        return sha.hexdigest()[:16]

    async def _read(self, id: str, path: Path) -> ModelFile:
        out = self.state / f"{hashlib.sha256(f'{id}{path.stat().st_mtime_ns}'.encode()).hexdigest()[:24]}.graph.json"
        if not out.exists():
            self.state.mkdir(parents=True, exist_ok=True)
            await _import(path, out)
        data = json.loads(await asyncio.to_thread(out.read_text))
        file = ModelFile(
            id=id, name=data["name"], source=data["source"], params=data["params"], ops=data["ops"],
            warnings=tuple(data["warnings"]), record=out,
        )  # fmt: skip
        self.known[id] = file
        return file


async def _import(path: Path, out: Path) -> None:
    """Run `importing` on a file. Raises RefusedFileError with its sentence, or with how the process ended."""
    partial = out.with_suffix(".partial")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchard.app.lab.importing", path.name, str(partial.absolute()), cwd=path.parent,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        _, said = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise RefusedFileError(f"{path.name}: reading it takes longer than {LIMIT_S:g} s") from None
    if process.returncode == 2:
        raise RefusedFileError(said.decode(errors="replace").strip().splitlines()[-1][:500])
    if process.returncode:
        partial.unlink(missing_ok=True)
        ended = f"the process that read it ended ({process.returncode})"
        raise RefusedFileError(f"{path.name}: {ended}; the file may be damaged or too large")
    data = {**json.loads(partial.read_text()), "file": str(path.absolute())}
    partial.write_text(json.dumps(data))
    partial.replace(out)


def checked_name(name: str) -> None:
    """A plain file name of a type that is safe to read. Raises RefusedFileError."""
    if not NAME.fullmatch(name) or ".." in name:
        raise RefusedFileError(f"{name[:60]!r}: expected a plain file name such as model.onnx")
    suffix = Path(name).suffix.lower()
    if suffix in PICKLED:
        raise RefusedFileError(
            f"{name}: {suffix} files may hold pickles, which run code when they are loaded; save the weights as .safetensors, "
            "export the model to .onnx, or run 'orchard predict' on an exported program of your own"
        )
    if suffix not in SAFE:
        raise RefusedFileError(f"{name}: expected a name that ends with {', '.join(SAFE)} (an .mlpackage as .zip)")


def unpacked(archive: Path, most_bytes: int) -> Path:
    """The one package inside a zip, written beside it. Raises RefusedFileError for paths that lead out, and for bombs."""
    try:
        with zipfile.ZipFile(archive) as packed:
            infos = [i for i in packed.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
            tops = {i.filename.replace("\\", "/").split("/")[0] for i in infos}
            if len(tops) != 1 or not (top := next(iter(tops))).endswith(PACKAGES) or not NAME.fullmatch(top):
                raise RefusedFileError(f"{archive.name}: expected one .mlpackage folder in the archive")
            if len(infos) > MOST_FILES or sum(i.file_size for i in infos) > 4 * most_bytes:
                raise RefusedFileError(f"{archive.name}: unpacks to more than {4 * most_bytes >> 20} MiB or {MOST_FILES} files")
            for info in infos:
                _extract(packed, info, archive.parent)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise RefusedFileError(f"{archive.name}: not an archive that can be read ({type(error).__name__})") from None
    finally:
        with contextlib.suppress(OSError):
            archive.unlink()
    return archive.parent / top


def _extract(packed: zipfile.ZipFile, info: zipfile.ZipInfo, into: Path) -> None:
    target = (into / info.filename).resolve()
    if not target.is_relative_to(into.resolve()) or info.external_attr >> 28 == 0xA:
        raise RefusedFileError(f"{info.filename[:80]!r} in the archive leads out of it")
    target.parent.mkdir(parents=True, exist_ok=True)
    left = info.file_size
    with packed.open(info) as source, target.open("wb") as sink:
        while chunk := source.read(1 << 20):
            left -= len(chunk)
            if left < 0:
                raise RefusedFileError(f"{info.filename[:80]!r} in the archive is larger than it says")
            sink.write(chunk)
