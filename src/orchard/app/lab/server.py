"""The HTTP API (OpenAPI at /api/v1/openapi.json) and the files of the page."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from orchard import __version__
from orchard.app.lab.bodies import AdviceBody, FileBody, PlaceBody, PredictBody, PredictionBody, StudyBody
from orchard.app.lab.explorations import Explorations
from orchard.app.lab.files import SAFE, Files
from orchard.app.lab.guard import Access, App, Guard, Kept
from orchard.app.lab.pool import Answer, Pool, Worker
from orchard.app.lab.static import Page
from orchard.app.lab.worker import refusal
from orchard.report.schemas.advice import Advice
from orchard.report.schemas.base import Record
from orchard.report.schemas.catalogue import Chip, Chips, Models
from orchard.report.schemas.explore import Runs
from orchard.report.schemas.lab import RunStatus, View
from orchard.report.schemas.placement import PlacementRecord
from orchard.report.schemas.prediction import Prediction
from orchard.units import OrchardError

PREFIX = "/api/v1"
QUICK_LIMIT_S, SLOW_LIMIT_S = 20.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`hosts`: names to answer to; `models`: a folder to pick models from; `page`: whether to serve the SoC Lab."""

    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "::1"})
    token: str | None = None
    models: Path | None = None
    runs: Path = Path("orchard-runs")
    most_upload_bytes: int = 512 << 20
    kept_bytes: int = 64 << 20
    page: bool = True


@dataclass(frozen=True, slots=True)
class Lab:
    """What the routes work with."""

    settings: Settings
    pool: Pool
    files: Files
    explorations: Explorations


class Refusal(Record):
    """Every answer that is none: one sentence."""

    error: str


class FileRecord(Record):
    """A model file that was read. `id` names it as `model` in other requests."""

    id: str
    name: str
    source: str
    params: int
    ops: int
    warnings: list[str]


class FilesRecord(Record):
    """`folder`: names that `POST /files` opens; `open`: files that were read; `most_upload_bytes`: larger ones are refused."""

    folder: list[str]
    open: list[FileRecord]
    most_upload_bytes: int
    suffixes: list[str]


class About(Record):
    """What a form may offer."""

    version: str
    weights: list[str]
    kv: list[str]
    runtimes: list[str]
    metrics: list[str]
    methods: list[str]
    figures: dict[str, str]


REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": Refusal, "description": text}
    for code, text in {
        400: "Not JSON", 401: "The token is missing", 403: "Another origin", 404: "Nothing of this name",
        413: "Too large", 415: "Not application/json", 421: "Another host", 422: "What has to be corrected",
        429: "Too many at once",
    }.items()
}  # fmt: skip
router = APIRouter(prefix=PREFIX, responses=REFUSALS)


def lab_of(request: Request) -> Lab:
    found: Lab = request.app.state.lab
    return found


def sent(answer: Answer) -> Response:
    return Response(answer.body, status_code=answer.status, media_type="application/json")


async def ask(request: Request, job: str, body: dict[str, Any], *, placing: bool = False) -> Response:
    lab = lab_of(request)
    worker = lab.pool.placer if placing else lab.pool.quick
    return sent(await worker.call(job, {**body, "files": lab.files.records()}, request.is_disconnected))


@router.get("/about", response_model=About, tags=["catalogue"])
async def about() -> dict[str, Any]:
    """Formats, runtimes, figures and metrics by name."""
    from orchard.cost.profile import load_profile, profile_names
    from orchard.hw import FIGURES
    from orchard.studies.explore.metrics import BASKET, DESIGN
    from orchard.studies.explore.study import METHODS
    from orchard.units import scheme_names

    return {
        "version": __version__, "weights": list(scheme_names()), "kv": ["f16", "q8_0", "q4_0", "int8", "f32"],
        "runtimes": sorted({load_profile(name).runtime for name in profile_names()}), "metrics": [*DESIGN, *BASKET],
        "methods": list(METHODS), "figures": {path: spec.unit for path, spec in FIGURES.items() if not spec.is_text},
    }  # fmt: skip


@router.get("/models", response_model=Models, tags=["catalogue"])
async def models(request: Request) -> Response:
    """The built-in models, as `orchard models --json`."""
    return await ask(request, "models", {})


@router.get("/chips", response_model=Chips, tags=["catalogue"])
async def chips(request: Request) -> Response:
    """The chip catalogue, as `orchard chips --json`."""
    return await ask(request, "chips", {})


Sets = Annotated[list[str], Query(alias="set", max_length=64, description="figure=value, as --set; may be repeated")]


@router.get("/chips/{chip}", response_model=Chip, tags=["catalogue"])
async def chip(request: Request, chip: str, changes: Sets = []) -> Response:  # noqa: B006 - FastAPI copies it
    """Every figure of one chip with unit, kind and source, as `orchard chips show --json`."""
    return await ask(request, "chip", {"chip": chip, "set": changes})


