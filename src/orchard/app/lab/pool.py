"""Worker processes as the server sees them: one job at a time each, killed at a time limit, started again after a death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orchard
from orchard.app.lab.worker import refusal

MOST_WAITING = 256


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON body, ready to be sent."""

    status: int
    body: bytes


def environment() -> dict[str, str]:
    """For child processes: this very Orchard, one thread for linear algebra (the numbers are small, the cores are shared)."""
    source = str(Path(orchard.__file__).parents[1])
    paths = [source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


class Worker:
    """One process. Callers wait in the order they came; a job that outlives `limit_s` ends the process."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.deaths = 0
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def call(
        self, job: str, body: dict[str, Any], abandoned: Callable[[], Awaitable[bool]] | None = None
    ) -> Answer:
        """`abandoned`: asked when the turn has come, so that nobody waits for answers that no one reads any more."""
        if self._waiting >= MOST_WAITING:
            return Answer(429, refusal(f"{MOST_WAITING} requests are waiting already; try again in a moment"))
        self._waiting += 1
        try:
            async with self._turn:
                if abandoned is not None and await abandoned():
                    return Answer(422, refusal("whoever asked has gone"))
                return await self._call(job, body)
        finally:
            self._waiting -= 1

    async def _call(self, job: str, body: dict[str, Any]) -> Answer:
        line = json.dumps({"job": job, "body": body}).encode() + b"\n"
        for _ in range(2):
            try:
                return await asyncio.wait_for(self._exchange(line), self.limit_s)
            except TimeoutError:
                await self.stop()
                sentence = f"this takes longer than {self.limit_s:g} s, which is the server's limit; use the command line"
                return Answer(422, refusal(sentence))
            except (asyncio.IncompleteReadError, OSError, ValueError):
                self.deaths += 1  # killed, or out of memory: a new process may do better, once
                await self.stop()
            except asyncio.CancelledError:
                await self.stop()  # its answer would be read as the next one's
                raise
        return Answer(422, refusal("the worker process ended twice on this request; it may need more memory than it may use"))

    async def _exchange(self, line: bytes) -> Answer:
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        await process.stdin.drain()
        header = json.loads(await process.stdout.readuntil(b"\n"))
        return Answer(header["status"], await process.stdout.readexactly(header["length"]))

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "orchard.app.lab.worker", stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, env=environment(),
            )  # fmt: skip
        return self._process

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@dataclass(frozen=True, slots=True)
class Pool:
    """`quick` answers what a slider asks, `placer` finds placements, `slow` looks after runs: none waits behind another."""

    quick: Worker
    placer: Worker
    slow: Worker

    async def stop(self) -> None:
        await self.quick.stop()
        await self.placer.stop()
        await self.slow.stop()
