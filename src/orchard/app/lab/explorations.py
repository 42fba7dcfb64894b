"""Explorations the server starts: each is a process of its own that works on a run's folder, like `orchard explore`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.app.lab.files import Files
from orchard.app.lab.pool import Answer, Pool, environment
from orchard.app.lab.worker import refusal
from orchard.units import OrchardError

NAME = re.compile(r"[\w][\w-]{0,90}")
MOST_AT_ONCE = 2
LIVE_PARTS = 40
"""A study that does not say how large its batches are is cut in about as many, so that the front is seen to grow."""


@dataclass(slots=True)
class Going:
    """A process, and what it said on stderr when it ended."""

    process: asyncio.subprocess.Process
    said: str = ""
    watch: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


class Explorations:
    """`root`: the folder that holds runs; a run's name is its folder's."""

    def __init__(self, root: Path, pool: Pool, files: Files) -> None:
        self.root, self.pool, self.files = root, pool, files
        self.going: dict[str, Going] = {}
        self._numbers = itertools.count()

    def folder(self, name: str) -> Path:
        """Raises OrchardError for what is no run of this server: a name, never a path."""
        if not NAME.fullmatch(name) or not (self.root / name / "run.json").is_file():
            raise OrchardError(f"run {name[:60]!r} is not known; /api/v1/runs lists them")
        return self.root / name

    def listed(self) -> dict[str, Any]:
        """`orchard.runs/1`, a run's `folder` being its name here."""
        from orchard.report.explore import runs_record
        from orchard.studies.explore.runs import list_runs

        record = runs_record(list_runs(self.root) if self.root.is_dir() else [])
        for run in record["runs"]:
            run["folder"] = Path(run["folder"]).name
        return record

    async def start(self, study: dict[str, Any]) -> Answer:
        """Check a study, then run it. The answer is its first status."""
        if sum(g.alive for g in self.going.values()) >= MOST_AT_ONCE:
            return Answer(429, refusal(f"{MOST_AT_ONCE} explorations are running; stop one, or wait for it"))
        import yaml

        search = study.get("search")
        if isinstance(search, dict) and isinstance(search.get("designs"), int):
            search.setdefault("batch", max(1, search["designs"] // LIVE_PARTS))
        own = self.files.state / f"study-{next(self._numbers)}"
        file = own / "study.yaml"
        try:
            text = yaml.safe_dump(study, sort_keys=False)
            own.mkdir(parents=True)
            file.write_text(text)
        except OSError as error:
            return Answer(422, refusal(f"the study cannot be written ({error.strerror}); finished runs are kept"))
        except (yaml.YAMLError, RecursionError):
            return Answer(422, refusal("the study cannot be written as YAML"))
        body = {"file": str(file), "study": study, "files": self.files.records()}
        try:
            checked = await self.pool.slow.call("study_check", body)
        finally:
            shutil.rmtree(own, ignore_errors=True)
        if checked.status != 200:
            return checked
        name = json.loads(checked.body)["run"]
        if not self._works_on(name):
            await self._launch(name, text)
        return await self.status(name)

    async def resume(self, name: str) -> Answer:
        folder = self.folder(name)
        if not self._works_on(name):
            try:
                study = (folder / "study.yaml").read_text()
            except (OSError, ValueError) as error:
                raise OrchardError(f"run {name!r}: its study.yaml cannot be read ({type(error).__name__})") from None
            await self._launch(name, study)
        return await self.status(name)

    def _works_on(self, name: str) -> bool:
        return name in self.going and self.going[name].alive

    async def stop(self, name: str) -> Answer:
        """What is finished stays; `resume` goes on."""
        self.folder(name)
        await _ended(self.going.get(name))
        return await self.status(name)

    async def status(self, name: str) -> Answer:
        going = self.going.get(name)
        for _ in range(600):  # a process that has just been started writes its record first
            if (self.root / name / "run.json").is_file() or going is None or not going.alive:
                break
            await asyncio.sleep(0.1)
        if going is not None and going.watch is not None and not going.alive:
            await asyncio.wait({going.watch}, timeout=1)  # for what it said last
        state, message = _state(going)
        try:
            folder = self.folder(name)
        except OrchardError as error:
            return Answer(404, refusal(str(error))) if going is None else Answer(422, refusal(message or str(error)))
        body = {"folder": str(folder), "name": name, "process": state, "message": message}
        return await self.pool.slow.call("run_status", body)

    async def _launch(self, name: str, study: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchard.app.lab.exploring", str((self.root / name).absolute()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=environment(),
        )  # fmt: skip
        going = self.going[name] = Going(process)
        sent = json.dumps({"study": study, "files": self.files.records()}).encode()
        going.watch = asyncio.create_task(_watch(going, sent))

    async def close(self) -> None:
        for going in self.going.values():
            await _ended(going)


async def _ended(going: Going | None) -> None:
    if going is not None and going.alive:
        with contextlib.suppress(ProcessLookupError):
            going.process.terminate()
        await going.process.wait()


async def _watch(going: Going, sent: bytes) -> None:
    _, said = await going.process.communicate(sent)
    going.said = said.decode(errors="replace").strip()[-400:]


def _state(going: Going | None) -> tuple[str, str]:
    if going is None:
        return "none", "nobody works on this run; resume it to go on"
    code = going.process.returncode
    if code is None:
        return "running", ""
    if code == 2:
        return "ended", going.said
    if code < 0:
        return "ended", f"the worker was ended by signal {-code}; what it had finished is kept, resume it to go on"
    last = going.said.splitlines()[-1] if going.said else ""
    return "ended", f"the worker ended ({last or f'exit code {code}'}); what it had finished is kept, resume it to go on"
