"""The built page, read into memory once and sent compressed. Nothing but the files of the package can be asked for."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import Request, Response

TYPES = {
    "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml", "json": "application/json",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    zipped: bytes
    type: str


def assets() -> dict[str, Asset]:
    """By path below `lab_static`, which `npm run build` in web/ writes."""
    return {path: _asset(path, file.read_bytes()) for path, file in _walk(files("orchard.app").joinpath("lab_static"), "")}


def _walk(folder: Traversable, at: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        found += _walk(entry, f"{at}{entry.name}/") if entry.is_dir() else [(at + entry.name, entry)]
    return found


def _asset(path: str, body: bytes) -> Asset:
    return Asset(body, gzip.compress(body, 9, mtime=0), TYPES.get(path.rpartition(".")[2], "application/octet-stream"))


class Page:
    """Names with a hash in them may be kept by the browser for good; index.html may not."""

    def __init__(self) -> None:
        self.assets = assets()

    async def serve(self, request: Request, path: str) -> Response:
        found = self.assets.get(path or "index.html")
        if found is None:
            sentence = b'{"error": "nothing is here; the page is at /, the API below /api/v1"}'
            return Response(sentence, 404, media_type="application/json")
        keep = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
        headers = {"cache-control": keep, "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.zipped, headers={**headers, "content-encoding": "gzip"}, media_type=found.type)
        return Response(found.body, headers=headers, media_type=found.type)