@router.post("/predict", response_model=Prediction, tags=["answers"])
async def predict(request: Request, body: PredictionBody) -> Response:
    """The record of `orchard predict --json`, number for number."""
    return await ask(request, "predict", body.model_dump())


@router.post("/view", response_model=View, tags=["answers"])
async def view(request: Request, body: PredictBody) -> Response:
    """A prediction with breakdown, and what its pictures and explanations need."""
    return await ask(request, "view", body.model_dump())


@router.post("/place", response_model=PlacementRecord, tags=["answers"])
async def place(request: Request, body: PlaceBody) -> Response:
    """The record of `orchard place --json`, without alternatives and restrictions."""
    dumped = body.model_dump()
    dumped.pop("engine")
    return await ask(request, "place", dumped, placing=True)


@router.post("/advise", response_model=Advice, tags=["answers"])
async def advise(request: Request, body: AdviceBody) -> Response:
    """The record of `orchard advise --json`: what to change, what it brings, how to make it. Takes seconds."""
    return await ask(request, "advise", body.model_dump(), placing=True)


@router.get("/files", response_model=FilesRecord, tags=["files"])
async def files(request: Request) -> dict[str, Any]:
    """Model files: those of the server's folder, and those that were read."""
    found = lab_of(request).files
    known = [f.to_dict() for f in found.known.values()]
    return {"folder": found.listed(), "open": known, "most_upload_bytes": found.most_bytes, "suffixes": list(SAFE)}


@router.post("/files", response_model=FileRecord, tags=["files"])
async def open_file(request: Request, body: FileBody) -> dict[str, Any]:
    """Read a file of the server's folder."""
    return (await lab_of(request).files.open_shared(body.name)).to_dict()


@router.put("/files/{name}", response_model=FileRecord, tags=["files"])
async def upload(request: Request, name: str) -> dict[str, Any]:
    """Read a model file: the body is its bytes."""
    try:
        return (await lab_of(request).files.upload(name, request.stream())).to_dict()
    except ClientDisconnect:
        raise OrchardError(f"{name[:60]!r}: the upload ended early; send the file again") from None


@router.get("/runs", response_model=Runs, tags=["explorations"])
def runs(request: Request) -> dict[str, Any]:
    """Runs in the server's folder, newest first."""
    return lab_of(request).explorations.listed()


@router.post("/runs", response_model=RunStatus, tags=["explorations"])
async def start_run(request: Request, body: StudyBody) -> Response:
    """Start (or go on with) the run of a study."""
    return sent(await lab_of(request).explorations.start(body.study))


@router.get("/runs/{run}", response_model=RunStatus, tags=["explorations"])
async def run_status(request: Request, run: str) -> Response:
    """How far a run is, and its front so far."""
    return sent(await lab_of(request).explorations.status(run))


@router.post("/runs/{run}/stop", response_model=RunStatus, tags=["explorations"])
async def stop_run(request: Request, run: str) -> Response:
    """Stop a run; what is finished stays."""
    return sent(await lab_of(request).explorations.stop(run))


@router.post("/runs/{run}/resume", response_model=RunStatus, tags=["explorations"])
async def resume_run(request: Request, run: str) -> Response:
    """Go on with a stopped run."""
    return sent(await lab_of(request).explorations.resume(run))


def make_app(settings: Settings) -> App:
    """The whole application, guard included."""
    temporary = tempfile.TemporaryDirectory(prefix="orchard-lab-")
    pool = Pool(Worker(QUICK_LIMIT_S), Worker(SLOW_LIMIT_S), Worker(SLOW_LIMIT_S))
    own = Files(Path(temporary.name), settings.models, settings.most_upload_bytes)
    lab = Lab(settings, pool, own, Explorations(settings.runs, pool, own))

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        yield
        await lab.explorations.close()
        await pool.stop()
        temporary.cleanup()

    app = FastAPI(
        title="Orchard", version=__version__, lifespan=running, docs_url=None, redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json", description="Predictions for machine-learning workloads on SoCs.",
    )  # fmt: skip
    app.state.lab = lab
    app.include_router(router)
    _say_one_sentence(app)
    if settings.page:
        page = Page()
        app.add_api_route("/{path:path}", page.serve, methods=["GET", "HEAD"], include_in_schema=False)
    return Guard(app, Access(settings.hosts, settings.token), Kept(settings.kept_bytes))


def _say_one_sentence(app: FastAPI) -> None:
    """Every refusal is {"error": sentence}."""

    @app.exception_handler(OrchardError)
    async def of_ours(_: Request, error: OrchardError) -> Response:
        missing = "is not known; /api" in str(error)
        return Response(refusal(str(error)), status_code=404 if missing else 422, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        status = 400 if first["type"] == "json_invalid" else 422
        return Response(refusal(f"{where[:120]}: {first['msg']}"), status_code=status, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return Response(refusal(str(error.detail)), error.status_code, dict(error.headers or {}), "application/json")


__all__ = ["Settings", "make_app"]
