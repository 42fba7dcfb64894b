"""Model files: those of one folder the user named, and uploads. Each is read once by a process of its own (`importing`)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchard.app.lab.importing import PACKAGES, unpacking_folder
from orchard.app.lab.pool import environment
from orchard.units import OrchardError

SAFE = (".onnx", ".gguf", ".safetensors", ".mlmodel", ".mlxfn", ".json", ".zip")
PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".pt2", ".joblib", ".npy")
LIMIT_S = 90.0
MOST_FILES = 2000
MOST_READING = 2
"""Files read at a time; each may take the memory that `importing` allows."""
NAME = re.compile(r"[\w][\w .+-]{0,119}")
_NUMBERS = itertools.count()
"""For names of files that are being written."""


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
        self._reading = asyncio.Semaphore(MOST_READING)

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
        return await self._read(str(PurePosixPath(f"folder:{version}") / Path(name).parent), path)

    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> ModelFile:
        """Store a body of at most `most_bytes` under the hash of name and content, then read it."""
        checked_name(name)
        partial = self.state / f"incoming-{next(_NUMBERS)}"
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            digest = await self._store(partial, name, chunks)
            place = self.state / digest
            place.mkdir(exist_ok=True)
            partial.replace(place / name)
        except OSError as error:
            raise RefusedFileError(f"{name}: cannot be stored ({error.strerror}); finished runs are not touched") from None
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        try:
            return await self._read(f"upload:{digest}", place / name)
        except OrchardError:
            shutil.rmtree(place, ignore_errors=True)
            raise

    async def _store(self, target: Path, name: str, chunks: AsyncIterator[bytes]) -> str:
        sha, size = hashlib.sha256(name.encode() + b"\0"), 0
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

    async def _read(self, origin: str, path: Path) -> ModelFile:
        """`origin` changes when the file does. The id is it and the name of the file, or of the package in an archive."""
        out = self.state / f"{hashlib.sha256(f'{origin}/{path.name}'.encode()).hexdigest()[:24]}.graph"
        async with self._reading:
            if not out.exists():
                try:
                    self.state.mkdir(parents=True, exist_ok=True)
                    await _import(path, out, self.most_bytes)
                except OSError as error:
                    why = f"{path.name}: what was read of it cannot be kept ({error.strerror}); finished runs are not touched"
                    raise RefusedFileError(why) from None
        with out.open() as lines:
            about = json.loads(lines.readline())
        id = f"{origin}/{Path(about['file']).name}"
        file = ModelFile(
            id=id, name=about["name"], source=about["source"], params=about["params"], ops=about["ops"],
            warnings=tuple(about["warnings"]), record=out,
        )  # fmt: skip
        self.known[id] = file
        return file


async def _import(path: Path, out: Path, most_bytes: int) -> None:
    """Run `importing` on a file. Raises RefusedFileError with its sentence, or with how the process ended."""
    partial = out.with_suffix(f".{next(_NUMBERS)}.partial")
    try:
        await _imported(path, partial, most_bytes)
    except BaseException:
        partial.unlink(missing_ok=True)
        shutil.rmtree(unpacking_folder(partial), ignore_errors=True)
        raise
    partial.replace(out)


async def _imported(path: Path, partial: Path, most_bytes: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchard.app.lab.importing", path.name, str(partial.absolute()), str(most_bytes),
        cwd=path.parent, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        _, said = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        raise RefusedFileError(f"{path.name}: reading it takes longer than {LIMIT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 2:
        raise RefusedFileError(said.decode(errors="replace").strip().splitlines()[-1][:500])
    if process.returncode:
        ended = f"the process that read it ended ({process.returncode})"
        raise RefusedFileError(f"{path.name}: {ended}; the file may be damaged or too large")


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
