"""A run on disk: a folder with run.json and one Parquet file per batch. DuckDB writes and reads the parts.

A part appears under its name only when it is complete (written beside, then renamed), so whatever stops a run costs at most the
batch in flight, and a part that is there is right. One process at a time works on a run: it holds the folder's lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.studies.errors import StudyError

SCHEMA = "orchard.run/1"
Rows = dict[str, NDArray[Any]]


def duckdb_connection() -> Any:
    """A connection of its own. Raises StudyError with the remedy when duckdb is not installed."""
    return _database(os.getpid()).cursor()


@lru_cache(maxsize=1)
def _database(process: int) -> Any:
    """One database in memory for each process (a child does not touch its parent's): opening one takes 11 ms, a cursor none."""
    del process
    try:
        import duckdb
    except ImportError:
        raise StudyError("explorations are stored with duckdb, which is not installed: pip install 'orchard[dse]'") from None
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    return connection


@dataclass(frozen=True)
class Part:
    """One batch: the rows it kept, and how many designs it evaluated and found feasible."""

    rows: Rows
    evaluated: int
    feasible: int


@dataclass(frozen=True)
class Store:
    """The folder of one run."""

    folder: Path

    @property
    def manifest_path(self) -> Path:
        return self.folder / "run.json"

    def manifest(self) -> dict[str, Any]:
        """run.json. Raises StudyError when the folder holds no run."""
        try:
            data = json.loads(self.manifest_path.read_text("utf-8"))
        except FileNotFoundError:
            raise StudyError(f"{self.folder}: no run here (no run.json)") from None
        except (OSError, ValueError) as error:
            raise StudyError(f"{self.manifest_path}: cannot be read ({type(error).__name__})") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise StudyError(f"{self.manifest_path}: not a run of this version (expected schema {SCHEMA})")
        return data

    def write_manifest(self, data: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self.manifest_path, json.dumps(data, indent=1, sort_keys=True).encode())

    def _write(self, path: Path, data: bytes) -> None:
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with _room_for(path, beside):
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)

    def part_path(self, number: int) -> Path:
        return self.folder / "parts" / f"part-{number:06d}.parquet"

    def finished(self) -> set[int]:
        """Numbers of the parts that are there."""
        names = (p.stem.rpartition("-")[2] for p in (self.folder / "parts").glob("part-*.parquet"))
        return {int(number) for number in names if number.isdecimal()}

    def lost(self, manifest: Mapping[str, Any]) -> list[int]:
        """Parts that a complete run should have and has not; of a guided run, those before its last."""
        done = self.finished()
        guided = manifest["method"] in ("nsga2", "optuna")
        count = max(done, default=0) + 1 if guided else -(-manifest["designs"] // manifest["batch"])
        return [number for number in range(count) if number not in done]

    def clean(self) -> None:
        """Remove what a killed run left half-written."""
        for folder in (self.folder, self.folder / "parts"):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def write_part(self, number: int, part: Part) -> None:
        """Raises StudyError where it cannot be written, a full disk for one; parts that are there stay as they are."""
        path = self.part_path(number)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with _room_for(path, beside):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write_parquet(beside, part)
            os.replace(beside, path)

    def _write_parquet(self, target: Path, part: Part) -> None:
        rows = {name: column.astype(object) if column.dtype.kind in "US" else column for name, column in part.rows.items()}
        connection = duckdb_connection()
        try:
            connection.register("part_rows", rows)
            connection.execute(
                f"COPY (SELECT * FROM part_rows) TO '{_quoted(target)}' (FORMAT parquet, COMPRESSION zstd, "
                f"KV_METADATA {{evaluated: '{part.evaluated}', feasible: '{part.feasible}', digest: '{_content(part.rows)}'}})"
            )
        finally:
            connection.close()
        with open(target, "rb") as file:
            os.fsync(file.fileno())

    def read_part(self, number: int) -> Part:
        path = self.part_path(number)
        connection = duckdb_connection()
        try:
            rows: Rows = connection.execute(f"SELECT * FROM read_parquet('{_quoted(path)}')").fetchnumpy()
            pairs = connection.execute(
                f"SELECT decode(key), decode(value) FROM parquet_kv_metadata('{_quoted(path)}')"
            ).fetchall()
        except Exception as error:
            raise StudyError(f"{path}: a damaged part ({type(error).__name__}); delete it and resume the run") from None
        finally:
            connection.close()
        counts = dict(pairs)
        part = Part({n: _unmasked(c) for n, c in rows.items()}, int(counts["evaluated"]), int(counts["feasible"]))
        if counts.get("digest", wanted := _content(part.rows)) != wanted:
            raise StudyError(f"{path}: a damaged part (its numbers are not those written); delete it and resume the run")
        return part

    def _check(self, number: int) -> None:
        """Raises StudyError where a part is damaged. An unchanged one is read once: a page asks all the time."""
        path = self.part_path(number)
        try:
            state = (str(path), path.stat().st_mtime_ns, path.stat().st_size)
        except OSError:
            return  # taken away meanwhile: the query says so
        if state not in _WHOLE:
            self.read_part(number)
            _WHOLE.add(state)

    def query(self, sql: str) -> Rows:
        """SQL over `designs`, the union of all parts. Raises StudyError where a part is damaged."""
        for number in sorted(self.finished()):
            self._check(number)
        connection = duckdb_connection()
        try:
            pattern = _quoted(self.folder / "parts" / "part-*.parquet")
            connection.execute(f"CREATE TEMP VIEW designs AS SELECT * FROM read_parquet('{pattern}')")
            return {name: _unmasked(column) for name, column in connection.execute(sql).fetchnumpy().items()}
        except Exception as error:
            why = str(error).splitlines()[0][:200]
            raise StudyError(f"{self.folder}: a damaged part ({why}); delete it and resume the run") from None
        finally:
            connection.close()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Raises StudyError while another process works on this run. Freed by the system when a process dies."""
        import fcntl

        with _room_for(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(self.folder / ".lock", "w")  # noqa: SIM115 - closed below, after the run
        with file:
            for attempt in range(_LOCK_TRIES):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if attempt == _LOCK_TRIES - 1:
                        raise StudyError(f"{self.folder}: another process is working on this run") from None
                    time.sleep(0.01)
            yield

    def worked_on(self) -> bool:
        """Whether a process works on this run now."""
        import fcntl

        try:
            with open(self.folder / ".lock") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False


_WHOLE: set[tuple[str, int, int]] = set()
"""Path, time and size of parts that this process has found whole."""
_LOCK_TRIES = 5
"""`worked_on` holds the lock for an instant, which must not refuse a run that starts."""


@contextmanager
def _room_for(path: Path, *partial: Path) -> Iterator[None]:
    """What the system refuses to write becomes a StudyError, and no half-written file stays to fill the disk."""
    try:
        yield
    except Exception as error:
        for file in partial:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in ("duckdb", "_duckdb"):
            raise
        why = error.strerror if isinstance(error, OSError) else _said_by_duckdb(error)
        remedy = "what is finished is kept, resume the run when it can be"
        raise StudyError(f"{path}: cannot be written ({why}); {remedy}") from None


def _said_by_duckdb(error: Exception) -> str:
    """What the system said, where DuckDB passes its number on; else DuckDB's first line."""
    number = re.search(r'"errno":"(\d+)"', str(error))
    return os.strerror(int(number[1])) if number else str(error).splitlines()[0][:200]


def _content(rows: Rows) -> str:
    """Digest of a part's numbers, the same for every kind of NaN: a changed bit on the disk is found when it is read."""
    return digest({n: np.where(np.isnan(c), np.nan, c) if c.dtype.kind == "f" else c for n, c in rows.items()})


def _unmasked(column: Any) -> NDArray[Any]:
    """DuckDB hands a NaN back as a missing value."""
    return np.ma.filled(column, np.nan) if isinstance(column, np.ma.MaskedArray) else np.asarray(column)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def digest(rows: Rows) -> str:
    """Hash of columns by name, order and every bit of their values."""
    sha = hashlib.sha256()
    for name in sorted(rows):
        column = rows[name]
        data = "\x00".join(map(str, column)).encode() if column.dtype.kind in "OUS" else np.ascontiguousarray(column).tobytes()
        sha.update(name.encode() + b"\x00" + data)
    return sha.hexdigest()
